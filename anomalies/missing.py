"""Series that fall silent, as anomalies: told by the next event, or by the wall clock before it.

Both ways write the same rows. An anomaly's id names the last event before the silence, its moments
are computed from that event, and which ones are open is read when a partition begins.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from django.db import connection
from numpy.typing import NDArray

from anomalies.explain import CAME_LATE, NOT_WATCHED, silence_sentence
from anomalies.models import Anomaly, AnomalyType, Outbox
from anomalies.pending import Found, Pending, SilenceUpdate, new_row
from anomalies.results import result_of
from detection import heartbeat, overdue
from detection.scoring import CompiledVersion, ScoredBatch, ScoringEngine
from detection.silence import Stage, score_at
from streams import arrays
from streams.arrays import Int8, Moments
from streams.checkpoint import Owned
from streams.clock import from_us, to_us
from streams.log_end import Look
from streams.models import Series, Stream

NAMESPACE = uuid.UUID("6f0f4c0a-6f6b-5f0e-9a53-3b1c9a0f7d11")

_SEEN_SINCE = """
SELECT u.id FROM unnest(%b::int8[], %b::timestamptz[]) AS u (id, since)
  JOIN streams_series s ON s.id = u.id
 WHERE s.last_event_at > u.since
"""
_OPEN = """
SELECT a.id, a.series_id, a.last_offset, a.evidence->'silence'->>'since', a.severity,
       (SELECT count(*) FROM anomalies_outbox o WHERE o.anomaly_id = a.id)
  FROM anomalies_anomaly a
 WHERE a.kind = 'missing' AND a.state = 'open' AND a.incarnation_id = %s AND a.partition = %s
 ORDER BY a.id
"""


@dataclass(frozen=True, slots=True)
class _Open:
    """A silence that was told and has not ended; ``told`` counts its changes."""

    identity: uuid.UUID
    since_us: int
    offset: int
    severity: int
    told: int

    def heard(self, reached: tuple[Stage, ...]) -> int:
        """How many of these stages were told: the outbox may have been cleared since."""
        return max(self.told, sum(s.severity <= self.severity for s in reached))


@dataclass(frozen=True, slots=True)
class _Silence:
    """One silence of one series, with the stages it has reached; times in µs."""

    slot: int
    since_us: int
    offset: int
    usual_us: float
    limit_us: float
    policy: int
    version: CompiledVersion
    reached: tuple[Stage, ...] = ()
    ended_us: int | None = None

    def at(self, stage: Stage) -> int:
        """When a stage begins, in event time."""
        return self.since_us + round(self.limit_us * stage.factor)

    def until(self, moment_us: float) -> _Silence:
        """With the stages that begin up to a moment."""
        silence = self.version.silence
        known = () if silence is None else silence.stages[self.policy]
        return replace(self, reached=tuple(s for s in known if self.at(s) <= moment_us))


@dataclass(slots=True)
class MissingRows:
    """The silences of one stream's series."""

    stream: Stream
    engine: ScoringEngine
    now: Callable[[], dt.datetime]
    _open: dict[int, _Open] = field(default_factory=dict)  # by slot
    _elsewhere: set[int] = field(default_factory=set)  # slots whose series another partition has

    def begin(self, owned: Owned) -> None:
        """The state of a partition is restored: read what is open, and usual delays."""
        engine, partition = self.engine, owned.partition
        code_of = dict(zip(engine.index.ids.tolist(), range(len(engine.index)), strict=True))
        with connection.cursor() as cursor:
            cursor.execute(_OPEN, [owned.incarnation_id, partition])
            rows = [r for r in cursor.fetchall() if r[1] in code_of]
        codes = np.array([code_of[r[1]] for r in rows], dtype=np.int32)
        for slot, (identity, _, offset, since, severity, told) in zip(
            engine.slots_at(partition, codes).tolist(), rows, strict=True
        ):
            self._open[slot] = _Open(identity, int(since), offset, severity, told)
        slots = engine.slots_of(partition)
        slot_of = dict(zip(engine.index.ids[engine.slot_code[slots]].tolist(), slots, strict=True))
        delays = Series.objects.filter(stream=self.stream, delivery_delay_s__isnull=False)
        if len(slots):
            for pk, delay_s in delays.values_list("pk", "delivery_delay_s").iterator():
                if pk in slot_of and delay_s is not None:
                    engine.delays.delay[slot_of[pk]] = 1e6 * delay_s
                    engine.delays.arrived[slot_of[pk]] = to_us(self.now())

    def forget(self, partition: int) -> None:
        """The partition is ours no longer."""
        of = self.engine.slot_partition
        self._open = {slot: one for slot, one in self._open.items() if of[slot] != partition}
        self._elsewhere = {slot for slot in self._elsewhere if of[slot] != partition}

    def due(self, looks: Sequence[Look]) -> list[int]:
        """Partitions of which the wall clock may have something to tell."""
        found = []
        for look in looks:
            late = overdue.overdue(
                self.engine, look.partition, look.version, look.at_us, look.quiet_us
            )
            self._look_elsewhere(late.slot)
            if any(s not in self._elsewhere for s in late.slot.tolist()) or self._unwatched(look):
                found.append(look.partition)
        return found

    def by_event(self, scored: ScoredBatch, owned: dict[int, Owned], pending: Pending) -> None:
        """What the events of a batch say: silences that they ended."""
        gaps, events = scored.gaps, scored.events
        for i in scored.arrival(gaps.at).tolist():
            if scored.silent[i]:
                continue
            k = int(np.searchsorted(gaps.at, i))
            ended = int(events.event_time[i])
            one = _Silence(
                slot=int(scored.slot[i]),
                since_us=int(gaps.since[k]),
                offset=int(gaps.offset[k]),
                usual_us=float(gaps.usual[k]),
                limit_us=float(gaps.limit[k]),
                policy=int(scored.policy[i]),
                version=scored.version,
                ended_us=ended,
            ).until(ended)
            if one.reached:
                known = self._open.get(one.slot)
                if known is not None and known.offset == one.offset:
                    del self._open[one.slot]
                    self.engine.next_stage_us[one.slot] = 0.0
                else:
                    known = None
                self._tell(one, known, owned[int(events.partition[i])], pending)
        for slot, known, at_us in self._back(scored):
            del self._open[slot]
            self._end(slot, known, known.since_us, at_us, CAME_LATE, owned, pending)

    def by_clock(self, look: Look, owned: dict[int, Owned], pending: Pending) -> None:
        """What the wall clock says of a partition: silences that go on."""
        engine, life = self.engine, owned[look.partition]
        for slot in self._unwatched(look):
            self._end(
                slot, self._open.pop(slot), look.at_us, look.at_us, NOT_WATCHED, owned, pending
            )
        late = overdue.overdue(engine, look.partition, look.version, look.at_us, look.quiet_us)
        rows = engine.heartbeats(late.slot)
        limit = overdue.limits(engine, late.slot, look.version)
        policy = look.version.policies.index(engine.index.names)[engine.slot_code[late.slot]]
        for k, slot in enumerate(late.slot.tolist()):
            if slot in self._elsewhere:
                continue
            since = int(rows[k, heartbeat.LAST_TIME])
            one = _Silence(
                slot=slot,
                since_us=since,
                offset=int(rows[k, heartbeat.LAST_OFFSET]),
                usual_us=float(rows[k, heartbeat.USUAL]),
                limit_us=float(limit[k]),
                policy=int(policy[k]),
                version=look.version,
            ).until(since + late.lasted_us[k])
            known = self._open.get(slot)
            if one.reached and (known is None or known.heard(one.reached) < len(one.reached)):
                identity = self._tell(one, known, life, pending)
                self._open[slot] = _Open(
                    identity, since, one.offset, one.reached[-1].severity, len(one.reached)
                )
            self._wait(one)

    # -- private -----------------------------------------------------------------------------

    def _wait(self, one: _Silence) -> None:
        """Look again when the next stage begins."""
        known = () if one.version.silence is None else one.version.silence.stages[one.policy]
        ahead = known[len(one.reached) :]
        at = one.limit_us * ahead[0].factor if ahead else np.inf
        self.engine.next_stage_us[one.slot] = at

    def _look_elsewhere(self, slots: NDArray[np.int64]) -> None:
        """Note which series have an event since in another partition, whoever reads that one."""
        fresh = [s for s in slots.tolist() if s not in self._open]
        self._elsewhere.difference_update(fresh)
        if not fresh:
            return
        at = np.array(fresh, dtype=np.int64)
        ids = self.engine.index.ids[self.engine.slot_code[at]]
        since = self.engine.heartbeats(at)[:, heartbeat.LAST_TIME].astype(np.int64)
        with arrays.cursor() as cursor:
            cursor.execute(_SEEN_SINCE, [Int8(ids), Moments(since)])
            seen = {row[0] for row in cursor.fetchall()}
        self._elsewhere.update(s for s, pk in zip(fresh, ids.tolist(), strict=True) if pk in seen)

    def _unwatched(self, look: Look) -> list[int]:
        """Slots of a partition with an open silence that no limit speaks of any more."""
        of = self.engine.slot_partition
        mine = np.array([s for s in self._open if of[s] == look.partition], dtype=np.int64)
        limits = overdue.limits(self.engine, mine, look.version)
        return [int(s) for s in mine[np.isinf(limits)]]

    def _back(self, scored: ScoredBatch) -> list[tuple[int, _Open, int]]:
        """Open silences that an event ended without being beyond the limit: it came late."""
        if not self._open:
            return []
        slots = np.array(sorted(self._open), dtype=np.int64)
        moved = slots[
            self.engine.heartbeats(slots)[:, heartbeat.LAST_OFFSET]
            > np.array([self._open[s].offset for s in slots.tolist()])
        ]
        if not len(moved):
            return []
        events = scored.events
        at = np.flatnonzero(np.isin(scored.slot, moved) & ~scored.silent)
        known = [self._open[s] for s in moved.tolist()]
        place = np.searchsorted(moved, scored.slot[at])
        later = events.event_time[at] > np.array([o.since_us for o in known])[place]
        later &= events.offset[at] > np.array([o.offset for o in known])[place]
        at, place = at[later], place[later]
        _, first = np.unique(place, return_index=True)
        return [
            (int(moved[place[j]]), known[place[j]], int(events.event_time[at[j]]))
            for j in first.tolist()
        ]

    def _tell(self, one: _Silence, known: _Open | None, life: Owned, pending: Pending) -> uuid.UUID:
        """The rows of a silence as far as it has come, and changes that were not told yet."""
        told = 0 if known is None else known.heard(one.reached)
        rows = [self._row(one, stage, life) for stage in one.reached]
        if known is None:
            whole = replace_row(rows[0], self._state(one))
            pending.anomalies.append(whole)
            pending.found = Found(pending.found.onsets + 1, pending.found.results)
        else:
            state = self._state(one)
            pending.silences[rows[0].pk] = SilenceUpdate(**state)
        for number, row in enumerate(rows):
            if number >= told:
                self._announce(row, number, "update" if number else "onset", life, pending)
        if one.ended_us is not None:
            self._close(rows[0].pk, one.slot, max(told, len(rows)), one.ended_us, one.ended_us,
                        life, pending)  # fmt: skip
        identity: uuid.UUID = rows[0].pk
        return identity

    def _state(self, one: _Silence) -> dict[str, Any]:
        """What changes of a row while its silence lasts."""
        end = one.at(one.reached[-1]) if one.ended_us is None else one.ended_us
        score = one.reached[-1].score
        if one.ended_us is not None:
            factor = (end - one.since_us) / one.limit_us
            score = score_at(factor, one.version.policies.rows[one.policy])
        return {
            "state": "open" if one.ended_us is None else "closed",
            "severity": one.reached[-1].severity,
            "end_us": end,
            "peak_score": score,
            "explanation": self._sentence(one, end),
        }

    def _sentence(self, one: _Silence, at_us: int) -> str:
        source, metric = self.engine.index.names[int(self.engine.slot_code[one.slot])]
        lasted_s = (at_us - one.since_us) / 1e6
        return silence_sentence(source, metric, lasted_s, one.usual_us / 1e6, one.limit_us / 1e6)

    def _row(self, one: _Silence, stage: Stage, life: Owned) -> Any:
        """The anomaly as it is when a stage begins."""
        index, code = self.engine.index, int(self.engine.slot_code[one.slot])
        source, metric = index.names[code]
        policy = one.version.policies.policies[one.policy]
        identity = uuid.uuid5(
            NAMESPACE,
            f"{life.topic_id}/{life.partition}/{one.offset}/{source}\x1f{metric}/missing",
        )
        at = from_us(one.at(stage))
        return new_row(
            Anomaly,
            id=identity,
            pk=identity,
            stream=self.stream,
            stream_id=self.stream.pk,
            series_id=int(index.ids[code]),
            source=source,
            metric=metric,
            kind="missing",
            anomaly_type=AnomalyType.MISSING,
            severity=stage.severity,
            onset_at=at,
            end_at=at,
            count=0,
            score=stage.score,
            peak_score=stage.score,
            peak_at=at,
            threshold=policy.threshold,
            policy=(f"{policy.name} v{policy.version}" if policy.version else policy.name)[:140],
            explanation=self._sentence(one, one.at(stage)),
            evidence={
                "silence": {
                    "since": one.since_us,
                    "usual_s": one.usual_us / 1e6,
                    "limit_s": one.limit_us / 1e6,
                    "learnt": policy.silence_after_s < 0,
                }
            },
            incarnation_id=life.incarnation_id,
            partition=life.partition,
            offset=one.offset,
            last_offset=one.offset,
            scoring_version_id=one.version.id or None,
        )

    def _announce(
        self, row: Any, sequence: int, change: str, life: Owned, pending: Pending
    ) -> None:
        payload = {**result_of(row), "sequence": sequence, "change": change}
        pending.outbox.append(
            new_row(
                Outbox,
                anomaly_id=row.pk,
                sequence=sequence,
                kind=change,
                payload=payload,
                incarnation_id=life.incarnation_id,
                partition=life.partition,
            )
        )
        pending.found.results.append((row.pk, sequence, payload))

    def _end(
        self,
        slot: int,
        known: _Open,
        end_us: int,
        at_us: int,
        why: str,
        owned: dict[int, Owned],
        pending: Pending,
    ) -> None:
        """An open silence ends otherwise than by what came after it."""
        self.engine.next_stage_us[slot] = 0.0
        pending.silences[known.identity] = SilenceUpdate("closed", 0, end_us, 0.0, why, add=True)
        life = owned[int(self.engine.slot_partition[slot])]
        self._close(known.identity, slot, known.told, end_us, at_us, life, pending)

    def _close(
        self,
        identity: uuid.UUID,
        slot: int,
        sequence: int,
        end_us: int,
        at_us: int,
        life: Owned,
        pending: Pending,
    ) -> None:
        source, metric = self.engine.index.names[int(self.engine.slot_code[slot])]
        pending.outbox.append(
            new_row(
                Outbox,
                anomaly_id=identity,
                sequence=sequence,
                kind=Outbox.Kind.CLOSED,
                payload={
                    "id": str(identity),
                    "source": source,
                    "metric": metric,
                    "stream": self.stream.name,
                    "state": "closed",
                    "change": "closed",
                    "sequence": sequence,
                    "at": from_us(at_us).isoformat(),
                    "end_timestamp": from_us(end_us).isoformat(),
                    "count": 0,
                },
                incarnation_id=life.incarnation_id,
                partition=life.partition,
                # Onsets and rises go to the topic; an end is for the rules only.
                published_at=self.now(),
            )
        )


def replace_row(row: Any, state: dict[str, Any]) -> Any:
    """The row of an onset with what has become of it by now."""
    end = from_us(state["end_us"])
    values = {k: v for k, v in state.items() if k != "end_us"}
    return new_row(Anomaly, **{**vars(row), **values, "end_at": end, "peak_at": end})


def lasted_s(anomaly: Anomaly, now: dt.datetime) -> float:
    """How long a silence has lasted: up to its end, or up to now."""
    return (to_us(over_at(anomaly, now)) - since_us(anomaly)) / 1e6


def over_at(anomaly: Anomaly, now: dt.datetime) -> dt.datetime:
    """The end of an anomaly; of a silence that goes on it is now."""
    goes_on = anomaly.kind == "missing" and anomaly.state == Anomaly.State.OPEN
    return now if goes_on else anomaly.end_at


def course(anomaly: Anomaly, around: dict[str, Any]) -> str:
    """What goes with the first sentence: since when, whether it is over, and who is silent too."""
    since = from_us(since_us(anomaly))
    said = f"The last one came at {since:%H:%M:%S} on {since:%d %b %Y} (UTC)"
    if anomaly.state == Anomaly.State.CLOSED:
        said += f", and the next at {anomaly.end_at:%H:%M:%S}: it is back."
    else:
        said += "; none has come since."
    groups = around.get("silent") or {}
    words = {"source": f"other series of {anomaly.source}",
             "metric": f"other series of {anomaly.metric}"}  # fmt: skip
    alike = [f"{g['silent']} of {g['known']} {words[name]}" for name, g in groups.items()
             if g["silent"]]  # fmt: skip
    if alike:
        said += f" Silent at that time as well: {' and '.join(alike)}."
    elif groups:
        said += " No other series of its source or metric was silent then."
    return said


def since_us(anomaly: Anomaly) -> int:
    """The event time of the last event before the silence that an anomaly is."""
    told = (anomaly.evidence or {}).get("silence") or {}
    return int(told.get("since") or to_us(anomaly.onset_at))
