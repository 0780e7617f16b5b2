"""Tells others what was stored: results on the topic (at least once, stable ids), live push.

The outbox is the memory: a row counts as published once the broker has it, and what a dead
consumer left unpublished is sent by the partition's next owner.
"""

from __future__ import annotations

import datetime as dt
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from confluent_kafka import KafkaException
from django.db import Error, connection
from django.utils import timezone

from anomalies.models import Outbox
from anomalies.pending import Found
from streams import checkpoint
from streams.checkpoint import Owned
from streams.codec import Reject
from streams.errors import StreamsError
from streams.producer import Headers, TopicProducer

log = logging.getLogger(__name__)
QUEUED_BATCHES = 1_000
RETRY_S = 2.0
LOOK_S = 30.0  # between looks for rows that have been unpublished for as long
CLOSE_WITHIN_S = 3.0

_Key = tuple[Any, int]
_Work = list[tuple[_Key, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class _Refused:
    topic: str
    rejects: Sequence[Reject]


_Queued = _Work | Owned | _Refused | dict[str, Any]


class Push(Protocol):
    """Live push: never blocks, never raises."""

    def publish(self, message: dict[str, Any]) -> None: ...
    def close(self, timeout_s: float = 2.0) -> None: ...


class Announcer:
    """One per consumer process. A thread of its own talks to Kafka, so the loop never waits."""

    def __init__(
        self,
        producer: Callable[[], TopicProducer],
        topic: str,
        statistics_topic: str,
        push: Push | None,
        dead_letter_topic: str | None = None,
    ) -> None:
        self._make = producer
        self._topic = topic
        self._statistics_topic = statistics_topic
        self._dead_letter_topic = dead_letter_topic
        self._push = push
        self._queue: queue.Queue[_Queued | None] = queue.Queue(maxsize=QUEUED_BATCHES)
        self._rates: dict[str, Any] = {}
        self._lives: dict[tuple[int, int], Owned] = {}
        self._retry_at: float | None = None
        self._look_at = time.monotonic() + LOOK_S
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
        self._thread.start()

    def found(self, found: Found) -> int:
        """A batch was stored; returns how many episodes it opened."""
        if found.results:
            self._offer([((identity, n), payload) for identity, n, payload in found.results])
            self._live({"anomalies": [payload for _, _, payload in found.results]})
        return found.onsets

    def refused(self, topic: str, rejects: Sequence[Reject]) -> None:
        """Dead letters of ``topic`` were stored: their copies go to the dead letters' topic."""
        if self._dead_letter_topic is not None:
            self._offer(_Refused(topic, rejects))

    def recover(self, owned: Owned) -> None:
        """Publish what the partition's last owner stored but did not publish."""
        self._offer(owned)

    def tick(self, rates: Mapping[str, Any]) -> None:
        """The consumer's numbers, for pages and the statistics topic."""
        self._rates = {k: v for k, v in rates.items() if k not in ("events", "rejects")}
        message = {"type": "update", "at": dt.datetime.now(dt.UTC).isoformat(), **rates}
        self._offer(message)
        self._live(dict(rates))

    def close(self) -> None:
        """Send what is queued, then end the thread; what takes longer waits in the outbox."""
        self._offer(None)
        self._thread.join(CLOSE_WITHIN_S)
        if self._push is not None:
            self._push.close()

    def _live(self, message: dict[str, Any]) -> None:
        if self._push is not None:
            at = dt.datetime.now(dt.UTC).isoformat()
            self._push.publish({"type": "update", "at": at, **self._rates, **message})

    def _offer(self, work: _Queued | None) -> None:
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            # The outbox still holds them: the next look at unpublished rows sends them.
            log.warning("results.postponed reason=the broker takes no results")
            self._retry_at = time.monotonic() + RETRY_S

    def _run(self) -> None:
        producer = self._make()
        # One of its own: what becomes of statistics says nothing about results.
        self._numbers = self._make()
        while True:
            try:
                work = self._queue.get(timeout=RETRY_S)
                if work is None:
                    self._finish(producer)
                    return
                self._do(producer, work)
            except queue.Empty:
                pass
            except (StreamsError, Error) as error:
                self._failed(error)
            if self._retry_at is not None and time.monotonic() >= self._retry_at:
                self._catch_up(producer)
            elif time.monotonic() >= self._look_at:
                self._look(producer)

    def _do(self, producer: TopicProducer, work: _Queued) -> None:
        if isinstance(work, dict):
            try:
                self._numbers.send(self._statistics_topic, msgspec.json.encode(work))
            except StreamsError as error:
                log.warning("statistics.failed error=%s", error)
        elif isinstance(work, Owned):
            self._lives[work.incarnation_id, work.partition] = work
            self._publish(producer, self._unpublished(work))
        elif isinstance(work, _Refused):
            self._copy(producer, work)
        else:
            self._publish(producer, work)

    def _catch_up(self, producer: TopicProducer) -> None:
        """What could not be sent lies in the outbox: send it from there."""
        self._retry_at = None
        try:
            for owned in self._lives.values():
                self._publish(producer, self._unpublished(owned))
        except (StreamsError, Error) as error:
            self._failed(error)

    def _look(self, producer: TopicProducer) -> None:
        """Rows of our partitions that should long be published, whatever kept them."""
        self._look_at = time.monotonic() + LOOK_S
        try:
            for key, owned in list(self._lives.items()):
                if not checkpoint.is_owner(owned):
                    del self._lives[key]
                    continue
                self._publish(producer, self._unpublished(owned, older_than_s=LOOK_S))
        except (StreamsError, Error) as error:
            self._failed(error)

    def _copy(self, producer: TopicProducer, refused: _Refused) -> None:
        """The rows in the database are complete; these are copies for who reads topics."""
        topic = self._dead_letter_topic or ""
        try:
            for r in refused.rejects:
                headers: Headers = [
                    ("reason", r.reason),
                    ("topic", refused.topic),
                    ("partition", str(r.partition)),
                    ("offset", str(r.offset)),
                ]
                producer.send(topic, r.raw, r.key, headers)
            producer.flush(30.0)
        except (StreamsError, KafkaException) as error:
            log.warning("dead_letters.not_copied count=%s error=%s", len(refused.rejects), error)

    def _failed(self, error: Exception) -> None:
        log.warning("results.failed error=%s retry_in_s=%.0f", error, RETRY_S)
        connection.close()
        self._retry_at = time.monotonic() + RETRY_S

    def _finish(self, producer: TopicProducer) -> None:
        try:
            producer.flush(CLOSE_WITHIN_S)
        except StreamsError as error:
            log.warning("results.failed error=%s", error)
        connection.close()

    def _unpublished(self, owned: Owned, older_than_s: float = 0.0) -> _Work:
        rows = Outbox.objects.filter(
            published_at__isnull=True,
            incarnation_id=owned.incarnation_id,
            partition=owned.partition,
        ).order_by("id")
        if older_than_s:
            rows = rows.filter(created_at__lt=timezone.now() - dt.timedelta(seconds=older_than_s))
        return [((r.anomaly_id, r.sequence), r.payload) for r in rows.iterator()]

    def _publish(self, producer: TopicProducer, work: _Work) -> None:
        if not work:
            return
        for _, payload in work:
            producer.send(self._topic, msgspec.json.encode(payload), payload["source"].encode())
        producer.flush(30.0)
        keys = [key for key, _ in work]
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE anomalies_outbox AS o SET published_at = %s"
                " FROM unnest(%s::uuid[], %s::int[]) AS k (anomaly_id, sequence)"
                " WHERE o.anomaly_id = k.anomaly_id AND o.sequence = k.sequence"
                " AND o.published_at IS NULL",
                [timezone.now(), [k[0] for k in keys], [k[1] for k in keys]],
            )
