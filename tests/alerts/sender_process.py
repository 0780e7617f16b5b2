"""Sender processes for the kill test: Django is loaded once, and each line read forks one.

Run as a program; says the number of each process that it starts.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading


def main() -> None:
    import django

    django.setup()
    from django.conf import settings

    from alerts import delivery
    from alerts.receivers import KINDS

    claim_s = float(sys.argv[1])
    given = settings.VIGIL.alerts.model_copy(
        update={"claim_s": claim_s, "allowed_networks": ("127.0.0.0/8",)}
    )
    settings.VIGIL = settings.VIGIL.model_copy(update={"alerts": given})
    assert KINDS
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # dies with its parent
            delivery.run(f"sender-{line.strip()}", threading.Event(), workers=4)
            os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
