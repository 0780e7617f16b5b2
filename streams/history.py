"""The read side of rollups: a series' past, downsampled by its least and largest values.

A mean alone would hide the one event that mattered, so each bucket carries both ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any

from django.db import connection

from streams.models import Series
from streams.ranges import Range, from_epoch, step_for

CHART_POINTS = 340

HOUR_S = 3_600

# Minutes, and hours whose minutes are gone.
_FINE = """(
    SELECT series_id, minute AS at, count, min, max, mean, max_score,
           (expected_mid IS NOT NULL)::int AS bands, expected_low, expected_mid, expected_high
      FROM streams_rollup
     WHERE series_id = ANY(%(series)s) AND minute >= %(start)s AND minute < %(end)s
     UNION ALL
    SELECT series_id, hour, count, min, max, mean, max_score, bands, expected_low, expected_mid,
           expected_high
      FROM streams_rolluphour
     WHERE series_id = ANY(%(series)s) AND hour >= %(start)s AND hour < %(end)s AND sealed
) AS r"""
# Hours, and the minutes of those that have changed since they were made: no event is missed, and
# none counts twice.
_COARSE = """(
    SELECT series_id, hour AS at, count, min, max, mean, max_score, bands, expected_low,
           expected_mid, expected_high
      FROM streams_rolluphour h
     WHERE series_id = ANY(%(series)s) AND hour >= %(start)s AND hour < %(end)s
       AND (sealed OR NOT EXISTS (
            SELECT FROM streams_hourdue d WHERE d.incarnation_id = h.incarnation_id
               AND d.partition = h.partition AND d.hour = h.hour))
     UNION ALL
    SELECT m.* FROM streams_hourdue d CROSS JOIN LATERAL (
        SELECT series_id, minute, count, min, max, mean, max_score,
               (expected_mid IS NOT NULL)::int, expected_low, expected_mid, expected_high
          FROM streams_rollup
         WHERE series_id = ANY(%(series)s) AND minute >= d.hour
           AND minute < d.hour + interval '1 hour' AND incarnation_id = d.incarnation_id
           AND partition = d.partition
        OFFSET 0) AS m
     WHERE d.hour >= %(start)s AND d.hour < %(end)s
) AS r"""
_BUCKETS = """
SELECT series_id, (floor(extract(epoch FROM at)::float8 / %(step)s) * %(step)s)::bigint AS bucket,
       sum(count)::bigint, min(min), max(max), sum(mean * count) / nullif(sum(count), 0),
       sum(expected_low * bands) / nullif(sum(bands), 0),
       sum(expected_mid * bands) / nullif(sum(bands), 0),
       sum(expected_high * bands) / nullif(sum(bands), 0), max(max_score)
  FROM {rows} GROUP BY series_id, bucket ORDER BY series_id, bucket
"""
_SPARKS = """
SELECT r.series_id, (floor(extract(epoch FROM at)::float8 / %(step)s) * %(step)s)::bigint AS bucket,
       sum(r.mean * r.count) / nullif(sum(r.count), 0)
  FROM {rows} JOIN streams_series s ON s.id = r.series_id
 WHERE r.at >= date_trunc('hour', s.last_event_at - interval '24 hours', 'UTC')
   AND r.at <= s.last_event_at
 GROUP BY r.series_id, bucket ORDER BY r.series_id, bucket
"""
# Consumers' lags of one minute add up; of a bucket's minutes the worst counts.
_WORK = """
SELECT (floor(extract(epoch FROM minute)::float8 / %(step)s) * %(step)s)::bigint AS bucket,
       sum(events)::bigint, sum(anomalies)::bigint, sum(rejects)::bigint, max(latency), max(lag)
  FROM (SELECT minute, sum(events) AS events, sum(anomalies) AS anomalies, sum(rejects) AS rejects,
               max(latency_p95_ms) AS latency, sum(lag)::bigint AS lag
          FROM streams_pipelinestat WHERE minute >= %(first)s AND minute < %(end)s
         GROUP BY minute) AS m
 GROUP BY bucket
"""


@dataclass(slots=True)
class Line:
    """Columns of one chart, oldest first; a null row stands in each gap, so that gaps stay gaps."""

    step_s: int
    t: list[float] = field(default_factory=list)
    mean: list[float | None] = field(default_factory=list)
    min: list[float | None] = field(default_factory=list)
    max: list[float | None] = field(default_factory=list)
    low: list[float | None] = field(default_factory=list)
    mid: list[float | None] = field(default_factory=list)
    high: list[float | None] = field(default_factory=list)
    events: int = 0

    def add(self, t: float, values: Sequence[float | None]) -> None:
        self.t.append(t)
        for column, value in zip(self._columns(), values, strict=True):
            column.append(value)

    def as_json(self) -> dict[str, Any]:
        names = ("mean", "min", "max", "low", "mid", "high")
        columns = {name: _rounded(getattr(self, name)) for name in names}
        return {"t": self.t, "step_s": self.step_s, **columns}

    def _columns(self) -> tuple[list[float | None], ...]:
        return self.mean, self.min, self.max, self.low, self.mid, self.high


def series_line(
    series_id: int, span: Range, *, raw: Sequence[Sequence[float]] = (), points: int = CHART_POINTS
) -> Line:
    """What the rollups say of a series in `span`; `raw` [[epoch ms, value], …] is shown as it is.

    The raw points take the place of the buckets they cover, with those buckets' bands.
    """
    step = step_for(span.seconds, points)
    rows = buckets([series_id], span.start, span.end, step).get(series_id, [])
    line = Line(step, events=sum(row.count for row in rows))
    shown = [(p[0] / 1000, float(p[1])) for p in raw] if step == 60 else []
    shown = [p for p in shown if span.start.timestamp() <= p[0] < span.end.timestamp()]
    first, last = (shown[0][0], shown[-1][0]) if shown else (0.0, -1.0)
    bands = {row.t: (row.low, row.mid, row.high) for row in rows}
    merged: list[tuple[float, tuple[float | None, ...]]] = []
    for row in rows:
        # Buckets are drawn at their middle; those that the raw points cover give way to them.
        if not (first - step < row.t <= last):
            merged.append((row.t + step / 2, (row.mean, row.min, row.max, *bands[row.t])))
    for at, value in shown:
        band = bands.get(int(at // step) * step) or (None, None, None)
        merged.append((at, (value, value, value, *band)))
    merged.sort(key=lambda point: point[0])
    _with_gaps(line, merged)
    return line


@dataclass(frozen=True, slots=True)
class Bucket:
    """A step of a series' past; the band is None where nothing was scored."""

    t: int
    count: int
    min: float
    max: float
    mean: float
    low: float | None
    mid: float | None
    high: float | None
    max_score: float | None


def buckets(series: Iterable[int], start: datetime, end: datetime, step: int
            ) -> dict[int, list[Bucket]]:  # fmt: skip
    """Each series' past by steps of `step` seconds, oldest first; empty steps are left out.

    Whole hours are read from the hours, shorter steps from the minutes, where those are not gone
    by retention. The first step is whole, so it may begin before `start`.
    """
    found: dict[int, list[Bucket]] = {}
    for series_id, *row in _asked(_BUCKETS, list(series), start, end, step):
        found.setdefault(series_id, []).append(Bucket(*row))
    return found


def sparks(series: Iterable[Series]) -> dict[int, list[float]]:
    """Hourly means of each series' last 24 hours of its own event time, in one query."""
    seen = [s for s in series if s.last_event_at is not None]
    if not seen:
        return {}
    newest = [s.last_event_at for s in seen if s.last_event_at]
    start, end = min(newest) - timedelta(hours=25), max(newest) + timedelta(seconds=1)
    found: dict[int, list[float]] = {}
    for series_id, _, mean in _asked(_SPARKS, [s.pk for s in seen], start, end, HOUR_S):
        found.setdefault(series_id, []).append(mean)
    return found


@dataclass(frozen=True, slots=True)
class Throughput:
    """The pipeline's minutes (wall clock) put into equal buckets, oldest first."""

    step_s: int
    t: list[int]
    events: list[int]
    anomalies: list[int]
    rejects: list[int]
    latency_p95_ms: list[float | None]
    lag: list[int]
    end: float

    @property
    def rates(self) -> list[float]:
        """Events per second; the last bucket is divided by what has passed of it."""
        lasted = [min(self.step_s, max(60.0, self.end - t)) for t in self.t]
        return [n / seconds for n, seconds in zip(self.events, lasted, strict=True)]


def throughput(span: Range, points: int = 60) -> Throughput:
    """Events, anomalies, rejects, latency and lag of all consumers over `span`."""
    step = max(60, step_for(span.seconds, points))
    first = int(span.start.timestamp() // step) * step
    size = int(span.end.timestamp() // step) - first // step + 1
    t = [first + i * step for i in range(size)]
    events, anomalies, rejects = [0] * size, [0] * size, [0] * size
    latency: list[float | None] = [None] * size
    lag = [0] * size
    with connection.cursor() as cursor:
        cursor.execute(_WORK, {"first": from_epoch(first), "end": span.end, "step": step})
        for bucket, *row in cursor.fetchall():
            i = min(size - 1, max(0, (bucket - first) // step))
            events[i], anomalies[i], rejects[i], latency[i], lag[i] = row
    return Throughput(step, t, events, anomalies, rejects, latency, lag, span.end.timestamp())


def _asked(
    statement: str, series: list[int], start: datetime, end: datetime, step: int
) -> list[tuple[Any, ...]]:
    coarse = step % HOUR_S == 0
    if coarse:
        start = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    with connection.cursor() as cursor:
        cursor.execute(
            statement.format(rows=_COARSE if coarse else _FINE),
            {"step": step, "series": series, "start": start, "end": end},
        )
        return list(cursor.fetchall())


def _with_gaps(line: Line, points: list[tuple[float, tuple[float | None, ...]]]) -> None:
    deltas = [b[0] - a[0] for a, b in pairwise(points)]
    usual = median(deltas) if deltas else 0.0
    longest = max(3 * usual, 2.5 * line.step_s)
    for i, (at, values) in enumerate(points):
        if i and at - points[i - 1][0] > longest:
            line.add((at + points[i - 1][0]) / 2, (None,) * 6)
        line.add(at, values)


def _rounded(column: list[float | None]) -> list[float | None]:
    # Six digits are more than a screen shows and halve the page.
    return [None if v is None else float(f"{v:.6g}") for v in column]
