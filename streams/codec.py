"""Kafka messages to an EventBatch plus the rejects: past this module every event is valid.

A message either becomes events or a :class:`Reject` with its raw bytes, place and reason.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams import fastjson
from streams.batch import EventBatch
from streams.series import SeriesIndex, SeriesNameError, check_name
from streams.timestamps import TimestampError, parse_one
from streams.vectors import PREFIX, Schema, SchemaBook, is_vector
from streams.widejson import WideTable

log = logging.getLogger(__name__)

MAX_BYTES = 1_000_000
MAX_WIDE = 1_000
REMEMBERED_METRICS = 20_000
LARGEST = 1e300  # squares and differences of larger values would overflow inside detectors


class Message(Protocol):
    """What is used of ``confluent_kafka.Message``."""

    def value(self) -> bytes | None: ...
    def key(self) -> bytes | None: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Reject:
    """A message that is no event. ``reason`` is one of the words below, ``detail`` a sentence.

    ``empty``, ``size``, ``encoding``, ``json``, ``schema``, ``name``, ``value``, ``timestamp``,
    ``limit``.
    """

    partition: int
    offset: int
    reason: str
    detail: str
    key: bytes | None
    raw: bytes | None


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a list of messages held.

    ``vectors`` has a batch for each schema of wide events, with a column for each value (nan where
    it was null); their single values are events of ``batch`` as well.
    """

    batch: EventBatch
    rejects: list[Reject]
    vectors: tuple[EventBatch, ...] = ()

    def of(self, partitions: Collection[int]) -> Decoded:
        """What is of these partitions."""
        rejects = [r for r in self.rejects if r.partition in partitions]
        vectors = tuple(batch.of(partitions) for batch in self.vectors)
        return Decoded(self.batch.of(partitions), rejects, vectors)


def joined(pieces: Sequence[Decoded]) -> Decoded:
    """Decoded pieces of one stream as one, in their order."""
    if len(pieces) == 1:
        return pieces[0]
    rejects = [reject for piece in pieces for reject in piece.rejects]
    schemas: dict[tuple[str, ...], list[EventBatch]] = {}
    for piece in pieces:
        for batch in piece.vectors:
            schemas.setdefault(batch.columns, []).append(batch)
    whole = EventBatch.joined([piece.batch for piece in pieces])
    vectors = tuple(
        replace(EventBatch.joined(batches), committable=whole.committable)
        for batches in schemas.values()
    )
    return Decoded(whole, rejects, vectors)


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Messages with their bytes and places as columns, not decoded yet.

    ``first`` and ``committable`` are the first offset of each partition and the one behind its
    last message.
    """

    messages: Sequence[Message]
    raws: list[bytes | None]
    partition: NDArray[np.int32]
    offset: NDArray[np.int64]
    first: dict[int, int]
    committable: dict[int, int]


def gather(messages: Sequence[Message]) -> Gathered:
    """Take out of the messages what decoding needs."""
    n = len(messages)
    # unbound methods through map cost half of a comprehension's calls
    kind: Any = type(messages[0]) if n else Message
    raws = list(map(kind.value, messages))
    partition = np.fromiter(map(kind.partition, messages), dtype=np.int32, count=n)
    offset = np.empty(n, dtype=np.int64)
    first: dict[int, int] = {}
    behind: dict[int, int] = {}
    # A partition's messages come in order, and mostly in long runs.
    cuts = (np.flatnonzero(np.diff(partition)) + 1).tolist() if n else []
    for begin, end in zip([0, *cuts], [*cuts, n], strict=True):
        if begin == end:
            continue
        low, high = messages[begin].offset(), messages[end - 1].offset()
        if high - low == end - 1 - begin:  # rising offsets: none is missing
            offset[begin:end] = np.arange(low, high + 1)
        else:
            run = messages[begin:end]
            offset[begin:end] = np.fromiter(map(kind.offset, run), dtype=np.int64, count=len(run))
        place = int(partition[begin])
        first.setdefault(place, low)
        behind[place] = high + 1
    return Gathered(messages, raws, partition, offset, first, behind)


class RejectedError(ValueError):
    """One message is refused."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class _Event(msgspec.Struct, gc=False):
    source: str
    timestamp: str | int | float
    metric: str | msgspec.UnsetType = msgspec.UNSET
    value: float | msgspec.UnsetType = msgspec.UNSET
    values: dict[str, float | None] | msgspec.UnsetType = msgspec.UNSET


_Row = tuple[int, int, float]  # µs, series code, value
_Vector = tuple[Schema, int, Sequence[float | None]]  # code, values in the schema's order


class Codec:
    """Decodes the messages of one stream into the codes of ``index``.

    ``mapping`` gives dotted field paths (``payload.device.id``) for ``source``, ``metric``,
    ``value``, ``values`` and ``timestamp``; a field without a path is read under its own name,
    and ``metric: =temperature`` sets a constant.
    """

    def __init__(
        self,
        index: SeriesIndex,
        mapping: Mapping[str, str] | None = None,
        naive_zone: str | None = None,
        max_series: int | None = None,
    ) -> None:
        self.index = index
        self._mapping = dict(mapping or {})
        self._zone = ZoneInfo(naive_zone) if naive_zone else None
        self._max_series = max_series
        self._full = False
        self._names = fastjson.NameTable()
        self._wide = WideTable()
        self._book = SchemaBook()
        self._metrics: set[str] = set()  # names that were found good
        self._decoder = msgspec.json.Decoder(_Event)
        self._any = msgspec.json.Decoder()

    def decode(self, messages: Sequence[Message]) -> Decoded:
        """Columns of all good events, in the order of ``messages``, and the rejects."""
        return self.parse(gather(messages))

    def parse(self, gathered: Gathered) -> Decoded:
        """The same of messages whose bytes and places are in hand; one thread at a time."""
        messages, raws = gathered.messages, gathered.raws
        partition, offset, committable = gathered.partition, gathered.offset, gathered.committable
        n = len(raws)
        filled: list[bytes] = raws if all(raws) else [raw or b"" for raw in raws]  # type: ignore[assignment]
        ends = np.cumsum(np.fromiter(map(len, filled), dtype=np.int64, count=n))
        if self._mapping:
            scanned = fastjson.nothing_known(n)
        else:
            buffer = np.frombuffer(b"".join([*filled, b"\n"]), dtype=np.uint8)
            scanned = fastjson.scan(buffer, ends, self._names, self._wide)
        status, time, code, value = scanned.status, scanned.time, scanned.code, scanned.value
        rejects: list[Reject] = []
        listed: dict[int, list[_Row]] = {}
        vectors: dict[int, _Vector] = {}
        single = status == fastjson.DONE
        todo = np.flatnonzero((status == fastjson.SLOW) | (single & (np.abs(value) > LARGEST)))
        for i in todo.tolist():
            try:
                rows, vector = self._rows(raws[i])
            except RejectedError as refusal:
                status[i] = fastjson.SLOW
                rejects.append(
                    Reject(
                        int(partition[i]),
                        int(offset[i]),
                        refusal.reason,
                        str(refusal),
                        messages[i].key(),
                        raws[i],
                    )
                )
                continue
            status[i] = fastjson.DONE
            time[i], code[i], value[i] = rows[0]
            if len(rows) > 1:
                listed[i] = rows
            if vector is not None:
                vectors[i] = vector
        columns = self._columns(scanned, listed, partition, offset)
        batch = EventBatch(
            columns[0],
            columns[1],
            columns[2].reshape(-1, 1),
            columns[3],
            columns[4],
            committable=committable,
        )
        together = self._together(scanned, vectors, partition, offset, committable)
        return Decoded(batch, rejects, together)

    def _columns(
        self,
        scanned: fastjson.Scanned,
        listed: Mapping[int, list[_Row]],
        partition: NDArray[np.int32],
        offset: NDArray[np.int64],
    ) -> Sequence[Any]:
        """Event time, series, value, partition and offset of every single value, in order."""
        status = scanned.status
        wide = status == fastjson.WIDE
        if not listed and not wide.any():
            keep = np.flatnonzero(status == fastjson.DONE)
            return [
                column[keep]
                for column in (scanned.time, scanned.code, scanned.value, partition, offset)
            ]
        count = (status == fastjson.DONE).astype(np.int64)
        count[wide] = scanned.known[wide]
        first = np.full(len(status), -1, dtype=np.int64)
        at = 0
        for i, rows in listed.items():
            count[i], first[i] = len(rows), at
            at += len(rows)
        every = [row for rows in listed.values() for row in rows]
        codes = np.array([row[1] for row in every], dtype=np.int32)
        values = np.array([row[2] for row in every], dtype=np.float64)
        return fastjson.spread(
            scanned, self._wide, count, partition, offset, (first, codes, values)
        )

    def _together(
        self,
        scanned: fastjson.Scanned,
        strict: Mapping[int, _Vector],
        partition: NDArray[np.int32],
        offset: NDArray[np.int64],
        committable: Mapping[int, int],
    ) -> tuple[EventBatch, ...]:
        """A batch of each schema, in the order in which they came."""
        if not strict and not (scanned.status == fastjson.WIDE).any():
            return ()
        schema, code = fastjson.schemas_of(scanned, self._wide)
        for i, (found, series, _) in strict.items():
            schema[i], code[i] = self._wide.schema(found.names), series
        have = np.flatnonzero(schema >= 0)
        have = have[np.argsort(schema[have], kind="stable")]
        groups = np.split(have, np.flatnonzero(np.diff(schema[have])) + 1) if len(have) else []
        out = []
        for at in sorted(groups, key=lambda group: int(group[0])):
            names = self._wide.schemas[schema[at[0]]]
            values = fastjson.together(scanned, self._wide, at, len(names))
            for row in np.flatnonzero(scanned.status[at] != fastjson.WIDE).tolist():
                values[row] = strict[int(at[row])][2]  # null becomes nan
            out.append(
                EventBatch(
                    scanned.time[at], code[at], values, partition[at], offset[at], names,
                    committable,
                )
            )  # fmt: skip
        return tuple(out)

    def _rows(self, raw: bytes | None) -> tuple[list[_Row], _Vector | None]:
        """The events of one message, by the strict decoder, and their values together.

        Raises:
            RejectedError: with the reason.
        """
        if not raw:
            raise RejectedError("empty", "the message has no value" if raw is None else "0 bytes")
        if len(raw) > MAX_BYTES:
            raise RejectedError("size", f"{len(raw)} bytes, {MAX_BYTES} are allowed")
        event = self._mapped(raw) if self._mapping else self._plain(raw)
        try:
            time = parse_one(event.timestamp, self._zone)
        except TimestampError as error:
            raise RejectedError("timestamp", str(error)) from error
        except (OverflowError, ValueError) as error:
            raise RejectedError("timestamp", f"not a time: {error}") from error
        if event.values is not msgspec.UNSET:
            if event.metric is not msgspec.UNSET or event.value is not msgspec.UNSET:
                raise RejectedError("schema", "either metric and value or values, not both")
            if not 0 < len(event.values) <= MAX_WIDE:
                raise RejectedError(
                    "schema", f"values holds {len(event.values)} fields, 1 to 1000 do"
                )
            pairs = [(name, x) for name, x in event.values.items() if x is not None]
            if not pairs:
                raise RejectedError("value", "every one of the values is null")
        else:
            if event.metric is msgspec.UNSET:
                raise RejectedError("schema", "field metric is missing")
            if event.value is msgspec.UNSET:
                raise RejectedError("schema", "field value is missing")
            pairs = [(event.metric, event.value)]
        for metric, value in pairs:
            if not math.isfinite(value) or abs(value) > LARGEST:
                raise RejectedError(
                    "value", f"{metric[:40]} is {value}: finite values up to 1e300 do"
                )
        try:
            # All names before the first code: a message that is refused leaves no series behind.
            names = (
                [metric for metric, _ in pairs] if event.values is msgspec.UNSET else event.values
            )
            for metric in names:
                check_name("metric", metric)
                if is_vector(metric):
                    raise SeriesNameError(
                        f"metric {metric[:40]!r} begins with {PREFIX!r}, which is kept for Vigil's"
                        " own series of wide events"
                    )
            self._room(event.source, pairs)
            rows = [(time, self.code(event.source, metric), float(v)) for metric, v in pairs]
            vector = self._vector(event)
            self._learn(event, vector)
            return rows, vector
        except SeriesNameError as error:
            raise RejectedError("name", str(error)) from error

    def _check_metric(self, metric: str) -> None:
        """
        Raises:
            SeriesNameError: it can't be stored, or is a label of wide events.
        """
        check_name("metric", metric)
        if is_vector(metric):
            raise SeriesNameError(
                f"metric {metric[:40]!r} begins with {PREFIX!r}, which is kept for Vigil's own"
                " series of wide events"
            )
        if len(self._metrics) >= REMEMBERED_METRICS:
            self._metrics.clear()
        self._metrics.add(metric)

    def _vector(self, event: _Event) -> _Vector | None:
        """The values of a wide event as one row, where they are judged together."""
        if event.values is msgspec.UNSET:
            return None
        schema = self._book.schema(tuple(event.values))
        if schema is None:
            return None
        if (event.source, schema.label) not in self.index.codes:
            if self._max_series is not None and len(self.index) >= self._max_series:
                self._book.no_series_left()
                return None
            if not self._book.has_room(event.source):
                return None
        code = self.code(event.source, schema.label)
        return schema, code, schema.arranged(tuple(event.values.values()))

    def _learn(self, event: _Event, vector: _Vector | None) -> None:
        """Let the scanner know a wide event's names and codes."""
        if event.values is msgspec.UNSET or self._mapping:
            return
        given = tuple(event.values)
        if vector is None and self._book.schema(given) is not None:
            return  # for want of room: it may be told otherwise another time
        codes = [self.index.codes.get((event.source, metric), -1) for metric in given]
        self._wide.learn(event.source, given, codes, -1 if vector is None else vector[1])

    def _room(self, source: str, pairs: list[tuple[str, float]]) -> None:
        """Refuse what would add series beyond the limit.

        Raises:
            RejectedError: with the reason ``limit``.
        """
        if self._max_series is None or len(self.index) + len(pairs) <= self._max_series:
            return
        new = sum((source, metric) not in self.index.codes for metric, _ in pairs)
        if new and len(self.index) + new > self._max_series:
            if not self._full:
                self._full = True
                log.error(
                    "series.limit limit=%s reason=events of further series become dead letters"
                    " (consumer.max_series)",
                    self._max_series,
                )
            raise RejectedError(
                "limit",
                f"{new} new series, and {len(self.index)} of {self._max_series} are known"
                " (consumer.max_series)",
            )

    def code(self, source: str, metric: str) -> int:
        """The series' code, also for the fast scanner from here on.

        Raises:
            SeriesNameError: the name can't be stored.
        """
        before = len(self.index)
        code = self.index.code(source, metric)
        if code == before and is_vector(metric):
            self._book.count(source)
        elif code == before:
            self._names.add(source, metric, code)
        return code

    def _plain(self, raw: bytes) -> _Event:
        try:
            return self._decoder.decode(raw)
        except msgspec.ValidationError as error:
            raise RejectedError("schema", str(error)) from error
        except msgspec.DecodeError as error:
            raise RejectedError(_json_reason(raw), str(error)) from error
        except UnicodeDecodeError as error:
            raise RejectedError("encoding", f"not UTF-8: {error}") from error
        except RecursionError as error:
            raise RejectedError("json", "nested too deeply") from error

    def _mapped(self, raw: bytes) -> _Event:
        try:
            document = self._any.decode(raw)
        except UnicodeDecodeError as error:
            raise RejectedError("encoding", f"not UTF-8: {error}") from error
        except msgspec.DecodeError as error:
            raise RejectedError(_json_reason(raw), str(error)) from error
        except RecursionError as error:
            raise RejectedError("json", "nested too deeply") from error
        found: dict[str, Any] = {}
        for name in ("source", "metric", "value", "values", "timestamp"):
            path = self._mapping.get(name, name)
            if path.startswith("="):
                found[name] = path[1:]
                continue
            node = document
            for part in path.split("."):
                if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
                    node = node[int(part)]
                elif isinstance(node, dict) and part in node:
                    node = node[part]
                else:
                    break
            else:
                found[name] = node
                continue
            if name in self._mapping:
                raise RejectedError("schema", f"path {path} for {name} leads nowhere")
        try:
            return msgspec.convert(found, _Event)
        except msgspec.ValidationError as error:
            raise RejectedError("schema", str(error)) from error


def _json_reason(raw: bytes) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return "encoding"
    return "json"
