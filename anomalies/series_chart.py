"""The chart of one series: its line with band, marks, near misses and silences over a range."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.http import QueryDict

from anomalies.models import Anomaly, Candidate
from anomalies.what_if import near_misses
from streams.beats import Heartbeat
from streams.history import buckets, series_line
from streams.models import Series
from streams.ranges import Range
from streams.zones import read_local

WINDOWS = {"1h": 3_600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000}
WINDOW_WORDS = [("1h", "1 h"), ("24h", "24 h"), ("7d", "7 d"), ("30d", "30 d")]
DEFAULT = "24h"
LEAST_S, MOST_S = 300.0, 400 * 86_400.0
POINTS = 700
MARK_LIMIT = 400


@dataclass(frozen=True, slots=True)
class View:
    """The range that a page shows; ``live`` where it ends at the present."""

    span: Range
    window: str
    live: bool


def view_of(series: Series, query: QueryDict, now: datetime) -> View:
    """The range of a query: a free one by `start` and `end`, else a named `window`.

    What can't be read is left out, what is too short or too long is made fit.
    """
    start, end = read_local(query.get("start", "")), read_local(query.get("end", ""))
    if start is not None and end is not None and start < end and start.year > 1970:
        seconds = min(max((end - start).total_seconds(), LEAST_S), MOST_S)
        middle = start + (end - start) / 2
        half = timedelta(seconds=seconds / 2)
        return View(Range("", middle - half, middle + half), "", False)
    window = query.get("window", DEFAULT)
    window = window if window in WINDOWS else DEFAULT
    seconds = WINDOWS[window]
    last = series.last_event_at or now
    # A live series ends at now, so that its silence shows; an old one at its last event.
    live = now - last < timedelta(seconds=seconds)
    end = now if live else last + timedelta(seconds=60)
    return View(Range(window, end - timedelta(seconds=seconds), end), window, live)


def chart(series: Series, view: View, beats: Heartbeat, now: datetime) -> dict[str, Any]:
    """What the page and its script draw."""
    span = view.span
    line = series_line(series.pk, span, points=POINTS)
    found = anomalies_in(series, span)
    near = near_misses(series, span.start, span.end)
    data = line.as_json() | {
        "marks": list(_marks(found)), "near": list(_near(near, found)),
        "from": span.start.timestamp(), "to": span.end.timestamp(),
        "silent": [[s.start.timestamp(), (s.end or span.end).timestamp()] for s in beats.silences],
        "now": now.timestamp() if view.live else None,
    }  # fmt: skip
    lows = [v for v in line.min if v is not None]
    highs = [v for v in line.max if v is not None]
    return {
        "chart": data, "anomalies": found, "step_s": line.step_s,
        "summary": {"least": min(lows, default=None), "most": max(highs, default=None),
                    "events": line.events, "anomalies": len(found)},
    }  # fmt: skip


def anomalies_in(series: Series, span: Range) -> list[Anomaly]:
    """The newest of a range."""
    return list(
        Anomaly.objects.filter(series=series, onset_at__gte=span.start, onset_at__lt=span.end)
        .only("id", "onset_at", "end_at", "severity", "score", "peak_score", "value", "label",
              "anomaly_type", "expected_low", "expected_mid", "expected_high", "direction",
              "source", "metric", "origin")
        .order_by("-onset_at")[:MARK_LIMIT]
    )  # fmt: skip


def tail(series: Series, since: datetime, now: datetime, step: int) -> dict[str, Any]:
    """What came since, in buckets of ``step`` seconds, for a chart that is live."""
    found = buckets([series.pk], since, now + timedelta(seconds=1), step).get(series.pk, [])
    span = Range("", since, now)
    return {
        "points": [[b.t + step / 2, b.low, b.high, b.mid, b.min, b.max, b.mean] for b in found],
        "marks": list(_marks(anomalies_in(series, span))), "now": now.timestamp(),
    }  # fmt: skip


def iso(at: datetime) -> str:
    """As it stands in an address."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _marks(anomalies: Iterable[Anomaly]) -> Iterable[dict[str, Any]]:
    for a in anomalies:
        if a.value is None:
            continue
        deviation = None if a.expected_mid is None else a.value - a.expected_mid
        yield {"id": str(a.pk), "t": a.onset_at.timestamp(), "v": a.value, "severity": a.severity,
               "score": a.score if a.peak_score is None else a.peak_score, "side": a.direction,
               "away": deviation, "label": a.get_label_display() if a.label else ""}  # fmt: skip


def _near(found: list[Candidate], anomalies: list[Anomaly]) -> Iterable[dict[str, Any]]:
    """Near misses that belong to no anomaly: what a lower threshold would add."""
    spans = [(a.onset_at, a.end_at) for a in anomalies]
    for c in found[-MARK_LIMIT:]:
        if not any(begin <= c.event_at <= end for begin, end in spans):
            yield {
                "t": c.event_at.timestamp(), "v": c.value, "score": c.score,
                "levels": c.levels & 0xFFFFF, "side": c.direction, "away": c.deviation,
            }  # fmt: skip
