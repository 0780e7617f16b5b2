"""Stores what a scored batch found, inside the transaction that moves the offsets.

Ids come from the event's place, rows are written whole, and a repeat meets the same rows, so a
replay changes nothing.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import psycopg
from django.db import connection, models
from numpy.typing import NDArray

from anomalies import emit, evidence
from anomalies.explain import sentence, vector_sentence
from anomalies.models import Anomaly, AnomalyType, Outbox
from anomalies.results import result_of
from detection import episodes, tally
from detection.ensemble import score_from_oddness
from detection.scoring import ScoredBatch, ScoringEngine, VectorDetail
from detection.tally import Tallier, Tally
from detection.thresholds import Policy
from streams import arrays, rollups
from streams.arrays import Array, Float8, Int2, Int4, Int8, Moments
from streams.checkpoint import Owned
from streams.clock import from_us
from streams.models import Stream
from streams.producer import Record
from streams.rollups import RollupRows

_NAMESPACE = uuid.UUID("6f0f4c0a-6f6b-5f0e-9a53-3b1c9a0f7d11")

_REMEMBERED_IDS = 50_000

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
    raised_threshold = NULLIF(u.raised_threshold, 0)
FROM unnest(%b::int8[], %b::timestamptz[], %b::timestamptz[], %b::float8[], %b::int4[],
    %b::int8[], %b::int8[], %b::float8[])
    AS u (id, first_at, last_at, value, partition, events, held_back, raised_threshold)
WHERE s.id = u.id
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


@dataclass(slots=True)
class Pending:
    """Rows of one batch, ready to write; building them twice gives the same."""

    replaying: tuple[int, ...] = ()
    anomalies: list[Anomaly] = field(default_factory=list)
    outbox: list[Outbox] = field(default_factory=list)
    updates: dict[uuid.UUID, tuple[Any, ...]] = field(default_factory=dict)
    candidates: list[tuple[NDArray[Any], ...]] = field(default_factory=list)
    rollups: list[RollupRows] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    series: tuple[Array, ...] | None = None
    flushed: NDArray[np.int64] | None = None
    found: Found = field(default_factory=Found)
    events: list[Record] = field(default_factory=list)  # of `emit: all`, until they are sent


class AnomalySink:
    """Turns scored batches of one stream into rows."""

    def __init__(
        self,
        stream: Stream,
        engine: ScoringEngine,
        now: Callable[[], dt.datetime],
        send_events: Callable[[list[Record]], None] | None = None,
    ) -> None:
        self._stream = stream
        self._engine = engine
        self._now = now
        self._send_events = send_events
        self._connection: object = None
        self._days = rollups.DayPartitions()
        self._tallier = Tallier(engine.index)
        self._ids: dict[tuple[str, int, int, int], uuid.UUID] = {}

    # -- building ------------------------------------------------------------------------------

    def build(
        self,
        parts: Sequence[ScoredBatch],
        owned: dict[int, Owned],
        *,
        flush: bool,
        replaying: Collection[int] = (),
    ) -> Pending:
        """All rows of a batch. ``flush`` writes the minutes still open, too.

        ``parts`` are the batch's events in order; state in the engine stands behind them. The
        state of ``replaying`` partitions is older than what is stored, so it is not written.
        """
        pending = Pending(replaying=tuple(replaying))
        for scored in parts:
            self._onsets_and_rises(scored, owned, pending)
            self._closings(scored, owned, pending)
            self._candidates(scored, owned, pending)
            self._segments(scored, owned, pending)
            self._tallier.add(
                pending.tally, scored, {p: life.incarnation_id for p, life in owned.items()}
            )
            if self._send_events is not None:
                pending.events += emit.results(scored, self._engine.index, self._stream.name)
        self._extend_open(owned, pending)
        if flush:
            self._open_minutes([p for p in owned if p not in replaying], owned, pending)
        # From here on these rows are as good as stored: if they can't be, the state goes with them.
        self._engine.forget_touched(pending.replaying)
        if pending.flushed is not None:
            self._engine.flushed(pending.flushed, episodes.ROLLUP_DIRTY)
        return pending

    def _anomaly_id(self, life: Owned, partition: int, offset: int, code: int) -> uuid.UUID:
        key = (life.topic_id, partition, offset, code)
        known = self._ids.get(key)
        if known is None:
            source, metric = self._engine.index.names[code]
            known = uuid.uuid5(
                _NAMESPACE, f"{life.topic_id}/{partition}/{offset}/{source}\x1f{metric}/episode"
            )
            if len(self._ids) >= _REMEMBERED_IDS:
                self._ids.clear()
            self._ids[key] = known
        return known

    def _onsets_and_rises(
        self, scored: ScoredBatch, owned: dict[int, Owned], pending: Pending
    ) -> None:
        out = scored.outcome
        events = scored.events
        wanted = (out.change == episodes.ONSET) | (out.change == episodes.RISE)
        for i in np.flatnonzero(wanted & ~scored.silent).tolist():
            anomaly = self._event_row(scored, i, owned[int(events.partition[i])])
            change = "onset"
            if out.change[i] == episodes.ONSET:
                anomaly.explanation = self._sentence(scored, i, anomaly)
                pending.anomalies.append(anomaly)
                pending.found = Found(pending.found.onsets + 1, pending.found.results)
            else:
                change = "update"
                anomaly.explanation = self._sentence(scored, i, anomaly)
            self._announce(anomaly, int(out.sequence[i]), change, pending)

    def _event_row(self, scored: ScoredBatch, i: int, life: Owned) -> Anomaly:
        """The anomaly as the i-th event shows it (its onset, or a rise of it)."""
        out, events, detail = scored.outcome, scored.events, scored.detail
        code = int(events.series[i])
        source, metric = self._engine.index.names[code]
        partition = int(events.partition[i])
        expected = [_maybe(x) for x in detail.expected[i].tolist()]
        value = float(events.values[i, 0])
        mid = expected[1]
        direction = 0 if mid is None else (value > mid) - (value < mid)
        features = dict(zip(scored.feature_names, detail.features[i].tolist(), strict=True))
        context = self._context(scored, i)
        if scored.vector is None:
            why = evidence.at_event(scored, i)
            kind = evidence.kind_at(why, direction, features, context)
        else:
            why, kind = _shares(scored.vector, i), AnomalyType.MULTIVARIATE
        votes = score_from_oddness(scored.votes[i]).tolist()
        policy = scored.version.policies.policies[int(scored.policy[i])]
        at = from_us(int(events.event_time[i]))
        score = float(scored.score[i])
        identity = self._anomaly_id(life, partition, int(out.onset_offset[i]), code)
        row: Anomaly = _row(
            Anomaly,
            id=identity,
            pk=identity,
            stream=self._stream,
            stream_id=self._stream.pk,
            series_id=int(self._engine.index.ids[code]),
            source=source,
            metric=metric,
            anomaly_type=kind,
            severity=int(out.severity[i]),
            onset_at=at,
            end_at=at,
            value=value,
            score=score,
            peak_value=value,
            peak_score=score,
            peak_at=at,
            direction=direction,
            expected_low=expected[0],
            expected_mid=mid,
            expected_high=expected[2],
            threshold=float(out.threshold[i]),
            policy=_policy_text(policy, float(out.threshold[i])),
            detectors={
                name: _maybe(v) for name, v in zip(scored.version.names, votes, strict=True)
            },
            features=features,
            context=context,
            evidence=why,
            models_used={
                m.algorithm: {"version": m.version, "sha256": m.sha256, "metric": m.metric}
                for m in scored.version.models
                if m.metric in ("", metric)
            },
            incarnation_id=life.incarnation_id,
            partition=partition,
            offset=int(events.offset[i]),
            last_offset=int(events.offset[i]),
            scoring_version_id=scored.version.id or None,
            late=bool(out.late[i]),
        )
        return row

    @staticmethod
    def _context(scored: ScoredBatch, i: int) -> list[list[float]]:
        """The series' last events up to its onset, oldest first, as [epoch ms, value]."""
        k = np.searchsorted(scored.outcome.context_at, i)
        if k == len(scored.outcome.context_at) or scored.outcome.context_at[k] != i:
            return []
        times, values = scored.outcome.context[k]
        return [[t / 1000.0, v] for t, v in zip(times.tolist(), values.tolist(), strict=True) if t]

    def _sentence(self, scored: ScoredBatch, i: int, anomaly: Anomaly) -> str:
        low, mid, high = anomaly.expected_low, anomaly.expected_mid, anomaly.expected_high
        expected = None if low is None or mid is None or high is None else (low, mid, high)
        if scored.vector is not None and expected is not None:
            distance = float(scored.events.values[i, 0])
            shares = anomaly.evidence.get("shares", {})
            return vector_sentence(anomaly.source, distance, expected[1], expected[2], shares)
        return sentence(
            anomaly.source,
            anomaly.metric,
            float(scored.events.values[i, 0]),
            expected,
            AnomalyType(anomaly.anomaly_type),
            anomaly.direction,
            anomaly.onset_at,
            scored.version.time_zone,
        )

    def _announce(self, anomaly: Anomaly, sequence: int, change: str, pending: Pending) -> None:
        payload = {**result_of(anomaly), "sequence": sequence, "change": change}
        pending.outbox.append(
            _row(
                Outbox,
                anomaly_id=anomaly.pk,
                sequence=sequence,
                kind=change,
                payload=payload,
                incarnation_id=anomaly.incarnation_id,
                partition=anomaly.partition,
            )
        )
        pending.found.results.append((anomaly.pk, sequence, payload))

    def _closings(self, scored: ScoredBatch, owned: dict[int, Owned], pending: Pending) -> None:
        out = scored.outcome
        for row, i in zip(out.closed, out.closed_at.tolist(), strict=True):
            if scored.silent[i]:
                continue
            state = np.zeros(episodes.WIDTH)
            state[episodes.EPISODE_FROM : episodes.EPISODE_TO] = row[1:]
            identity = self._update(int(row[0]), state, "closed", owned, pending)
            life = owned[int(scored.events.partition[i])]
            code = int(scored.events.series[i])
            source, metric = self._engine.index.names[code]
            pending.outbox.append(
                _row(
                    Outbox,
                    anomaly_id=identity,
                    sequence=int(state[episodes.SEQUENCE]),
                    kind=Outbox.Kind.CLOSED,
                    payload={
                        "id": str(identity),
                        "source": source,
                        "metric": metric,
                        "stream": self._stream.name,
                        "state": "closed",
                        "change": "closed",
                        "sequence": int(state[episodes.SEQUENCE]),
                        "end_timestamp": from_us(int(state[episodes.END_TIME])).isoformat(),
                        "count": int(state[episodes.COUNT]),
                    },
                    incarnation_id=life.incarnation_id,
                    partition=life.partition,
                    # Onsets and rises go to the topic; an end is for the rules only.
                    published_at=self._now(),
                )
            )

    def _extend_open(self, owned: dict[int, Owned], pending: Pending) -> None:
        slots = self._engine.touched_episodes(pending.replaying)
        for slot, state in zip(slots.tolist(), self._engine.episode_rows(slots), strict=True):
            if state[episodes.OPEN] == 1.0:
                self._update(slot, state, "open", owned, pending)

    def _update(
        self,
        slot: int,
        state: NDArray[np.float64],
        name: str,
        owned: dict[int, Owned],
        pending: Pending,
    ) -> uuid.UUID:
        partition = int(self._engine.slot_partition[slot])
        identity = self._anomaly_id(
            owned[partition],
            partition,
            int(state[episodes.ONSET_OFFSET]),
            int(self._engine.slot_code[slot]),
        )
        pending.updates[identity] = (
            name,
            int(state[episodes.SEVERITY]),
            int(state[episodes.END_TIME]),
            int(state[episodes.END_OFFSET]),
            int(state[episodes.COUNT]),
            float(state[episodes.PEAK_SCORE]),
            float(state[episodes.PEAK_VALUE]),
            int(state[episodes.PEAK_TIME]),
        )
        return identity

    def _candidates(self, scored: ScoredBatch, owned: dict[int, Owned], pending: Pending) -> None:
        out, events = scored.outcome, scored.events
        at = episodes.wanted_levels(out.levels)
        at = at[~scored.silent[at]]
        if not len(at):
            return
        value = np.ascontiguousarray(events.values[at, 0])
        mid = np.ascontiguousarray(scored.detail.expected[at, 1])
        deviation = value - mid
        lives = {p: life.incarnation_id for p, life in owned.items()}
        pending.candidates.append(
            (
                self._engine.index.ids[events.series[at]],
                _by_partition(events.partition[at], lives),
                events.partition[at],
                events.offset[at],
                events.event_time[at],
                value,
                scored.score[at],
                np.sign(np.nan_to_num(deviation)),
                deviation,
                mid,
                out.levels[at],
            )
        )

    def _segments(self, scored: ScoredBatch, owned: dict[int, Owned], pending: Pending) -> None:
        out = scored.outcome
        loud = ~scored.silent[out.segments_at]
        rows = out.segments[loud]
        if len(rows):
            pending.rollups.append(
                self._rollup_rows(rows[:, 0].astype(np.int64), rows[:, 1:], owned)
            )

    def _open_minutes(
        self, partitions: list[int], owned: dict[int, Owned], pending: Pending
    ) -> None:
        slots = self._engine.dirty(partitions, episodes.ROLLUP_DIRTY)
        if not len(slots):
            return
        rows = self._engine.episode_rows(slots)
        segment = rows[:, episodes.SEGMENT_FROM : episodes.SEGMENT_TO]
        pending.rollups.append(self._rollup_rows(slots, segment, owned))
        pending.flushed = slots

        pending.series = (
            Int8(self._engine.index.ids[self._engine.slot_code[slots]]),
            Moments(rows[:, episodes.FIRST_TIME].astype(np.int64)),
            Moments(rows[:, episodes.WATERMARK].astype(np.int64)),
            Float8(rows[:, episodes.R_LAST]),
            Int4(self._engine.slot_partition[slots]),
            Int8(rows[:, episodes.EVENTS]),
            Int8(rows[:, episodes.HELD]),
            Float8(rows[:, episodes.QUIET_NOW]),
        )

    def _rollup_rows(
        self, slots: NDArray[np.int64], rows: NDArray[np.float64], owned: dict[int, Owned]
    ) -> RollupRows:
        partition = self._engine.slot_partition[slots]
        lives = {p: life.incarnation_id for p, life in owned.items()}

        def column(index: int) -> NDArray[np.float64]:
            return np.ascontiguousarray(rows[:, index - episodes.SEGMENT_FROM])

        def counts(first: int) -> NDArray[np.int32]:
            start = first - episodes.SEGMENT_FROM
            return rows[:, start : start + 20].astype(np.int32)

        count = column(episodes.R_COUNT)
        return RollupRows(
            series_id=self._engine.index.ids[self._engine.slot_code[slots]],
            minute_us=column(episodes.MINUTE).astype(np.int64) * 60_000_000,
            incarnation_id=_by_partition(partition, lives),
            partition=partition,
            first_offset=column(episodes.FIRST_OFFSET).astype(np.int64),
            count=count.astype(np.int32),
            scored=column(episodes.R_SCORED).astype(np.int32),
            min=column(episodes.R_MIN),
            max=column(episodes.R_MAX),
            mean=column(episodes.R_SUM) / count,
            last=column(episodes.R_LAST),
            max_score=column(episodes.R_MAX_SCORE),
            low=column(episodes.R_LOW),
            mid=column(episodes.R_MID),
            high=column(episodes.R_HIGH),
            score_counts=counts(episodes.R_SCORES),
            onset_counts=counts(episodes.R_ONSETS),
        )

    # -- writing -------------------------------------------------------------------------------

    def prepare(self, pending: Pending) -> None:
        """Outside the transaction: events for the topic, the connection and day partitions.

        Raises:
            DeliveryError: the broker did not take the events.
        """
        if self._send_events is not None and pending.events:
            self._send_events(pending.events)
            pending.events = []
        connection.ensure_connection()
        raw = connection.connection
        # psycopg's own cursors raise psycopg's errors: the runner waits out Django's.
        with connection.wrap_database_errors:
            if raw is not self._connection:
                # A crash of the server may undo the last commits, always offsets and rows
                # together, and only the latest: they are scored once more to the same rows.
                raw.execute("SET synchronous_commit TO off")
                self._connection = raw
            for rows in pending.rollups:
                self._days.ensure(raw, rows.minute_us, self._now())

    def write(self, pending: Pending) -> None:
        """Inside the transaction: everything of the batch."""
        now = self._now()
        with arrays.cursor() as cursor:
            if pending.anomalies:
                _insert(cursor, _INSERT_ANOMALIES, Anomaly, pending.anomalies, now)
            if pending.updates:
                ids = sorted(pending.updates)
                cells = [list(c) for c in zip(*(pending.updates[i] for i in ids), strict=True)]
                cursor.execute(_UPDATE_EPISODES, [ids, *cells])
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
            tally.write(cursor, self._stream.pk, pending.tally)

    @staticmethod
    def found(pending: Pending) -> Found:
        """What a stored batch has for others."""
        return pending.found


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


def _row(model: type[models.Model], **values: Any) -> Any:
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


def _policy_text(policy: Policy, threshold: float) -> str:
    """Name, version, and why the threshold in effect is not the policy's own."""
    text = f"{policy.name} v{policy.version}" if policy.version else policy.name
    if threshold > policy.threshold:
        text += f", raised from {policy.threshold:g}: {policy.max_onsets_per_day:g} a day"
    return text[:140]


def _shares(vector: VectorDetail, i: int) -> dict[str, Any]:
    """{"shares": {value: its part in the squared distance}} of the i-th event, if it is known."""
    parts = zip(vector.columns, vector.share[i].tolist(), strict=True)
    shares = {name: share for name, share in parts if share == share}
    return {"shares": shares} if shares else {}


def _maybe(x: float) -> float | None:
    return None if x != x else x


def _by_partition(partition: NDArray[np.int32], lives: dict[int, int]) -> NDArray[np.int64]:
    table = np.zeros(max(lives) + 1, dtype=np.int64)
    for number, life in lives.items():
        table[number] = life
    return table[partition]


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
