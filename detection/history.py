"""Reads a topic's past for training: events by time of arrival, then the live scoring's features.

It reads outside of any consumer group, commits nothing, and rests as long as it works, so that
the consumer beside it keeps its pace. Equal events and seed give equal rows, however they arrive.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, TopicPartition
from numpy.typing import NDArray

from detection.base import FloatArray, ScoringInput, SeriesOutput
from detection.detectors.online import OnlineDetector
from detection.detectors.vector import VectorDetector
from detection.features import FEATURE_NAMES, Space
from detection.scoring import TRUSTED_AFTER
from detection.state import StateStore
from detection.vectors import VectorStore
from detection.zone_clock import ZoneClock
from streams.batch import EventBatch
from streams.codec import Codec, Decoded
from streams.connectors.topic import (
    TIMEOUT_S,
    arrivals,
    partitions_of,
    reader,
    start_offsets,
)
from streams.errors import BrokerError
from streams.series import SeriesIndex
from streams.vectors import is_vector, label_of

BATCH = 10_000
MAX_EVENTS = 5_000_000
MAX_ROWS = 200_000

U8 = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A time of a series that training leaves out; both ends belong to it. µs since 1970."""

    source: str
    metric: str
    start_us: int
    end_us: int


Provider = Callable[[str], Sequence[Interval]]  # of a stream's name
_providers: list[Provider] = []


def leave_out(provider: Provider) -> None:
    """Let an app downstream name what no model may learn; each provider counts once."""
    if provider not in _providers:
        _providers.append(provider)


def left_out(stream: str) -> list[Interval]:
    """All that training of this stream leaves out."""
    return [interval for provider in _providers for interval in provider(stream)]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRows:
    """Feature rows in the order of time, and where they came from.

    ``features`` float64 [n, k], named by ``columns``; ``time_us`` int64 [n]. ``events`` were read
    of this metric; ``warming``, ``excluded`` and ``sampled_out`` say why not all of them are rows.
    """

    features: FloatArray
    time_us: NDArray[np.int64]
    events: int = 0
    series: int = 0
    warming: int = 0
    excluded: int = 0
    sampled_out: int = 0
    ranges: dict[int, tuple[int, int]] = field(default_factory=dict)  # partition: offsets read
    metric: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    metrics: tuple[str, ...] = ()  # what ``metric`` int32 [n] counts
    columns: tuple[str, ...] = FEATURE_NAMES

    @property
    def space(self) -> Space:
        """What the columns are: features of series, or the values of wide events."""
        return "series" if self.columns == FEATURE_NAMES else "vector"

    def __len__(self) -> int:
        return len(self.time_us)


def read_events(
    client: Mapping[str, Any],
    topic: str,
    codec: Codec,
    *,
    since_us: int | None = None,
    max_events: int = MAX_EVENTS,
    share: float = 0.5,
    sleep: Callable[[float], None] = time.sleep,
    metric: str = "",
    told: Callable[[float], None] = lambda done: None,
) -> Iterator[EventBatch]:
    """The topic's events that arrived since then and until now, partition by partition in order.

    Where ``metric`` is the label of a schema, its wide events with a column for each value.

    ``share`` is the part of the time it may work; ``told`` hears often what part of the events is
    read, 0 to 1, and what it raises ends the reading. Of more than ``max_events`` the newest are
    read. Messages that are no events are passed over: the consumer has made dead letters of them.

    Raises:
        BrokerError: the broker doesn't answer.
    """
    partitions = partitions_of(client, topic)
    consumer = reader(client)
    try:
        spans = _spans(consumer, topic, partitions, since_us, max_events)
        if not spans:
            return
        consumer.assign([TopicPartition(topic, p, start) for p, (start, _) in spans.items()])
        left = dict(spans)
        total, read = sum(end - start for start, end in spans.values()), 0
        for got in arrivals(consumer, BATCH, topic):
            read += len(got)
            told(min(1.0, read / total))
            began = time.monotonic()
            messages: list[Any] = []
            for message in got:
                partition, offset = message.partition() or 0, message.offset() or 0
                error = message.error()
                if error is None:
                    if partition in left and offset < left[partition][1]:
                        messages.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    _drop(consumer, topic, partition, left)
                else:
                    raise BrokerError(f"topic {topic}: {error.str()}")
            _drop_finished(consumer, topic, left)
            if messages:
                yield _of_metric(codec.decode(messages), metric)
            if not left:
                return
            if share < 1:
                sleep((time.monotonic() - began) * (1 - share) / share)
    finally:
        consumer.close()


def _of_metric(decoded: Decoded, metric: str) -> EventBatch:
    if not is_vector(metric):
        return decoded.batch
    for batch in decoded.vectors:
        if label_of(batch.columns) == metric:
            return batch
    return decoded.batch.take(np.zeros(len(decoded.batch), dtype=np.bool_))


def feature_rows(
    batches: Iterable[EventBatch],
    index: SeriesIndex,
    *,
    metric: str = "",
    time_zone: str = "UTC",
    exclude: Sequence[Interval] = (),
    max_rows: int = MAX_ROWS,
    seed: int = 0,
    trusted_after: int = TRUSTED_AFTER,
) -> TrainingRows:
    """Run the online detector over the events and keep the features models are trained on.

    Where ``metric`` is the label of a schema: the vector detector, and the smoothed values in
    deviations from their means, from the end of each source's own training on. Of more than
    ``max_rows`` a seeded sample is kept, which depends on the events alone.
    """
    kind = _VectorCollector if is_vector(metric) else _Collector
    collector = kind(index, metric, time_zone, exclude, max_rows, seed, trusted_after)
    for batch in batches:
        collector.add(batch)
    return collector.result()


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Rows of the sample; ``place`` int64 [n, 3] is partition, offset, hash of the name."""

    features: FloatArray
    time_us: NDArray[np.int64]
    place: NDArray[np.int64]
    key: U8
    series: NDArray[np.int32]

    @classmethod
    def empty(cls, k: int) -> _Part:
        return cls(
            np.zeros((0, k)),
            np.zeros(0, dtype=np.int64),
            np.zeros((0, 3), dtype=np.int64),
            np.zeros(0, dtype=np.uint64),
            np.zeros(0, dtype=np.int32),
        )


class _Collector:
    """State of every series on the way, and the sample so far."""

    def __init__(
        self,
        index: SeriesIndex,
        metric: str,
        time_zone: str,
        exclude: Sequence[Interval],
        max_rows: int,
        seed: int,
        trusted_after: int,
    ) -> None:
        self._index, self._metric = index, metric
        self._max_rows, self._trusted_after = max_rows, trusted_after
        self._zone = ZoneClock(time_zone)
        self._detector = OnlineDetector()
        self._store = StateStore([self._detector.component])
        self._slots: dict[tuple[int, int], int] = {}
        self._salt = np.uint64(zlib.crc32(str(seed).encode()))
        self._names = np.zeros(0, dtype=np.uint64)  # a hash of each series' name
        self._wanted = np.zeros(0, dtype=np.bool_)
        self._intervals: dict[tuple[str, str], list[Interval]] = {}
        for interval in exclude:
            self._intervals.setdefault((interval.source, interval.metric), []).append(interval)
        self._parts: list[_Part] = []
        self._columns = FEATURE_NAMES
        self._counts = {"events": 0, "warming": 0, "excluded": 0, "kept": 0}
        self._ranges: dict[int, tuple[int, int]] = {}

    def add(self, batch: EventBatch) -> None:
        self._learn_names()
        for partition, end in batch.committable.items():
            mine = batch.offset[batch.partition == partition]
            start = int(mine.min()) if len(mine) else end
            first = self._ranges.get(partition, (start, end))[0]
            self._ranges[partition] = (min(first, start), end)
        batch = batch.take(self._wanted[batch.series])
        if not len(batch):
            return
        self._counts["events"] += len(batch)
        # The detector does not see a confirmed anomaly either: it would look back on it for days,
        # in a wider range of values, and so would the rows behind it.
        left_out = self._left_out(batch)
        self._counts["excluded"] += int(left_out.sum())
        batch = batch.take(~left_out)
        features, trusted = self._features(batch)
        self._counts["warming"] += int((~trusted).sum())
        keep = trusted & np.isfinite(features).all(axis=1)
        self._keep(batch.take(keep), features[keep])

    def _features(self, batch: EventBatch) -> tuple[FloatArray, NDArray[np.bool_]]:
        """(features [n, k], which of them are no longer warming up [n])."""
        out = SeriesOutput.empty(len(batch))
        inputs = ScoringInput(
            self._slot(batch),
            self._zone.local_s(batch.event_time),
            np.ascontiguousarray(batch.values[:, 0]),
        )
        self._detector.score(self._store.rows(self._detector.component.name), inputs, out)
        return out.features, out.seen >= self._trusted_after

    def result(self) -> TrainingRows:
        self._parts = self._parts or [_Part.empty(len(self._columns))]
        rows = self._shrunk()
        partition, offset, name = rows.place.T
        order = np.lexsort((name, offset, partition, rows.time_us))
        of_series = [metric for _, metric in self._index.names]
        metrics = tuple(sorted({of_series[code] for code in np.unique(rows.series).tolist()}))
        number = np.array([metrics.index(m) if m in metrics else -1 for m in of_series])
        return TrainingRows(
            features=np.ascontiguousarray(rows.features[order]),
            time_us=rows.time_us[order],
            events=self._counts["events"],
            series=len({code for _, code in self._slots}),
            warming=self._counts["warming"],
            excluded=self._counts["excluded"],
            sampled_out=self._counts["kept"] - len(order),
            ranges=dict(sorted(self._ranges.items())),
            metric=number[rows.series[order]].astype(np.int32),
            metrics=metrics,
            columns=self._columns,
        )

    def _learn_names(self) -> None:
        fresh = self._index.names[len(self._names) :]
        if fresh:
            hashes = [zlib.crc32("\0".join(name).encode()) for name in fresh]
            wanted = [not self._metric or metric == self._metric for _, metric in fresh]
            self._names = np.append(self._names, np.array(hashes, dtype=np.uint64))
            self._wanted = np.append(self._wanted, np.array(wanted, dtype=np.bool_))

    def _slot(self, batch: EventBatch) -> NDArray[np.int64]:
        """A series seen in two partitions has two states there, as in live scoring."""
        pairs = batch.partition.astype(np.int64) << 32 | batch.series.astype(np.int64)
        different, place = np.unique(pairs, return_inverse=True)
        slots = np.empty(len(different), dtype=np.int64)
        for at, pair in enumerate(different.tolist()):
            key = (pair >> 32, pair & 0xFFFFFFFF)
            if key not in self._slots:
                self._slots[key] = int(self._store.allocate(1)[0])
            slots[at] = self._slots[key]
        return slots[place]

    def _left_out(self, batch: EventBatch) -> NDArray[np.bool_]:
        left_out = np.zeros(len(batch), dtype=np.bool_)
        if not self._intervals:
            return left_out
        for code in np.unique(batch.series).tolist():
            for interval in self._intervals.get(self._index.names[code], ()):
                left_out |= (
                    (batch.series == code)
                    & (batch.event_time >= interval.start_us)
                    & (batch.event_time <= interval.end_us)
                )
        return left_out

    def _keep(self, batch: EventBatch, features: FloatArray) -> None:
        names = self._names[batch.series]
        place = np.stack(
            [batch.partition.astype(np.int64), batch.offset, names.astype(np.int64)], axis=1
        )
        key = _mixed(batch.offset.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        key = _mixed(key ^ names ^ (self._salt << np.uint64(32)))
        key = _mixed(key + batch.partition.astype(np.uint64))
        self._counts["kept"] += len(batch)
        self._parts.append(_Part(features, batch.event_time, place, key, batch.series))
        if sum(len(part.key) for part in self._parts) > 2 * self._max_rows:
            self._parts = [self._shrunk()]

    def _shrunk(self) -> _Part:
        """The rows with the smallest hashes: a fair sample that no order of arrival moves."""
        rows = _Part(
            np.concatenate([part.features for part in self._parts]),
            np.concatenate([part.time_us for part in self._parts]),
            np.concatenate([part.place for part in self._parts]),
            np.concatenate([part.key for part in self._parts]),
            np.concatenate([part.series for part in self._parts]),
        )
        if len(rows.key) <= self._max_rows:
            return rows
        kept = np.argpartition(rows.key, self._max_rows - 1)[: self._max_rows]
        return _Part(
            rows.features[kept], rows.time_us[kept], rows.place[kept], rows.key[kept],
            rows.series[kept],
        )  # fmt: skip


class _VectorCollector(_Collector):
    """The same of one schema's wide events."""

    _vector = VectorDetector()

    def _features(self, batch: EventBatch) -> tuple[FloatArray, NDArray[np.bool_]]:
        self._columns = batch.columns
        k = len(batch.columns)
        rows = self._vectors.rows_of(self._slot(batch), k)
        found = self._vector.score(self._vectors.pool(k), rows, batch.values)
        return found.standard, ~np.isnan(found.oddness)

    @cached_property
    def _vectors(self) -> VectorStore:
        return VectorStore()


def _spans(
    consumer: Consumer,
    topic: str,
    partitions: Sequence[int],
    since_us: int | None,
    max_events: int,
) -> dict[int, tuple[int, int]]:
    """First offset and end of what is to be read, of each partition that has something."""
    spans: dict[int, tuple[int, int]] = {}
    for partition in partitions:
        low, high = consumer.get_watermark_offsets(
            TopicPartition(topic, partition), timeout=TIMEOUT_S
        )
        spans[partition] = (low, high)
    if since_us is not None and partitions:
        found = start_offsets(consumer, topic, list(partitions), since_us // 1_000)
        spans = {p: (max(spans[p][0], start), spans[p][1]) for p, start in found.items()}
    total = sum(end - start for start, end in spans.values())
    if total > max_events:
        part = max_events / total
        spans = {p: (end - int((end - start) * part), end) for p, (start, end) in spans.items()}
    return {p: (start, end) for p, (start, end) in sorted(spans.items()) if end > start}


def _drop_finished(consumer: Consumer, topic: str, left: dict[int, tuple[int, int]]) -> None:
    asked = [TopicPartition(topic, partition) for partition in left]
    for position in consumer.position(asked) if asked else []:
        if position.offset >= left[position.partition][1]:
            _drop(consumer, topic, position.partition, left)


def _drop(consumer: Consumer, topic: str, partition: int, left: dict[int, tuple[int, int]]) -> None:
    """Read no more of a partition whose end is reached."""
    if left.pop(partition, None) is not None:
        consumer.incremental_unassign([TopicPartition(topic, partition)])


def _mixed(x: U8) -> U8:
    """The finaliser of splitmix64: every bit depends on every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
