"""What a consumer says of itself: rates, lag and latency, to the database, the log and metrics."""

from __future__ import annotations

import datetime as dt
import logging
import resource
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from django.db import Error, connection
from django.db.models import F
from prometheus_client import Counter, Gauge, Histogram

from streams.models import ConsumerStatus, PipelineStat

log = logging.getLogger(__name__)

EVENTS = Counter("vigil_events", "Events scored and stored by this consumer.")
REJECTS = Counter("vigil_dead_letters", "Messages that became dead letters.")
ANOMALIES = Counter("vigil_anomalies", "Episodes that opened.")
LAG = Gauge("vigil_consumer_lag", "Messages behind the end of the log.")
LATENCY = Histogram(
    "vigil_latency_seconds",
    "From the broker's timestamp to the committed row, of sampled messages.",
    buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 60),
)

WINDOW_S = 10.0


class StatusReporter:
    """Counts stored batches; reports every ``interval_s`` from a thread of its own."""

    def __init__(self, instance: str, interval_s: float = 2.0, log_every_s: float = 10.0) -> None:
        self._instance = instance
        self._interval_s = interval_s
        self._log_every_s = log_every_s
        self._started = dt.datetime.now(dt.UTC)
        self._next_s = 0.0
        self._next_log_s = 0.0
        self._events: deque[tuple[float, int]] = deque()
        self._latency: deque[tuple[float, float]] = deque()
        self._unsent = {"events": 0, "rejects": 0, "anomalies": 0}
        self._onsets = 0
        self.busy = True
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._row: dict[str, Any] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)
        self._thread.start()

    def count(self, timestamps_ms: Sequence[int], events: int, rejects: int) -> None:
        """A batch was stored; ``timestamps_ms`` are the broker's, of a sample of it."""
        now = time.monotonic()
        wall_ms = time.time() * 1000
        late_ms = [max(0.0, wall_ms - timestamp_ms) for timestamp_ms in timestamps_ms]
        with self._counting:
            self._events.append((now, events))
            self._unsent["events"] += events
            self._unsent["rejects"] += rejects
            self._latency.extend((now, late) for late in late_ms)
            while len(self._latency) > 4096:
                self._latency.popleft()
        EVENTS.inc(events)
        REJECTS.inc(rejects)
        for late in late_ms:
            LATENCY.observe(late / 1000)

    def due(self, now_s: float) -> bool:
        """Whether it is time for a report."""
        if now_s < self._next_s:
            return False
        self._next_s = now_s + self._interval_s
        return True

    def report(
        self, partitions: list[dict[str, Any]], series: int, onsets: int, state: str
    ) -> dict[str, Any]:
        """Hand a report to the thread; returns the live message's numbers."""
        now = time.monotonic()
        new = onsets - self._onsets
        self._onsets = onsets
        with self._counting:
            while self._events and self._events[0][0] < now - WINDOW_S:
                self._events.popleft()
            while self._latency and self._latency[0][0] < now - WINDOW_S:
                self._latency.popleft()
            span = max(1.0, now - self._events[0][0]) if self._events else WINDOW_S
            rate = sum(n for _, n in self._events) / span
            ordered = sorted(ms for _, ms in self._latency)
            sent = {**self._unsent, "anomalies": new}
            self._unsent = dict.fromkeys(self._unsent, 0)
        p95 = ordered[int(0.95 * (len(ordered) - 1))] if ordered else None
        lag = sum(p["end_offset"] - p["next_offset"] for p in partitions)
        LAG.set(lag)
        ANOMALIES.inc(new)
        with self._lock:
            carried = self._row["sent"] if self._row else {}
            self._row = {
                "partitions": partitions,
                "series": series,
                "state": state,
                "events_per_s": rate,
                "latency_p95_ms": p95,
                "lag": lag,
                "sent": {k: v + carried.get(k, 0) for k, v in sent.items()},
            }
        self._wake.set()
        if now >= self._next_log_s:
            self._next_log_s = now + self._log_every_s
            log.info(
                "consumer.progress events_per_s=%.0f lag=%d anomalies=%d rejects=%d"
                " latency_p95_ms=%s series=%d",
                rate,
                lag,
                onsets,
                sent["rejects"],
                "-" if p95 is None else f"{p95:.0f}",
                series,
            )
        return {
            "events": sent["events"],
            "rejects": sent["rejects"],
            "events_per_s": rate,
            "lag": lag,
            "latency_p95_ms": p95,
        }

    def close(self) -> None:
        """Say goodbye: the row goes, so that the pages don't take us for dead."""
        self._closed = True
        self._wake.set()
        self._thread.join(3)

    def _run(self) -> None:
        while True:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            with self._lock:
                row, self._row = self._row, None
            try:
                if row:
                    self._save(row)
                if self._closed:
                    ConsumerStatus.objects.filter(instance=self._instance).delete()
                    connection.close()
                    return
            except Error as error:
                log.debug("status.failed error=%s", error)
                connection.close()
                if self._closed:
                    return

    def _save(self, row: dict[str, Any]) -> None:
        now = dt.datetime.now(dt.UTC)
        sent = row["sent"]
        places = {
            f"{p['topic']}/{p['partition']}": [p["next_offset"], p["end_offset"]]
            for p in row["partitions"]
        }
        ConsumerStatus.objects.update_or_create(
            instance=self._instance,
            defaults={
                "started_at": self._started,
                "beat_at": now,
                "events_per_s": row["events_per_s"],
                "lag": row["lag"],
                "latency_p95_ms": row["latency_p95_ms"],
                "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "series": row["series"],
                "partitions": row["partitions"],
                "state": row["state"],
            },
        )
        minute = now.replace(second=0, microsecond=0)
        stat, made = PipelineStat.objects.get_or_create(
            instance=self._instance,
            minute=minute,
            defaults={
                **sent,
                "latency_p95_ms": row["latency_p95_ms"],
                "lag": row["lag"],
                "places": places,
            },
        )
        if not made:
            PipelineStat.objects.filter(pk=stat.pk).update(
                events=F("events") + sent["events"],
                rejects=F("rejects") + sent["rejects"],
                anomalies=F("anomalies") + sent["anomalies"],
                latency_p95_ms=row["latency_p95_ms"],
                lag=row["lag"],
                places=places,
            )
