"""Wall and CPU seconds of this process from a first moment to the latest one."""

from __future__ import annotations

import time


class Stopwatch:
    """Starts with the first ``start``; ``read`` is (wall, CPU) seconds since then."""

    def __init__(self) -> None:
        self._wall = self._cpu = 0.0
        self._running = False

    def start(self) -> None:
        """Begin, unless it runs already."""
        if not self._running:
            self._running = True
            self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Seconds since the start, all threads' CPU included."""
        return time.perf_counter() - self._wall, time.process_time() - self._cpu
