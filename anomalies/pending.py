"""The rows of one batch, and the statements that write them: whole, so a repeat changes nothing."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import psycopg
from django.db import models
from numpy.typing import NDArray

from anomalies.models import Anomaly, Outbox
from detection import tally
from detection.tally import Tally
from streams import arrays, rollups
from streams.arrays import Array, Float8, Int2, Int4, Int8, Moments
from streams.producer import Record
from streams.rollups import RollupRows

_INSERT_CANDIDATES = """
INSERT INTO anomalies_candidate (series_id, incarnation_id, partition, "offset", event_at, value,
    score, direction, deviation, expected_mid, levels)
SELECT series_id, incarnation_id, partition, place, event_at, value, score, direction,
    NULLIF(deviation, 'NaN'), NULLIF(expected_mid, 'NaN'), levels
FROM unnest(%b::int8[], %b::int8[], %b::int4[], %b::int8[], %b::timestamptz[], %b::float8[],
    %b::float8[], %b::int2[], %b::float8[], %b::float8[], %b::int4[])
    AS row (series_id, incarnation_id, partition, place, event_at, value, score, direction,
    deviation, expected_mid, levels)
ORDER BY incarnation_id, partition, place, series_id
ON CONFLICT (incarnation_id, partition, "offset", series_id) DO NOTHING
"""

_CANDIDATE_TYPES = (Int8, Int8, Int4, Int8, Moments, Float8, Float8, Int2, Float8, Float8, Int4)

_UPDATE_EPISODES = """
UPDATE anomalies_anomaly AS a SET
    state = u.state, severity = u.severity, last_offset = u.last_offset,
    end_at = timestamptz 'epoch' + u.end_us * interval '1 microsecond',
    count = u.count, peak_score = u.peak_score, peak_value = u.peak_value,
    peak_at = timestamptz 'epoch' + u.peak_us * interval '1 microsecond',
    updated_at = now()
FROM unnest(%s::uuid[], %s::text[], %s::smallint[], %s::bigint[], %s::bigint[], %s::int[],
    %s::float8[], %s::float8[], %s::bigint[])
    AS u (id, state, severity, end_us, last_offset, count, peak_score, peak_value, peak_us)
WHERE a.id = u.id
"""

_UPDATE_SERIES = """
UPDATE streams_series AS s SET
    first_event_at = LEAST(s.first_event_at, u.first_at),
    last_value = CASE WHEN s.last_event_at IS NULL OR u.last_at >= s.last_event_at
                 THEN u.value ELSE s.last_value END,
    last_event_at = GREATEST(s.last_event_at, u.last_at),
    other_partition = CASE WHEN s.last_partition IS DISTINCT FROM u.partition
                      THEN s.last_partition ELSE s.other_partition END,
    last_partition = u.partition,
    events = CASE WHEN s.last_partition IS NULL OR s.last_partition = u.partition
             THEN u.events ELSE GREATEST(s.events, u.events) END,
    held_back = CASE WHEN s.last_partition IS NULL OR s.last_partition = u.partition
                THEN u.held_back ELSE GREATEST(s.held_back, u.held_back) END,
    raised_threshold = NULLIF(u.raised_threshold, 0),
    usual_gap_s = NULLIF(u.usual_gap_s, 0), silence_after_s = NULLIF(u.silence_s, 'Infinity'),
    delivery_delay_s = COALESCE(NULLIF(u.delay_s, 'NaN'), s.delivery_delay_s)
FROM unnest(%b::int8[], %b::timestamptz[], %b::timestamptz[], %b::float8[], %b::int4[],
    %b::int8[], %b::int8[], %b::float8[], %b::float8[], %b::float8[], %b::float8[])
    AS u (id, first_at, last_at, value, partition, events, held_back, raised_threshold,
    usual_gap_s, silence_s, delay_s)
WHERE s.id = u.id
"""

_UPDATE_SILENCES = """
UPDATE anomalies_anomaly AS a SET
    state = u.state, severity = GREATEST(a.severity, u.severity),
    end_at = GREATEST(a.onset_at, timestamptz 'epoch' + u.end_us * interval '1 microsecond'),
    peak_at = GREATEST(a.onset_at, timestamptz 'epoch' + u.end_us * interval '1 microsecond'),
    peak_score = GREATEST(a.peak_score, u.peak_score),
    explanation = CASE WHEN u.add THEN a.explanation || ' ' || u.explanation ELSE u.explanation END,
    updated_at = now()
FROM unnest(%s::uuid[], %s::text[], %s::smallint[], %s::bigint[], %s::float8[], %s::text[],
    %s::bool[]) AS u (id, state, severity, end_us, peak_score, explanation, add)
WHERE a.id = u.id
"""

# One JSON document for all rows: PostgreSQL builds them itself, several times faster than
# hundreds of thousands of bound parameters. Numbers keep their shortest decimal form, so every
# double comes back as it was.
_INSERT_ANOMALIES = """
INSERT INTO anomalies_anomaly ({columns})
SELECT {columns} FROM jsonb_populate_recordset(NULL::anomalies_anomaly, %s)
ORDER BY id
ON CONFLICT (id) DO NOTHING
"""

_INSERT_OUTBOX = """
INSERT INTO anomalies_outbox ({columns})
SELECT {columns} FROM jsonb_populate_recordset(NULL::anomalies_outbox, %s)
ON CONFLICT (anomaly_id, sequence) DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What one stored batch has for others: results by (anomaly id, sequence), and the counts."""

    onsets: int = 0
    results: list[tuple[uuid.UUID, int, dict[str, Any]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SilenceUpdate:
    """What becomes of a silence that is stored already; with ``add`` its sentence goes on."""

    state: str
    severity: int
    end_us: int
    peak_score: float
    explanation: str
    add: bool = False


@dataclass(slots=True)
class Pending:
    """Rows of one batch, ready to write; building them twice gives the same."""

    replaying: tuple[int, ...] = ()
    anomalies: list[Anomaly] = field(default_factory=list)
    outbox: list[Outbox] = field(default_factory=list)
    updates: dict[uuid.UUID, tuple[Any, ...]] = field(default_factory=dict)
    silences: dict[uuid.UUID, SilenceUpdate] = field(default_factory=dict)
    candidates: list[tuple[NDArray[Any], ...]] = field(default_factory=list)
    rollups: list[RollupRows] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    series: tuple[Array, ...] | None = None
    flushed: NDArray[np.int64] | None = None
    found: Found = field(default_factory=Found)
    events: list[Record] = field(default_factory=list)  # of `emit: all`, until they are sent


def write_rows(pending: Pending, stream: int, now: dt.datetime) -> None:
    """Everything of a batch of this stream, inside the caller's transaction."""
    with arrays.cursor() as cursor:
        if pending.anomalies:
            _insert(cursor, _INSERT_ANOMALIES, Anomaly, pending.anomalies, now)
        if pending.updates:
            ids = sorted(pending.updates)
            cells = [list(c) for c in zip(*(pending.updates[i] for i in ids), strict=True)]
            cursor.execute(_UPDATE_EPISODES, [ids, *cells])
        if pending.silences:
            ids = sorted(pending.silences)
            told = [astuple(pending.silences[i]) for i in ids]
            cursor.execute(_UPDATE_SILENCES, [ids, *map(list, zip(*told, strict=True))])
        if pending.outbox:
            _insert(cursor, _INSERT_OUTBOX, Outbox, pending.outbox, now)
        if pending.candidates:
            parts = zip(*pending.candidates, strict=True)
            columns = zip(_CANDIDATE_TYPES, map(np.concatenate, parts), strict=True)
            cursor.execute(_INSERT_CANDIDATES, [kind(column) for kind, column in columns])
        if pending.rollups:
            rollups.write(cursor, _joined(pending.rollups))
        if pending.series is not None:
            cursor.execute(_UPDATE_SERIES, pending.series)
        tally.write(cursor, stream, pending.tally)


@cache
def _fields(model: type[models.Model]) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, Any]]:
    """Columns that we write, those of them that hold the time of writing, and their defaults."""
    fields = [f for f in model._meta.concrete_fields if not isinstance(f, models.AutoField)]
    stamps = [
        str(f.column)
        for f in fields
        if getattr(f, "auto_now", False) or getattr(f, "auto_now_add", False)
    ]
    blank = model()
    defaults = {f.attname: getattr(blank, f.attname) for f in fields}
    return tuple(str(f.column) for f in fields), tuple(stamps), defaults


def new_row(model: type[models.Model], **values: Any) -> Any:
    """A row with the model's attributes and defaults, without the cost of a model instance."""
    return SimpleNamespace(**{**_fields(model)[2], **values})


def _insert(
    cursor: psycopg.Cursor[Any],
    statement: str,
    model: type[models.Model],
    rows: Sequence[Any],
    now: dt.datetime,
) -> None:
    """Insert rows as they are; an id that counts up is left to the database."""
    columns, stamps, _ = _fields(model)
    written = dict.fromkeys(stamps, now)
    documents = [{name: row.__dict__[name] for name in columns} | written for row in rows]
    text = msgspec.json.encode(documents).decode()
    names = ", ".join(f'"{name}"' for name in columns)
    cursor.execute(statement.format(columns=names).encode(), [text])


def _joined(parts: list[RollupRows]) -> RollupRows:
    """One set of rows; of a key that occurs twice the later, fuller row stays."""
    if len(parts) == 1:
        return parts[0]
    names = RollupRows.__slots__
    joined = {name: np.concatenate([getattr(p, name) for p in parts]) for name in names}
    key = np.stack(
        [joined[name] for name in ("series_id", "minute_us", "partition", "first_offset")], axis=1
    )
    last = len(key) - 1 - np.unique(key[::-1], axis=0, return_index=True)[1]
    if len(last) == len(key):
        return RollupRows(**joined)
    return RollupRows(**{name: column[last] for name, column in joined.items()})
