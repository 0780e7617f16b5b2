"""What the pages of one anomaly and one series show: chart, facts, votes, what made it odd."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone

from anomalies.models import Anomaly
from streams.history import series_line
from streams.models import Series
from streams.ranges import Range

LABELS = [
    ("real", "Real", "leave out of training", "1"),
    ("false_alarm", "False alarm", "nothing was wrong", "2"),
    ("expected", "Expected", "known, and no fault", "3"),
]
DETECTOR_NAMES = {
    "zscore": "z-score", "mad": "Median and MAD", "ewma": "EWMA chart", "iqr": "Tukey's fences",
    "seasonal": "Time of day", "change_point": "Change point", "online": "Online detector",
    "isolation_forest": "Isolation Forest", "local_outlier_factor": "Local Outlier Factor",
    "one_class_svm": "One-Class SVM",
}  # fmt: skip
MARK_LIMIT = 400


@dataclass(frozen=True, slots=True)
class Vote:
    name: str
    score: float | None
    over: bool


@dataclass(frozen=True, slots=True)
class Weight:
    """A feature's distance from normal, and its share of all features' squared distances."""

    name: str
    sigma: float
    share: float
    bar: float


def votes(anomaly: Anomaly) -> list[Vote]:
    threshold = anomaly.threshold or 0.8
    named = {k: v for k, v in anomaly.detectors.items() if k != "ensemble"}
    return [
        Vote(DETECTOR_NAMES.get(name, name.replace("_", " ")), score,
             score is not None and score >= threshold)
        for name, score in sorted(named.items(), key=lambda item: -(item[1] or -1))
    ]  # fmt: skip


def weights(anomaly: Anomaly) -> list[Weight]:
    known = {k: float(v) for k, v in anomaly.features.items() if isinstance(v, int | float)}
    total = sum(v * v for v in known.values())
    most = max((abs(v) for v in known.values()), default=0.0)
    if not total:
        return []
    ranked = sorted(known.items(), key=lambda item: -abs(item[1]))[:6]
    return [Weight(k.replace("_", " "), v, 100 * v * v / total, abs(v) / most) for k, v in ranked]


def facts(anomaly: Anomaly) -> dict[str, Any]:
    """The row above the chart, and what stands beside it."""
    outside, side = None, ""
    value, low, high = anomaly.value, anomaly.expected_low, anomaly.expected_high
    if value is not None and low is not None and high is not None and high > low:
        middle = (low + high) / 2 if anomaly.expected_mid is None else anomaly.expected_mid
        if not low <= value <= high:
            outside = abs(value - middle) / ((high - low) / 2)
            side = "above" if value > middle else "below"
    change = None
    if value is not None and anomaly.expected_mid:
        change = 100 * (value - anomaly.expected_mid) / abs(anomaly.expected_mid)
    first, _, rest = (anomaly.explanation or anomaly.message).partition(". ")
    return {
        "outside": outside, "side": side, "change": change,
        "lasted_s": (anomaly.end_at - anomaly.onset_at).total_seconds(),
        "stored_after_s": (anomaly.stored_at - anomaly.onset_at).total_seconds(),
        "why_first": first + ("." if rest and not first.endswith(".") else ""), "why_rest": rest,
        "voted": sum(vote.over for vote in votes(anomaly)),
    }  # fmt: skip


def chart(anomaly: Anomaly, window: str, seconds: int) -> dict[str, Any]:
    """The value around the onset, most of the window before it."""
    if anomaly.series is None:
        return {"chart": None}
    after = max(seconds / 6, min((anomaly.end_at - anomaly.onset_at).total_seconds() * 1.2,
                                 seconds / 2))  # fmt: skip
    end = min(anomaly.onset_at + timedelta(seconds=after), max(timezone.now(), anomaly.end_at))
    end = max(end, anomaly.onset_at + timedelta(seconds=60))
    span = Range(window, end - timedelta(seconds=seconds), end)
    return _chart(anomaly.series, span, anomaly.context or [], selected=anomaly)


def series_chart(series: Series, window: str, seconds: int) -> dict[str, Any]:
    """The last stretch of a series' own event time, so that replayed history shows as well."""
    now = timezone.now()
    last = series.last_event_at or now
    # A live series ends at now, so that its silence shows; an old one at its last event.
    end = now if now - last < timedelta(seconds=seconds) else last + timedelta(seconds=60)
    return _chart(series, Range(window, end - timedelta(seconds=seconds), end), [])


def _chart(series: Series, span: Range, raw: list[Any], selected: Anomaly | None = None
           ) -> dict[str, Any]:  # fmt: skip
    line = series_line(series.pk, span, raw=raw)
    found = list(
        Anomaly.objects.filter(
            series=series, onset_at__gte=span.start, onset_at__lt=span.end
        ).only("id", "onset_at", "end_at", "severity", "score", "peak_score", "value",
               "anomaly_type", "label", "expected_low", "expected_high", "source", "metric")
        .order_by("-onset_at")[:MARK_LIMIT]
    )  # fmt: skip
    data = line.as_json() | {
        "marks": list(_marks(found)),
        "from": span.start.timestamp(), "to": span.end.timestamp(),
    }  # fmt: skip
    if selected is not None:
        data["selected"] = {"id": str(selected.pk), "from": selected.onset_at.timestamp(),
                            "to": selected.end_at.timestamp()}  # fmt: skip
    lows = [v for v in line.min if v is not None]
    highs = [v for v in line.max if v is not None]
    return {
        "chart": data, "span": span, "anomalies": found, "step_s": line.step_s,
        "summary": {"least": min(lows, default=None), "most": max(highs, default=None),
                    "events": line.events, "anomalies": len(found)},
    }  # fmt: skip


def _marks(anomalies: Iterable[Anomaly]) -> Iterable[dict[str, Any]]:
    for a in anomalies:
        if a.value is not None:
            score = a.score if a.peak_score is None else a.peak_score
            yield {"id": str(a.pk), "t": a.onset_at.timestamp(), "v": a.value,
                   "severity": a.severity, "score": score}  # fmt: skip
