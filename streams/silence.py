"""When a series counts as silent: from the limit on that its consumer has learnt or was given.

Before one is known: no event for five of its gaps on average, and at least a minute.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from streams.models import Series

GAPS = 5
LEAST_S = 60.0


def usual_gap_s(series: Series) -> float | None:
    """Seconds between a series' events, usually; None before there are two."""
    if series.usual_gap_s is not None:
        return series.usual_gap_s
    first, last = series.first_event_at, series.last_event_at
    if first is None or last is None or series.events < 2:
        return None
    return (last - first).total_seconds() / (series.events - 1)


def silent_after_s(series: Series) -> float:
    """How long a series may be without an event before it counts as silent."""
    if series.silence_after_s is not None:
        return series.silence_after_s
    return max(LEAST_S, GAPS * (usual_gap_s(series) or 0.0))


def silent_for_s(series: Series, now: datetime) -> float | None:
    """Since when there is no event, where that is longer than usual."""
    if series.last_event_at is None:
        return None
    passed = (now - series.last_event_at) / timedelta(seconds=1)
    return passed if passed > silent_after_s(series) else None
