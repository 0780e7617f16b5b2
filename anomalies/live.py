"""Live push, the sending side: one Redis message for what consumers stored, at most four a second.

Push is at most once: a page that missed something reads it from the database.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from functools import lru_cache
from typing import Any

import redis
from django.conf import settings

CHANNEL = "vigil:live"
MIN_INTERVAL_S = 0.25
MAX_ANOMALIES = 200
log = logging.getLogger(__name__)


class LivePublisher:
    """Takes updates from the consumer's loop and sends them from a thread of its own.

    `publish` neither blocks nor raises: between two sends updates are merged, counts added up,
    anomalies kept up to a bound; beyond it the oldest fall out and `dropped` counts them, so
    that pages know to read again. ``dropped`` on this object counts them over its life.
    """

    def __init__(self, redis_url: str) -> None:
        self._client = redis.Redis.from_url(redis_url, socket_timeout=2, socket_connect_timeout=2)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._pending: dict[str, Any] | None = None
        self._anomalies: deque[dict[str, Any]] = deque()
        self._lost = 0
        self._closed = False
        self.dropped = 0
        self.failures = 0
        self._thread: threading.Thread | None = None

    def publish(self, message: dict[str, Any]) -> None:
        """Merge one update into what is sent next; see docs/api.md for its keys."""
        try:
            with self._lock:
                self._merge(message)
                self._start()
            self._wake.set()
        except Exception:  # the caller's loop must never fail for a page's sake
            log.exception("live.merge_failed")

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what is left and end the thread."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _start(self) -> None:
        # Started with the first message, and again after a fork, which copies no threads.
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="live-publisher", daemon=True)
            self._thread.start()

    def _merge(self, message: dict[str, Any]) -> None:
        before = self._pending or {}
        merged = before | {k: v for k, v in message.items() if k != "anomalies"}
        for counted in ("events", "rejects"):
            merged[counted] = int(before.get(counted, 0)) + int(message.get(counted, 0) or 0)
        self._pending = merged
        self._anomalies.extend(message.get("anomalies", ()))
        while len(self._anomalies) > MAX_ANOMALIES:
            self._anomalies.popleft()
            self._lost += 1
            self.dropped += 1

    def _take(self) -> tuple[str, int] | None:
        """The next message, and how many anomalies go missing with it if it can't be sent."""
        with self._lock:
            if self._pending is None:
                return None
            message = self._pending | {"anomalies": list(self._anomalies)}
            if self._lost:
                message["dropped"] = self._lost
            missing = self._lost + len(self._anomalies)
            self._pending, self._lost = None, 0
            self._anomalies.clear()
        return json.dumps(message, default=str, allow_nan=False), missing

    def _run(self) -> None:
        while not self._closed or self._pending is not None:
            self._wake.wait()
            self._wake.clear()
            missing = 0
            try:
                taken = self._take()
                if taken is not None:
                    text, missing = taken
                    self._client.publish(CHANNEL, text)
            except Exception as error:
                # The next message that arrives tells pages to read what this one had.
                with self._lock:
                    self._lost += missing
                self.failures += 1
                if self.failures in (1, 10, 100) or self.failures % 1000 == 0:
                    log.warning("live.push_failed failures=%d error=%s", self.failures, error)
            if self._closed and self._pending is None:
                return
            time.sleep(MIN_INTERVAL_S)


@lru_cache(maxsize=1)
def publisher() -> LivePublisher:
    """The web process's own, for what people report by hand."""
    return LivePublisher(settings.REDIS_URL)
