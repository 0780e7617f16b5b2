"""What people said of anomalies, for what learns and what judges models.

Confirmed times are the part of history that no model may learn; labelled onsets are what a
challenger is asked again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from django.db.models import Q

from anomalies.models import Anomaly
from detection.gate import Labelled, labels_from
from detection.history import Interval, leave_out
from detection.watch import onsets_from
from streams.clock import to_us


def confirmed(stream: str) -> list[Interval]:
    """The times of this stream's anomalies that are labelled real, reported ones too.

    What was reported before its series was known names no stream: it counts in each.
    """
    rows = Anomaly.objects.filter(
        Q(stream__name=stream) | Q(stream__isnull=True), label=Anomaly.Label.REAL
    )
    found = rows.order_by("onset_at", "pk").values_list("source", "metric", "onset_at", "end_at")
    return [
        Interval(source, metric, to_us(onset), to_us(end))
        for source, metric, onset, end in found.iterator(chunk_size=5_000)
    ]


def labelled(stream: str, since: dt.datetime, most: int) -> Iterator[Labelled]:
    """The newest onsets of detectors that are labelled real, or a false alarm."""
    rows = Anomaly.objects.filter(
        stream__name=stream,
        origin=Anomaly.Origin.DETECTOR,
        kind="episode",
        label__in=(Anomaly.Label.REAL, Anomaly.Label.FALSE_ALARM),
        stored_at__gte=since,
        threshold__isnull=False,
    ).order_by("-stored_at", "-pk")
    for row in rows.only("metric", "features", "detectors", "threshold", "label")[:most]:
        yield Labelled(
            metric=row.metric,
            features=row.features,
            scores=row.detectors,
            threshold=float(row.threshold or 0.0),
            real=row.label == Anomaly.Label.REAL,
        )


def onsets(stream: str, metric: str, since: dt.datetime, until: dt.datetime) -> int:
    """Episodes that opened, by when they were stored; an empty metric means all."""
    rows = Anomaly.objects.filter(
        stream__name=stream,
        origin=Anomaly.Origin.DETECTOR,
        kind="episode",  # models have no part in silences
        stored_at__gte=since,
        stored_at__lt=until,
    )
    return (rows.filter(metric=metric) if metric else rows).count()


leave_out(confirmed)
labels_from(labelled)
onsets_from(onsets)
