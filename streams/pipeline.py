"""A worker thread that runs jobs in order: decoding, scoring and storing overlap."""

from __future__ import annotations

import queue
import sys
import threading
import traceback
from collections.abc import Callable

from django.db import connection

Job = Callable[[], None]


class Pipeline:
    """Runs jobs one after the other; at most one waits. A job's error is kept for the caller.

    After an error nothing runs until :meth:`take_error`: later batches build on the failed one.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._jobs: queue.Queue[Job | None] = queue.Queue(maxsize=1)
        self._idle = threading.Event()
        self._idle.set()
        self._lock = threading.Lock()
        self._pending = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job, wait_s: float) -> bool:
        """Hand over a job; False if there was no room within ``wait_s``."""
        with self._lock:
            self._pending += 1
            self._idle.clear()
        try:
            self._jobs.put(job, timeout=wait_s)
        except queue.Full:
            self._finished()
            return False
        return True

    def drain(self, wait_s: float) -> bool:
        """Wait until every job has run; False if that takes longer than ``wait_s``."""
        return self._idle.wait(wait_s)

    def take_error(self) -> BaseException | None:
        """What a job raised, once; call it with the pipeline drained."""
        error, self._error = self._error, None
        return error

    @property
    def failed(self) -> bool:
        """Whether an error waits to be taken."""
        return self._error is not None

    def where(self) -> str:
        """The lines of code the thread is at, innermost last: for a log when it does not end."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        calls = traceback.extract_stack(frame) if frame is not None else []
        return " > ".join(f"{c.filename.rpartition('/')[2]}:{c.lineno}" for c in calls[-6:])

    def close(self) -> None:
        """End the thread behind the last job."""
        self._jobs.put(None)
        self._thread.join(30)

    def _finished(self) -> None:
        with self._lock:
            self._pending -= 1
            if not self._pending:
                self._idle.set()

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                connection.close()
                return
            try:
                if self._error is None:
                    job()
            except BaseException as error:
                self._error = error
            finally:
                self._finished()
