"""Stores what a scored batch found, inside the transaction that moves the offsets.

Ids come from the event's place, rows are written whole, and a repeat meets the same rows, so a
replay changes nothing.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Collection, Sequence

import numpy as np
from django.db import connection
from numpy.typing import NDArray

from anomalies import emit
from anomalies.missing import NAMESPACE, MissingRows
from anomalies.models import Anomaly, Outbox
from anomalies.onset_rows import row_at_event
from anomalies.pending import Found, Pending, new_row, write_rows
from anomalies.results import result_of
from detection import episodes, overdue
from detection.scoring import CompiledVersion, ScoredBatch, ScoringEngine
from detection.tally import Tallier
from streams import rollups
from streams.arrays import Float8, Int4, Int8, Moments
from streams.checkpoint import Owned
from streams.clock import from_us
from streams.log_end import Look
from streams.models import Stream
from streams.producer import Record
from streams.rollups import RollupRows

_REMEMBERED_IDS = 50_000


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
        self._missing = MissingRows(stream, engine, now)
        self._version: CompiledVersion | None = None

    # -- partitions come and go ----------------------------------------------------------------

    def begin(self, owned: Owned) -> None:
        """The state of a partition is restored; what is stored of it is read where it matters."""
        self._missing.begin(owned)

    def forget(self, partition: int) -> None:
        """A partition is ours no longer, or starts afresh."""
        self._missing.forget(partition)

    def overdue(self, looks: Sequence[Look]) -> list[int]:
        """Partitions of which the wall clock may have something to tell."""
        return self._missing.due(looks)

    # -- building ------------------------------------------------------------------------------

    def build(
        self,
        parts: Sequence[ScoredBatch],
        owned: dict[int, Owned],
        *,
        flush: bool,
        replaying: Collection[int] = (),
        looks: Sequence[Look] = (),
    ) -> Pending:
        """All rows of a batch. ``flush`` writes the minutes still open, too, and ``looks`` are
        partitions to be seen by the wall clock.

        ``parts`` are the batch's events in order; state in the engine stands behind them. The
        state of ``replaying`` partitions is older than what is stored, so it is not written.
        """
        pending = Pending(replaying=tuple(replaying))
        for scored in parts:
            self._onsets_and_rises(scored, owned, pending)
            self._closings(scored, owned, pending)
            if scored.vector is None:  # a vector's values fall silent themselves
                self._missing.by_event(scored, owned, pending)
                self._version = scored.version
            self._candidates(scored, owned, pending)
            self._segments(scored, owned, pending)
            self._tallier.add(
                pending.tally, scored, {p: life.incarnation_id for p, life in owned.items()}
            )
            if self._send_events is not None:
                pending.events += emit.results(scored, self._engine.index, self._stream.name)
        for look in looks:
            self._missing.by_clock(look, owned, pending)
            self._version = look.version
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
                NAMESPACE, f"{life.topic_id}/{partition}/{offset}/{source}\x1f{metric}/episode"
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
        for i in scored.arrival(np.flatnonzero(wanted & ~scored.silent)).tolist():
            partition, code = int(events.partition[i]), int(events.series[i])
            life = owned[partition]
            anomaly = row_at_event(
                scored,
                i,
                identity=self._anomaly_id(life, partition, int(out.onset_offset[i]), code),
                stream=self._stream,
                index=self._engine.index,
                life=life,
            )
            change = "update"
            if out.change[i] == episodes.ONSET:
                change = "onset"
                pending.anomalies.append(anomaly)
                pending.found = Found(pending.found.onsets + 1, pending.found.results)
            self._announce(anomaly, int(out.sequence[i]), change, pending)

    def _announce(self, anomaly: Anomaly, sequence: int, change: str, pending: Pending) -> None:
        payload = {**result_of(anomaly), "sequence": sequence, "change": change}
        pending.outbox.append(
            new_row(
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
        order = scored.log_order(out.closed_at)
        for row, i in zip(out.closed[order], out.closed_at[order].tolist(), strict=True):
            if scored.silent[i]:
                continue
            state = np.zeros(episodes.WIDTH)
            state[episodes.EPISODE_FROM : episodes.EPISODE_TO] = row[1:]
            identity = self._update(int(row[0]), state, "closed", owned, pending)
            life = owned[int(scored.events.partition[i])]
            code = int(scored.events.series[i])
            source, metric = self._engine.index.names[code]
            pending.outbox.append(
                new_row(
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
                        # The event by which it was over: rules judge in the order of events.
                        "at": from_us(int(scored.events.event_time[i])).isoformat(),
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
            *self._heartbeats(slots),
        )

    def _heartbeats(self, slots: NDArray[np.int64]) -> tuple[Float8, Float8, Float8]:
        """Usual gap, limit of silence and delay of delivery of each slot, in seconds."""
        limit = np.full(len(slots), np.inf)
        if self._version is not None:
            limit = overdue.limits(self._engine, slots, self._version)
        usual, delay = overdue.usual_gaps(self._engine, slots), self._engine.delays.delay[slots]
        return Float8(usual / 1e6), Float8(limit / 1e6), Float8(delay / 1e6)

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
        write_rows(pending, self._stream.pk, self._now())

    @staticmethod
    def found(pending: Pending) -> Found:
        """What a stored batch has for others."""
        return pending.found


def _by_partition(partition: NDArray[np.int32], lives: dict[int, int]) -> NDArray[np.int64]:
    table = np.zeros(max(lives) + 1, dtype=np.int64)
    for number, life in lives.items():
        table[number] = life
    return table[partition]
