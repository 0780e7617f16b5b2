"""A process's sign of life: a thread that writes who it is and what it does now.

Its connection is opened for each sign and closed after it: a worker forks meanwhile, and nothing of
it may be inherited.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable

from django.db import Error, connection

from streams.models import Process
from streams.version import VERSION

log = logging.getLogger(__name__)
EVERY_S = 5.0
GONE_AFTER = dt.timedelta(seconds=20)
# What a consumer does before it reads: the first time after an update that takes minutes.
STARTING = "starts: compiles its kernels"


class Heartbeat:
    """Signs until it is stopped; what it can't write it lets be."""

    def __init__(
        self,
        kind: Process.Kind,
        doing: Callable[[], str] = lambda: "",
        every_s: float = EVERY_S,
    ) -> None:
        self._kind = kind
        self._doing = doing
        self._every_s = every_s
        self._started = dt.datetime.now(dt.UTC)
        self._stop = threading.Event()
        self._cpu: tuple[float, float] | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> Heartbeat:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Say goodbye, so that nobody takes us for dead."""
        self._stop.set()
        self._thread.join(3)

    def _run(self) -> None:
        while True:
            self._sign()
            if self._stop.wait(self._every_s):
                break
        self._quietly(Process.objects.filter(
            kind=self._kind, host=socket.gethostname()[:200], pid=os.getpid()
        ).delete)  # fmt: skip

    def _sign(self) -> None:
        share = self._cpu_share()
        self._quietly(lambda: Process.objects.update_or_create(
            kind=self._kind, host=socket.gethostname()[:200], pid=os.getpid(),
            defaults={
                "version": VERSION, "started_at": self._started, "beat_at": dt.datetime.now(dt.UTC),
                "doing": self._doing()[:200], "cpu_share": share, "rss_mb": _memory_mb(),
            },
        ))  # fmt: skip

    def _quietly(self, write: Callable[[], object]) -> None:
        try:
            write()
        except Error as error:
            log.debug("heartbeat.failed error=%s", error)
        finally:
            connection.close()

    def _cpu_share(self) -> float | None:
        """Cores that this process and its ended children used since the last sign."""
        own, theirs = (resource.getrusage(who) for who in
                       (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))  # fmt: skip
        used = own.ru_utime + own.ru_stime + theirs.ru_utime + theirs.ru_stime
        now, before = time.monotonic(), self._cpu
        self._cpu = (now, used)
        return None if before is None else (used - before[1]) / max(0.001, now - before[0])


def _memory_mb() -> float:
    """What it has in memory now; where /proc does not tell, the most it ever had."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, ValueError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (1e6 if sys.platform == "darwin" else 1024)
