"""Ends the children of a parent that is gone: runs beside it, and acts when its pipe closes.

Standard library only, since it is started by its path. Reads `watch PID SIGNAL` and `forget PID`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

GRACE_S = 12.0


def main() -> None:
    # The same Ctrl-C or group signal that ends the parent must not end this.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: dict[int, int] = {}
    for line in sys.stdin:
        words = line.split()
        if words[:1] == ["watch"]:
            watched[int(words[1])] = int(words[2])
        elif words[:1] == ["forget"]:
            watched.pop(int(words[1]), None)
    end(watched)


def end(watched: dict[int, int]) -> None:
    """Asks each first, then kills its whole group: each child leads one of its own."""
    for pid, number in watched.items():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    deadline = time.monotonic() + GRACE_S
    while any(alive(pid) for pid in watched) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in watched:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether the process itself still runs; a zombie that nobody waits for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return not os.path.isdir("/proc/self")


if __name__ == "__main__":
    main()
