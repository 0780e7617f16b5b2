"""What the pages of one anomaly and one series show: chart, facts, votes, what made it odd."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from anomalies import missing
from anomalies.models import Anomaly, AnomalyType
from anomalies.units import unit_of
from detection import versions
from detection.ensemble import Ensemble
from streams.clock import from_us
from streams.history import series_line
from streams.models import Series
from streams.ranges import Range
from streams.vectors import is_vector

LABELS = [
    ("real", "Real", "leave out of training", "1"),
    ("false_alarm", "False alarm", "nothing was wrong", "2"),
    ("expected", "Expected", "known, and no fault", "3"),
]
DETECTOR_NAMES = {
    "zscore": "z-score", "mad": "Median and MAD", "ewma": "EWMA chart", "iqr": "Tukey's fences",
    "seasonal": "Time of day", "change_point": "Change point",
    "shift": "Level shift", "online": "Online detector",
    "isolation_forest": "Isolation Forest", "local_outlier_factor": "Local Outlier Factor",
    "one_class_svm": "One-Class SVM", "vector": "Vector detector",
}  # fmt: skip
MARK_LIMIT = 400


@dataclass(frozen=True, slots=True)
class Vote:
    name: str
    score: float | None
    over: bool
    weight: float | None = None


TESTS = {
    "value": ("value", "a value never seen"),
    "pair": ("pair", "an unusual step between means of two events"),
    "block": ("block", "an unusual course of two dozen events"),
    "residual": ("residual", "an unusual distance from the forecast"),
    "season": ("season", "away from its time of day or week"),
    "flat": ("flat", "equal values for longer than usual"),
    "returned": ("returned", "a known fault came back"),
}
FEATURES = {
    "residual": "distance from the forecast",
    "change": "step from the value before",
    "level": "place within the range of its values",
    "spread": "forecast errs more, or less, than usual",
    "seasonal": "distance from its time of day or week",
    "novelty": "how new the value is",
    "pair": "how new the step is",
    "block": "how new the course is",
    "drift": "lasting distance from its time of day or week",
    "gap": "time since the event before",
}
SHOWN_SHARES = 5


@dataclass(frozen=True, slots=True)
class Share:
    """One line of what made it odd; ``figure`` is what was measured, ``near`` what is normal."""

    name: str
    words: str
    figure: str
    share: float
    bar: float
    near: float | None = None


@dataclass(frozen=True, slots=True)
class Reasons:
    """One detector's reasons, the strongest first; ``unit`` says what their figures are."""

    detector: str
    unit: str
    shares: list[Share]


def votes(anomaly: Anomaly) -> list[Vote]:
    threshold = anomaly.threshold or 0.8
    ensemble = _ensemble(anomaly)
    weights: Mapping[str, float] = {}
    if ensemble is not None and ensemble.method != "mean":
        weights = ensemble.weights
    named = {k: v for k, v in anomaly.detectors.items() if k != "ensemble"}
    return [
        Vote(DETECTOR_NAMES.get(name, name.replace("_", " ")), score,
             score is not None and score >= threshold, weights.get(name))
        for name, score in sorted(named.items(), key=lambda item: -(item[1] or -1))
    ]  # fmt: skip


def _ensemble(anomaly: Anomaly) -> Ensemble | None:
    """How the votes became one score when it was scored."""
    if anomaly.scoring_version is None:
        return None
    of_vectors = anomaly.anomaly_type == AnomalyType.MULTIVARIATE
    return versions.ensemble_of(anomaly.scoring_version.payload, of_vectors=of_vectors)


def reasons(anomaly: Anomaly) -> list[Reasons]:
    """What made it odd to each detector that can tell; nothing is made up for the others."""
    evidence = anomaly.evidence or {}
    found = []
    tests = {k: v for k, v in (evidence.get("tests") or {}).items() if k in TESTS and v > 0}
    if total := sum(tests.values()):
        most = max(tests.values())
        ranked = sorted(tests.items(), key=lambda item: -item[1])[:SHOWN_SHARES]
        found.append(Reasons(
            DETECTOR_NAMES["online"], "its tests, 1.0 is an alarm",
            [Share(*TESTS[k], f"{v:.1f}", 100 * v / total, v / most) for k, v in ranked],
        ))  # fmt: skip
    if parts := evidence.get("shares"):
        ranked = sorted(parts.items(), key=lambda item: -item[1])[:SHOWN_SHARES]
        most = max(ranked[0][1], 1e-9)
        found.append(Reasons(
            DETECTOR_NAMES["vector"], "each value's part in the distance",
            [Share(k, "", f"{v:.2f}", 100 * v, v / most) for k, v in ranked],
        ))  # fmt: skip
    wide = is_vector(anomaly.metric)
    words = {} if wide else FEATURES  # a value may be called like a feature
    for algorithm, told in ((evidence.get("around") or {}).get("models") or {}).items():
        shares = sorted(told["shares"].items(), key=lambda item: -item[1])[:SHOWN_SHARES]
        most = shares[0][1] if shares else 1.0
        found.append(Reasons(
            DETECTOR_NAMES.get(algorithm, algorithm.replace("_", " ")),
            f"{'deviations' if wide else 'features'}, and the nearest normal",
            [Share(k, words.get(k, ""), f"{anomaly.features.get(k, 0.0):+.1f}", 100 * v,
                   v / most, told["nearest"].get(k)) for k, v in shares],
        ))  # fmt: skip
    return found


@dataclass(frozen=True, slots=True)
class WideValue:
    """One value of a wide event: as it came, its level, what is usual and what goes with the rest;
    ``away`` is how far the level is from its mean, in deviations."""

    name: str
    value: float | None
    level: float | None
    usual: float | None
    expected: float | None
    away: float | None
    share: float
    bar: float


def wide_values(anomaly: Anomaly) -> list[WideValue]:
    """Every value of a wide anomaly, the largest share first; none where they were not stored."""
    evidence = anomaly.evidence or {}
    shares, values = evidence.get("shares") or {}, evidence.get("values") or {}
    most = max(shares.values(), default=0.0) or 1.0
    found = [
        WideValue(name, said.get("value"), said.get("level"), said.get("usual"),
                  said.get("expected"), anomaly.features.get(name), 100 * shares.get(name, 0.0),
                  shares.get(name, 0.0) / most)
        for name, said in values.items()
    ]  # fmt: skip
    return sorted(found, key=lambda v: (-v.share, v.name))


def why(anomaly: Anomaly) -> dict[str, Any]:
    """Everything below the sentence: reasons, rarity, what was alike, who moved too."""
    around = (anomaly.evidence or {}).get("around")
    known = around or {}
    alike = {str(a.pk): a for a in Anomaly.objects.filter(
        pk__in=[row["id"] for row in known.get("similar", [])]
    ).defer("features", "evidence", "detectors")} if known.get("similar") else {}  # fmt: skip
    nearest = known.get("nearest")
    return {
        "reasons": reasons(anomaly), "wide": wide_values(anomaly), "around": around,
        "rare": rare(known.get("rarity")),
        "similar": [
            (alike[row["id"]], row["likeness"], [v for _, v in alike[row["id"]].context or []])
            for row in known.get("similar", []) if row["id"] in alike
        ],
        "near": nearest and nearest | {"at": datetime.fromisoformat(nearest["at"])},
        "neighbours": _neighbours(known.get("neighbours")),
        "course": course(anomaly, known), "votes": votes(anomaly),
        "method": "" if (ensemble := _ensemble(anomaly)) is None else ensemble.method,
        "moved": any(g["moved"] for g in (known.get("neighbours") or {}).values()),
    }  # fmt: skip


def rare(rarity: dict[str, Any] | None) -> str:
    """ "higher than 99.97 % of 48,210 scored events of 30 days"; never more than is stored."""
    if not rarity:
        return ""
    events, reached = rarity["events"], rarity["reached"]
    days = f"{rarity['days']} day{'s' * (rarity['days'] != 1)}"
    if not reached:
        return f"higher than all {events:,} scored events of {days}"
    if events < 100:
        return f"{reached} of {events} scored events of {days} reached {rarity['level']:g}"
    digits = max(0, math.ceil(math.log10(events)) - 2)
    size = 10.0 ** min(digits, 4)
    share = math.floor(100 * (1 - reached / events) * size) / size
    return f"higher than {share:g} % of {events:,} scored events of {days}"


def course(anomaly: Anomaly, around: dict[str, Any]) -> str:
    """How long, read as what, and who moved in the same minute: the sentences after the first."""
    if anomaly.origin != Anomaly.Origin.DETECTOR:
        return ""
    if anomaly.kind == "missing":
        return missing.course(anomaly, around)
    lasted = (anomaly.end_at - anomaly.onset_at).total_seconds()
    name = str(AnomalyType(anomaly.anomaly_type).label).lower() if (
        anomaly.anomaly_type in AnomalyType) else anomaly.anomaly_type  # fmt: skip
    name = f"a {name}" if not is_vector(anomaly.metric) else "values that do not go together"
    over = f"{anomaly.count} event{'s' * (anomaly.count != 1)} over the threshold"
    if anomaly.state == Anomaly.State.OPEN:
        said = f"So far {over}; Vigil reads it as {name} until its end is known."
    elif lasted:
        said = f"It lasted {_duration(lasted)} with {over}, and Vigil reads it as {name}."
    else:
        said = f"Vigil reads it as {name}."
    groups = around.get("neighbours") or {}
    moved = [row for group in groups.values() for row in group["most"]]
    count = sum(group["moved"] for group in groups.values())
    if count:
        names = " and ".join(f"{row['metric']} on {row['source']}" for row in moved[:2])
        rest = f", and {count - 2} more" if count > 2 else ""
        verb = "neighbour" if count == 1 else "neighbours"
        said += f" {count} {verb} moved in the same minute: {names}{rest}."
    elif groups:
        looked = sum(group["looked_at"] for group in groups.values())
        said += f" None of {looked} neighbour{'s' * (looked != 1)} moved in the same minute."
    return said


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"


def _neighbours(groups: dict[str, Any] | None) -> list[dict[str, Any]]:
    words = {"source": "of the same source", "metric": "the same metric elsewhere"}
    return [{"words": words[name], **group} for name, group in (groups or {}).items()]


def facts(anomaly: Anomaly) -> dict[str, Any]:
    """The row above the chart, and what stands beside it."""
    outside, side = None, ""
    value, low, high = anomaly.value, anomaly.expected_low, anomaly.expected_high
    # a distance from a pattern has no spread around its middle
    together = is_vector(anomaly.metric)
    if not together and value is not None and low is not None and high is not None and high > low:
        middle = (low + high) / 2 if anomaly.expected_mid is None else anomaly.expected_mid
        if not low <= value <= high:
            outside = abs(value - middle) / ((high - low) / 2)
            side = "above" if value > middle else "below"
    change = None
    if not together and value is not None and anomaly.expected_mid:
        change = 100 * (value - anomaly.expected_mid) / abs(anomaly.expected_mid)
    first, _, rest = (anomaly.explanation or anomaly.message).partition(". ")
    return {
        "unit": "" if together else unit_of(anomaly.metric),
        "together": together, "outside": outside, "side": side, "change": change,
        "lasted_s": (anomaly.end_at - anomaly.onset_at).total_seconds(),
        "silence": _silence(anomaly),
        "stored_after_s": (anomaly.stored_at - anomaly.onset_at).total_seconds(),
        "why_first": first + ("." if rest and not first.endswith(".") else ""), "why_rest": rest,
        "voted": sum(vote.over for vote in votes(anomaly)),
    }  # fmt: skip


def _silence(anomaly: Anomaly) -> dict[str, Any] | None:
    """Of a series that fell silent: since when, for how long, and what is usual."""
    told = (anomaly.evidence or {}).get("silence")
    if anomaly.kind != "missing" or not told:
        return None
    lasted_s = missing.lasted_s(anomaly, timezone.now())
    return {
        "since": from_us(missing.since_us(anomaly)), "lasted_s": lasted_s,
        "usual_s": told["usual_s"], "limit_s": told["limit_s"], "learnt": told["learnt"],
        "times": lasted_s / told["limit_s"] if told["limit_s"] else None,
    }  # fmt: skip


def chart(anomaly: Anomaly, window: str, seconds: int) -> dict[str, Any]:
    """The value around the onset, most of the window before it."""
    if anomaly.series is None:
        return {"chart": None}
    over = missing.over_at(anomaly, timezone.now())
    after = max(seconds / 6, min((over - anomaly.onset_at).total_seconds() * 1.2, seconds / 2))
    end = min(anomaly.onset_at + timedelta(seconds=after), max(timezone.now(), over))
    end = max(end, anomaly.onset_at + timedelta(seconds=60))
    span = Range(window, end - timedelta(seconds=seconds), end)
    return _chart(anomaly.series, span, anomaly.context or [], selected=anomaly)


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
        if selected.kind == "missing":
            over = missing.over_at(selected, timezone.now()).timestamp()
            data["silent"] = [[missing.since_us(selected) / 1e6, min(over, span.end.timestamp())]]
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
