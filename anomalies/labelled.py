"""What people confirmed, as times of series: the part of history that no model may learn."""

from __future__ import annotations

from anomalies.models import Anomaly
from detection.history import Interval, leave_out
from streams.clock import to_us


def confirmed(stream: str) -> list[Interval]:
    """The times of this stream's anomalies that are labelled real."""
    rows = Anomaly.objects.filter(
        stream__name=stream, label=Anomaly.Label.REAL, series__isnull=False
    )
    found = rows.order_by("onset_at", "pk").values_list("source", "metric", "onset_at", "end_at")
    return [
        Interval(source, metric, to_us(onset), to_us(end))
        for source, metric, onset, end in found.iterator(chunk_size=5_000)
    ]


leave_out(confirmed)
