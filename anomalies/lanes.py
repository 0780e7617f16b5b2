"""Swim lanes: the worst anomaly of each group and bucket of time, for the groups that matter now.

Buckets begin at round times, so one that has ended holds the same until somebody labels in it.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Case, F, Max, Min, Sum, When

from anomalies.models import Anomaly, AnomalyType
from streams.models import Series
from streams.ranges import Range, from_epoch

LANES = 12
CELLS = 48
LARGE_S = 2 * 86_400
WARM_FROM = 30  # events, from which on the first detectors score
LABELLED = {"not_false_alarm": "label <> 'false_alarm'", "none": "label = ''"}
GROUP = {"source": "source", "metric": "metric", "stream": "coalesce(stream_id, 0)"}
_NAMES = "(SELECT count(DISTINCT name) FROM g)"
_SOURCES = """(SELECT count(DISTINCT source) FROM streams_series WHERE %(stream)s = ''
                   OR stream_id = (SELECT id FROM streams_stream WHERE name = %(stream)s))"""
KNOWN = {"source": _SOURCES, "metric": _NAMES, "stream": _NAMES}
BY = tuple(GROUP)
MANUAL = "manual"

# The order is that of `Lane.recent`.
_LANES = """
WITH g AS MATERIALIZED (
    SELECT {group} AS name, min(stream_id) AS stream_id,
           date_bin(%(bucket)s, onset_at, %(start)s) AS at, max(severity) AS severity,
           max(coalesce(peak_score, score, 0)) AS score, count(*) AS count
      FROM anomalies_anomaly WHERE {where} GROUP BY 1, 3),
chosen AS (
    SELECT name FROM g GROUP BY name
     ORDER BY 2 * coalesce(max(severity) FILTER (WHERE at >= %(recent)s), 0) + max(severity) DESC,
              max(score) DESC, sum(count) DESC LIMIT %(lanes)s)
SELECT {name}, t.name, g.at, g.severity, g.score, g.count, {known} AS known
  FROM chosen JOIN g USING (name) LEFT JOIN streams_stream t ON t.id = g.stream_id
 UNION ALL
SELECT NULL, NULL, at, max(severity), max(score), sum(count)::bigint, {known} FROM g GROUP BY at
"""


@dataclass(slots=True)
class Cell:
    """One lane's bucket; severity 0 is none. `state` is "", "silent" or "warming"."""

    start: datetime
    end: datetime
    severity: int = 0
    score: float = 0.0
    count: int = 0
    lesser: bool = False
    state: str = ""


@dataclass(slots=True)
class Lane:
    name: str
    cells: list[Cell]
    note: str = ""
    count: int = 0
    score: float = 0.0
    severity: int = 0
    warming: bool = False

    def add(self, i: int, severity: int, score: float, count: int) -> None:
        cell = self.cells[i]
        cell.severity, cell.score = max(cell.severity, severity), max(cell.score, score)
        cell.count += count
        self.count += count
        self.severity, self.score = max(self.severity, severity), max(self.score, score)

    @property
    def recent(self) -> tuple[int, float, int]:
        """What lanes are ordered by: the worst of the last eighth first, then the worst of all."""
        last = max((c.severity for c in self.cells[-CELLS // 8 :]), default=0)
        return last * 2 + self.severity, self.score, self.count


@dataclass(frozen=True, slots=True)
class Lanes:
    total: Lane
    lanes: list[Lane]
    known: int
    bucket_s: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """What lanes are asked for: the group, and what anomalies are narrowed to."""

    by: str
    stream: str = ""
    severity: int | None = None
    label: str = ""


def lanes(span: Range, wanted: Wanted) -> Lanes:
    """The greatest score per bucket for the twelve groups that matter most now."""
    bucket = max(1, round(span.seconds / CELLS))
    last = int(-(-span.end.timestamp() // bucket)) * bucket
    start = from_epoch(last - CELLS * bucket)
    total = Lane("", _cells(start, bucket))
    found: dict[str, Lane] = {}
    known = 0
    for name, stream, at, worst, score, count, groups in _rows(start, bucket, wanted):
        known = groups
        lane = total
        if name is not None:
            lane = found.setdefault(name, Lane(name, _cells(start, bucket)))
            lane.note = stream or "" if wanted.by == "source" else ""
        i = min(CELLS - 1, max(0, round((at - start).total_seconds()) // bucket))
        lane.add(i, worst, score, count)
    chosen = sorted(found.values(), key=lambda lane: lane.recent, reverse=True)
    if wanted.by == "source" and not wanted.severity and not wanted.label:
        chosen += _others(chosen, start, bucket, wanted.stream)
    if wanted.by == "source":
        _mark_silent(chosen, start, span.end)
    for lane in (total, *chosen):
        _mark_lesser(lane.cells)
    return Lanes(total, chosen, max(known, len(chosen)), bucket)


def _rows(start: datetime, bucket: int, wanted: Wanted) -> list[tuple[Any, ...]]:
    """By group and bucket, and by bucket alone, out of the index `anomalies_lanes` alone."""
    where = ["onset_at >= %(start)s", "onset_at < %(end)s"]
    values: dict[str, Any] = {
        "start": start, "end": start + timedelta(seconds=CELLS * bucket),
        "recent": start + timedelta(seconds=(CELLS - CELLS // 8) * bucket),
        "bucket": timedelta(seconds=bucket), "severity": wanted.severity, "label": wanted.label,
        "stream": wanted.stream, "lanes": LANES, "manual": MANUAL,
    }  # fmt: skip
    if wanted.stream:
        where.append("stream_id = (SELECT id FROM streams_stream WHERE name = %(stream)s)")
    if wanted.severity:
        where.append("severity >= %(severity)s")
    if wanted.label:
        where.append(LABELLED.get(wanted.label, "label = %(label)s"))
    large = bucket * CELLS > LARGE_S
    with transaction.atomic() if large else nullcontext(), connection.cursor() as cursor:
        if large:
            # The planner can't know how few buckets there are, and would go by way of the disk.
            cursor.execute("SET LOCAL work_mem = '64MB'")
        cursor.execute(
            _LANES.format(
                group=GROUP[wanted.by],
                where=" AND ".join(where),
                known=KNOWN[wanted.by],
                name="g.name" if wanted.by != "stream" else "coalesce(t.name, %(manual)s)",
            ),
            values,
        )
        return list(cursor.fetchall())


def _cells(start: datetime, bucket: int) -> list[Cell]:
    starts = [start + timedelta(seconds=bucket * i) for i in range(CELLS)]
    return [Cell(at, at + timedelta(seconds=bucket)) for at in starts]


def _mark_lesser(cells: list[Cell]) -> None:
    """Of each pair the lesser: a phone shows only the worse one."""
    for a, b in zip(cells[::2], cells[1::2], strict=True):
        first = (a.score, bool(a.state)) < (b.score, bool(b.state))
        (a if first else b).lesser = True


# ---- Sources that are silent, new or calm --------------------------------------------------------
def _others(chosen: list[Lane], start: datetime, bucket: int, stream: str) -> list[Lane]:
    """In the room that is left: sources that have no score yet, then calm ones by their names.
    Where nothing was odd no lane of a calm one is needed: the card says so in a sentence."""
    room = LANES - len(chosen)
    if room <= 0:
        return []
    rows = Series.objects.exclude(source__in=[lane.name for lane in chosen])
    if stream:
        rows = rows.filter(stream__name=stream)
    found = (
        rows.values("source", "stream__name")
        .annotate(first=Min("first_event_at"), last=Max("last_event_at"), most=Max("events"))
        .annotate(new=Case(When(most__lt=WARM_FROM, then=F("last"))))
        .filter(last__gte=start)
        .order_by(F("new").desc(nulls_last=True), "source", "stream__name")
    )
    others = []
    for row in (found if chosen else found.filter(new__isnull=False))[:room]:
        warming = row["most"] < WARM_FROM
        lane = Lane(row["source"], _cells(start, bucket), row["stream__name"], warming=warming)
        for cell in lane.cells if warming else ():
            if cell.end > row["first"] and cell.start <= row["last"]:
                cell.state = "warming"
        others.append(lane)
    return others


def _mark_silent(chosen: list[Lane], start: datetime, now: datetime) -> None:
    """Where a source said nothing: since its last event, and during anomalies of that kind."""
    names = [lane.name for lane in chosen if not lane.warming]
    if not names:
        return
    spans: dict[str, list[tuple[datetime, datetime]]] = {}
    gaps = Anomaly.objects.filter(
        source__in=names, anomaly_type=AnomalyType.MISSING, end_at__gte=start,
        onset_at__lt=now, onset_at__gte=start - timedelta(days=7),
    )  # fmt: skip
    for source, onset, end in gaps.values_list("source", "onset_at", "end_at")[:1_000]:
        spans.setdefault(source, []).append((onset, end))
    heard = (
        Series.objects.filter(source__in=names).values("source").order_by()
        .annotate(first=Min("first_event_at"), last=Max("last_event_at"), n=Sum("events"))
    )  # fmt: skip
    for row in heard:
        if row["last"] is None or row["n"] < 2:
            continue
        usual = (row["last"] - row["first"]) / (row["n"] - 1)
        # Not silent before several of its events are missing.
        if now - row["last"] > max(timedelta(minutes=1), 20 * usual):
            spans.setdefault(row["source"], []).append((row["last"], now))
    for lane in chosen:
        for since, until in spans.get(lane.name, ()):
            for cell in lane.cells:
                if not cell.count and cell.start >= since and cell.start < until:
                    cell.state = "silent"
