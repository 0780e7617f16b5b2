"""`anomaly_detection.emit: all`: each scored event on the output topic, next to the episodes.

A batch's events are with the broker before its transaction begins: what a crash repeats comes
twice, and nothing that is stored is missing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from detection.scoring import ScoredBatch
from streams.clock import from_us
from streams.errors import DeliveryError
from streams.producer import Record, TopicProducer
from streams.series import SeriesIndex

FLUSH_WITHIN_S = 10.0


class EventResult(msgspec.Struct, gc=False):
    """One scored event; ``anomaly_score`` is null while its series warms up."""

    source: str
    metric: str
    value: float
    timestamp: dt.datetime
    is_anomaly: bool
    anomaly_score: float | None
    stream: str
    partition: int
    offset: int
    late: bool
    change: str = "event"


def results(scored: ScoredBatch, index: SeriesIndex, stream: str) -> Iterator[Record]:
    """(key, value) of the events whose effects are not stored yet, in order."""
    events = scored.events
    encode = msgspec.json.Encoder().encode
    columns = (
        scored.silent,
        events.series,
        events.values[:, 0],
        events.event_time,
        scored.is_anomaly,
        scored.score,
        events.partition,
        events.offset,
        scored.outcome.late,
    )
    order = scored.arrival(np.arange(len(events)))
    rows = zip(*(column[order].tolist() for column in columns), strict=True)
    for silent, code, value, time, odd, score, partition, offset, late in rows:
        if silent:
            continue
        source, metric = index.names[code]
        shown = None if score != score else score
        yield (
            source.encode(),
            encode(
                EventResult(
                    source, metric, value, from_us(time), bool(odd), shown, stream, partition,
                    offset, bool(late),
                )
            ),
        )  # fmt: skip


class Emitter:
    """Sends a batch's events and waits for the broker; for one thread."""

    def __init__(self, producer: Callable[[], TopicProducer], topic: str) -> None:
        self._make = producer
        self._topic = topic
        self._producer: TopicProducer | None = None

    def __call__(self, records: list[Record]) -> None:
        """
        Raises:
            DeliveryError: the broker has not taken all of them; send all of them again.
        """
        if self._producer is None:
            self._producer = self._make()
        try:
            self._producer.send_many(self._topic, records)
            self._producer.flush(FLUSH_WITHIN_S)
        except DeliveryError:
            self._producer.abandon()
            self._producer = None
            raise
