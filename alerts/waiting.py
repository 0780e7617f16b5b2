"""Changes of anomalies that no rule has judged yet: the outbox, read as signals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from alerts.clocks import AHEAD_S
from alerts.machine import RANKS, Signal, fits
from alerts.models import Tag
from streams.clock import to_us

MOST_ROWS = 10_000
"""Changes judged in one round; what comes after them in event time waits for the next."""
HOLD_S = 60.0
"""How long a change that lies ahead of its stream's clock waits for slower partitions."""

# The payload says how it was at that change, the anomaly how it is by now.
_WAITING = """
SELECT o.id, o.kind, o.anomaly_id::text, coalesce(t.name, 'alertmanager:' || i.source_name, ''),
       a.source, a.metric, a.anomaly_type,
       coalesce(o.payload->>'severity', ''), a.severity,
       coalesce((o.payload->>'anomaly_score')::float8, a.score), a.direction,
       (extract(epoch FROM a.onset_at) * 1e6)::int8,
       (extract(epoch FROM (o.payload->>'end_timestamp')::timestamptz) * 1e6)::int8,
       (extract(epoch FROM coalesce(o.payload->>'at', o.payload->>'timestamp',
                                    o.payload->>'end_timestamp')::timestamptz) * 1e6)::int8 AS at,
       o.created_at
  FROM anomalies_outbox o
  LEFT JOIN anomalies_anomaly a ON a.id = o.anomaly_id
  LEFT JOIN streams_stream t ON t.id = a.stream_id
  LEFT JOIN alerts_inboundalert i ON i.anomaly_id = a.id
 WHERE o.evaluated_at IS NULL
 ORDER BY at, o.id
 LIMIT %s
"""


@dataclass(slots=True)
class Waiting:
    """What one round judges.

    ``rows`` are the outbox rows to be marked as judged; ``cut_us`` is the event time up to which
    everything was read, where that was not all.
    """

    signals: list[Signal] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    held: int = 0
    cut_us: int | None = None


def read(clocks: Mapping[str, int], now: datetime, most: int = MOST_ROWS) -> Waiting:
    """Unjudged changes by event time, up to each stream's clock.

    ``clocks`` must be older than this read: a change below its clock is then sure to be seen.
    What lies ahead of its clock waits for at most ``HOLD_S`` of wall-clock time. Reports by hand
    count as of when they came: they take their stream's clock.
    """
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, [most + 1])
        rows = cursor.fetchall()
    found = Waiting()
    if len(rows) > most:
        found.cut_us = rows[most - 1][13]
    patient = now - timedelta(seconds=HOLD_S)
    latest = to_us(now) + int(AHEAD_S * 1_000_000)
    describe = _Describe([r[3:6] for r in rows[:most]])
    for row in rows[:most]:
        clock = clocks.get(row[3])
        if row[4] is None:  # the anomaly itself is gone
            found.rows.append(row[0])
            continue
        at = min(row[13], latest)
        if row[1] == "manual":
            at = to_us(now) if clock is None else clock
        elif clock is not None and at > clock and row[14] > patient:
            found.held += 1
            continue
        found.rows.append(row[0])
        found.signals += [describe(s) for s in _signals(row, at)]
    return found


def _signals(row: Sequence[Any], at: int) -> list[Signal]:
    (_, change, anomaly, stream, source, metric, kind, said, rank, score, direction, onset, end,
     _, _) = row  # fmt: skip
    signal = Signal(
        at, "onset", anomaly, stream, source, metric, kind, RANKS.get(said, rank), score,
        direction, onset_us=onset, end_us=at if end is None else max(end, onset),
    )  # fmt: skip
    if change == "manual":
        return [replace(signal, onset_us=at, end_us=at),
                replace(signal, onset_us=at, end_us=at, change="closed")]  # fmt: skip
    return [replace(signal, change=change)]


class _Describe:
    """Gives signals what is known of their series: how many their source has, and tags."""

    def __init__(self, series: Iterable[tuple[str, str, str]]) -> None:
        sources = sorted({(stream, source) for stream, source, _ in series if source is not None})
        self._siblings = siblings(sources)
        self._tags = Tags()

    def __call__(self, signal: Signal) -> Signal:
        return replace(
            signal,
            siblings=self._siblings.get((signal.stream, signal.source), 1),
            tags=self._tags.of(signal.stream, signal.source, signal.metric),
        )


def siblings(sources: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """How many series each (stream, source) has."""
    if not sources:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT t.name, s.source, count(*) FROM streams_series s"
            " JOIN streams_stream t ON t.id = s.stream_id"
            " JOIN unnest(%s::text[], %s::text[]) AS w (stream, source)"
            " ON w.stream = t.name AND w.source = s.source GROUP BY 1, 2",
            [[s for s, _ in sources], [s for _, s in sources]],
        )
        return {(stream, source): n for stream, source, n in cursor.fetchall()}


class Tags:
    """Tags of series. Where several give one key, the one that names more of the series counts."""

    def __init__(self, tags: Iterable[Tag] | None = None) -> None:
        rows = Tag.objects.all() if tags is None else tags
        self._tags = sorted(rows, key=lambda t: (_literal(t), t.value))
        self._known: dict[tuple[str, str, str], dict[str, str]] = {}

    def of(self, stream: str, source: str, metric: str) -> dict[str, str]:
        """{key: value} of one series."""
        if not self._tags:
            return {}
        key = (stream, source, metric)
        found = self._known.get(key)
        if found is None:
            found = {
                t.key: t.value
                for t in self._tags
                if fits(t.stream, stream) and fits(t.source, source) and fits(t.metric, metric)
            }
            self._known[key] = found
        return found


def _literal(tag: Tag) -> int:
    return sum(c not in "*?" for p in (tag.stream, tag.source, tag.metric) for c in p)
