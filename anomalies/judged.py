"""How good the anomalies of a stream were, by what people said of them."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from typing import Any

from django.db.models import Count, Max, Min, Q, Sum

from anomalies.models import Anomaly
from streams.models import Series, Stream

MATCH_S = 600.0
"""A report is found by an alarm that lies within these seconds of it."""


def figures(stream: Stream, match_s: float = MATCH_S) -> dict[str, Any]:
    """Precision of the ensemble and of each detector, recall of what people reported, costs.

    `precision` is real / (real, false alarms and expected ones) among labelled anomalies; an
    anomaly counts for a detector whose own score at its onset reached the threshold. Reports by
    hand are *reported*, `found` by an anomaly of the same series within `match_s` seconds of its
    episode. `false_alarms_a_day` counts those that are labelled so over the days that the stream
    was watched; while many are unlabelled it says too little, and `alarms_a_day` too much. Ratios
    of nothing are None.
    """
    mine = Anomaly.objects.filter(stream=stream, origin=Anomaly.Origin.DETECTOR, kind="episode")
    counts = mine.aggregate(
        total=Count("pk"), **{label.value: Count("pk", filter=Q(label=label)) for label in _GIVEN}
    )
    watched = Series.objects.filter(stream=stream).aggregate(
        first=Min("first_event_at"), last=Max("last_event_at"), events=Sum("events")
    )
    days = _days(watched["first"], watched["last"])
    reported, found = _reports(stream, match_s)
    total, false = counts["total"], counts[Anomaly.Label.FALSE_ALARM]
    labels = {label.value: counts[label] for label in _GIVEN}
    return {
        "anomalies": total,
        "labels": labels,
        "unlabelled": total - sum(labels.values()),
        "precision": _precision(labels),
        "detectors": _detectors(mine),
        "reported": reported,
        "reported_found": found,
        "recall_of_reported": found / reported if reported else None,
        "days": days,
        "false_alarms_a_day": false / days if days else None,
        "alarms_a_day": total / days if days else None,
        "onsets_per_10000": 1e4 * total / watched["events"] if watched["events"] else None,
    }


_GIVEN = (Anomaly.Label.REAL, Anomaly.Label.FALSE_ALARM, Anomaly.Label.EXPECTED)


def _detectors(mine: Any) -> dict[str, dict[str, Any]]:
    """Per detector: the labels of the anomalies at whose onset it alarmed by itself."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(_values(), 0))
    labelled = mine.filter(label__in=_GIVEN).values_list("label", "threshold", "detectors")
    for label, threshold, scores in labelled.order_by("pk").iterator(chunk_size=5_000):
        for name, score in scores.items():
            if score is not None and threshold is not None and score >= threshold:
                found[name][label] += 1
    return {name: {**found[name], "precision": _precision(found[name])} for name in sorted(found)}


def _reports(stream: Stream, match_s: float) -> tuple[int, int]:
    """(reports by hand, those that an anomaly of the same series met)."""
    margin = dt.timedelta(seconds=match_s)
    reports = Anomaly.objects.filter(stream=stream, origin=Anomaly.Origin.MANUAL)
    # a report that was withdrawn is none
    reports = reports.exclude(label__in=[Anomaly.Label.FALSE_ALARM, Anomaly.Label.EXPECTED])
    reported = found = 0
    for series, at in reports.order_by("pk").values_list("series_id", "onset_at").iterator():
        reported += 1
        found += Anomaly.objects.filter(
            series_id=series,
            origin=Anomaly.Origin.DETECTOR,
            onset_at__lte=at + margin,
            end_at__gte=at - margin,
        ).exists()
    return reported, found


def _values() -> list[str]:
    return [label.value for label in _GIVEN]


def _precision(labels: dict[str, int]) -> float | None:
    total = sum(labels[label] for label in _values())
    return labels[Anomaly.Label.REAL] / total if total else None


def _days(first: dt.datetime | None, last: dt.datetime | None) -> float | None:
    if first is None or last is None or last <= first:
        return None
    return (last - first).total_seconds() / 86_400
