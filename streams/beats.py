"""A series' heartbeat: events per interval of a range, and the stretches in which it was silent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from django.db import connection

from streams.history import buckets
from streams.models import Series
from streams.ranges import Range, from_epoch, step_for
from streams.silence import silent_after_s, usual_gap_s

CELLS = 84
SHOWN_SILENCES = 200
SEEN = 0.1
"""Of an interval: a silence that long marks the whole of it."""

# Minutes that hold events, and whole hours whose minutes are gone; the last one before the range
# tells of a silence that it begins in.
_SILENCES = """
WITH seen AS (
    SELECT minute AS at, minute + interval '1 minute' AS until FROM streams_rollup
     WHERE series_id = %(series)s AND minute >= %(start)s AND minute < %(end)s
    UNION ALL
    SELECT hour, hour + interval '1 hour' FROM streams_rolluphour
     WHERE series_id = %(series)s AND hour >= %(start)s AND hour < %(end)s AND sealed
    UNION ALL
    (SELECT minute, minute + interval '1 minute' FROM streams_rollup
      WHERE series_id = %(series)s AND minute < %(start)s ORDER BY minute DESC LIMIT 1))
SELECT gone, back FROM (
    SELECT until AS gone, lead(at) OVER (ORDER BY at) AS back FROM seen) AS pairs
 WHERE back - gone > make_interval(secs => %(limit)s) ORDER BY gone DESC LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class Silence:
    """From the last event before to the first event after; no end while it goes on."""

    start: datetime
    end: datetime | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Beat:
    """One interval; ``state`` is full, part, silent, or none where no event is to be expected."""

    start: datetime
    end: datetime
    events: int
    state: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A range in equal intervals, its silences (newest first), and what is usual."""

    beats: list[Beat]
    silences: list[Silence]
    step_s: int
    gap_s: float | None
    silent_after_s: float

    @property
    def events(self) -> int:
        return sum(beat.events for beat in self.beats)


def heartbeat(series: Series, span: Range, now: datetime) -> Heartbeat:
    """What rollups say of a series' events in ``span``."""
    gap, limit = usual_gap_s(series), silent_after_s(series)
    silences = _silences(series, span, now, limit)
    # A cell shorter than two usual gaps would often be empty by itself.
    step = step_for(max(span.seconds, CELLS * 2 * (gap or 0.0)), CELLS)
    counts = {b.t: b.count for b in buckets([series.pk], span.start, span.end, step).get(
        series.pk, [])}  # fmt: skip
    first, last = ceil(span.start.timestamp() / step), int(span.end.timestamp() // step)
    if first * step >= span.end.timestamp():
        first -= 1  # a range within one interval
    beats: list[Beat] = []
    for i in range(first, min(last, first + 2 * CELLS) + 1):
        start, n = from_epoch(i * step), counts.get(i * step, 0)
        end = start + timedelta(seconds=step)
        # Cut intervals would look poor; only the present one is still being filled.
        if start < span.end and (end <= span.end or end > now or not beats):
            state = _state(start, end, now, n, step / gap if gap else 0.0, silences)
            beats.append(Beat(start, end, n, state))
    return Heartbeat(beats, silences, step, gap, limit)


def _silences(series: Series, span: Range, now: datetime, limit: float) -> list[Silence]:
    values: dict[str, Any] = {"series": series.pk, "start": span.start, "end": span.end,
                              "limit": limit, "most": SHOWN_SILENCES}  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(_SILENCES, values)
        found = [Silence(gone, back, (back - gone).total_seconds())
                 for gone, back in cursor.fetchall()]  # fmt: skip
    last = series.last_event_at
    if last is not None and last < span.end:
        until = min(span.end, now)
        if (until - last).total_seconds() > limit:
            found.insert(0, Silence(last, None, (now - last).total_seconds()))
    return found


def _state(start: datetime, end: datetime, now: datetime, events: int, usual: float,
           silences: list[Silence]) -> str:  # fmt: skip
    quiet = sum(
        max(0.0, (min(end, s.end or end) - max(start, s.start)) / (end - start)) for s in silences
    )
    if quiet >= SEEN:
        return "silent"
    if events:
        # The last interval has only begun.
        whole = min(1.0, max(0.0, (now - start) / (end - start)))
        return "full" if events >= 0.5 * usual * whole else "part"
    return "none"
