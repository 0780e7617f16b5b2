"""Signals of the past, read in columns from what is stored: for previews and budgets.

The outbox says when an anomaly was found, grew worse and ended. Where its rows were dropped by
retention, the anomaly itself stands in: found with the severity that it reached in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection

from alerts.machine import Signal
from anomalies.models import Severity
from detection.thresholds import LEVELS
from streams.clock import to_us

MOST_SIGNALS = 400_000
_RANKS = {str(level.label): int(level) for level in Severity}

# One row for each change; anomalies without any left have one row with an empty kind.
_CHANGES = """
SELECT o.kind, a.id::text, coalesce(t.name, ''), a.source, a.metric, a.anomaly_type, a.severity,
    o.payload->>'severity', (o.payload->>'anomaly_score')::float8, a.score, a.direction,
    (extract(epoch FROM a.onset_at) * 1e6)::int8, (extract(epoch FROM a.end_at) * 1e6)::int8,
    (extract(epoch FROM (o.payload->>'end_timestamp')::timestamptz) * 1e6)::int8,
    a.state, a.label
FROM anomalies_anomaly a
LEFT JOIN anomalies_outbox o ON o.anomaly_id = a.id
LEFT JOIN streams_stream t ON t.id = a.stream_id
WHERE a.onset_at >= %s AND a.onset_at < %s
ORDER BY a.onset_at DESC, a.id, o.sequence
LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class Past:
    """What happened in ``[start, end)``.

    ``rough`` counts anomalies whose changes are gone: their first severity isn't known any more.
    ``cut`` says that there was more than could be read; then the oldest are missing.
    """

    start: datetime
    end: datetime
    signals: tuple[Signal, ...]
    labels: dict[str, str] = field(default_factory=dict)
    rough: int = 0
    cut: bool = False


def read(start: datetime, end: datetime) -> Past:
    """All signals of anomalies with an onset in the stretch, in order of time."""
    with connection.cursor() as cursor:
        cursor.execute(_CHANGES, [start, end, MOST_SIGNALS + 1])
        rows = cursor.fetchall()
        cursor.execute(
            "SELECT coalesce(t.name, ''), s.source, count(*) FROM streams_series s"
            " LEFT JOIN streams_stream t ON t.id = s.stream_id GROUP BY 1, 2"
        )
        siblings = {(stream, source): n for stream, source, n in cursor.fetchall()}
    end_us = to_us(end)
    signals: list[Signal] = []
    labels: dict[str, str] = {}
    rough: set[str] = set()
    for row in rows[:MOST_SIGNALS]:
        if row[15]:
            labels[row[1]] = row[15]
        if row[0] is None:
            rough.add(row[1])
        signals += [s for s in _signals(row, siblings) if s.at_us < end_us]
    signals.sort(key=lambda s: s.order)
    return Past(start, end, tuple(signals), labels, len(rough), len(rows) > MOST_SIGNALS)


def _signals(row: Sequence[Any], siblings: dict[tuple[str, str], int]) -> list[Signal]:
    (change, anomaly, stream, source, metric, kind, worst, severity, score, first_score, direction,
     onset_us, end_us, at_us, state, _) = row  # fmt: skip

    def signal(at: int, what: Any, rank: int, odd: float | None, until: int) -> Signal:
        return Signal(
            at, what, anomaly, stream, source, metric, kind, rank, odd, direction,
            onset_us=onset_us, end_us=until, siblings=siblings.get((stream, source), 1),
        )  # fmt: skip

    if change == "closed":
        return [signal(end_us, "closed", worst, first_score, end_us)]
    if change == "update":
        at = onset_us if at_us is None else at_us
        return [signal(at, "update", _RANKS.get(severity, worst), score, at)]
    onset = signal(
        onset_us, "onset", _RANKS.get(severity, worst),
        first_score if score is None else score, onset_us,
    )  # fmt: skip
    if change == "onset":
        return [onset]
    # By hand, or without any changes left.
    found = [onset]
    if state == "closed":
        found.append(signal(end_us, "closed", worst, first_score, end_us))
    return found


def near_misses(start: datetime, end: datetime, least: float) -> tuple[float, int] | None:
    """Onsets that there would have been at a lower threshold, counted from stored near misses.

    Returns:
        (the level at or below ``least`` at which they are counted, how many); None where nothing so
        low is stored.
    """
    fitting = [i for i, level in enumerate(LEVELS) if level <= least + 1e-9 and i >= 2]
    if not fitting:
        return None
    bit = fitting[-1]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM anomalies_candidate WHERE event_at >= %s AND event_at < %s"
            " AND levels & %s <> 0",
            [start, end, 1 << bit],
        )
        found = cursor.fetchone()
    return float(LEVELS[bit]), int(found[0]) if found else 0
