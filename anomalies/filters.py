"""What a list of anomalies is narrowed to: for pages, the feed, exports and the API alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import FloatField, Q, QuerySet, Value
from django.db.models.functions import Coalesce

from anomalies.models import Anomaly
from streams.models import Series, Stream

WORST = Coalesce("peak_score", "score", Value(0.0), output_field=FloatField())
"""The greatest score so far; as the index `anomalies_by_worst` spells it."""
FEW = 500
"""Series of a pattern that are asked for one by one, by their index; more are found on the way."""
_members: list[Callable[[str], QuerySet[Any]]] = []


def incidents_by(members: Callable[[str], QuerySet[Any]]) -> None:
    """Tell how the anomalies of an incident are found: by its number, `any` for those of any.

    Incidents live downstream; they register themselves here.
    """
    _members[:] = [members]


@dataclass(frozen=True, slots=True)
class Filters:
    """Every field unset shows all. ``series`` is a pattern of source and metric, as in
    ``web-*/cpu_*``; ``incident`` a number, `any` or `none`; ``stored_until`` keeps out what was
    stored after a moment."""

    source: str = ""
    metric: str = ""
    series: str = ""
    stream: str = ""
    severity: int | None = None
    anomaly_type: str = ""
    label: str = ""
    state: str = ""
    origin: str = ""
    score: float | None = None
    incident: str = ""
    start: datetime | None = None
    end: datetime | None = None
    stored_until: datetime | None = None

    def apply(self, anomalies: QuerySet[Anomaly]) -> QuerySet[Anomaly]:
        for name in ("source", "metric", "state", "anomaly_type", "origin"):
            if value := getattr(self, name):
                anomalies = anomalies.filter(**{name: value})
        if self.stream:
            # By its key: then PostgreSQL knows how many there are.
            key = Stream.objects.filter(name=self.stream).values_list("pk", flat=True).first()
            anomalies = anomalies.filter(stream=key) if key else anomalies.none()
        if self.severity:
            anomalies = anomalies.filter(severity__gte=self.severity)
        if self.score is not None:
            anomalies = anomalies.alias(worst=WORST).filter(worst__gte=self.score)
        if self.start:
            anomalies = anomalies.filter(onset_at__gte=self.start)
        if self.end:
            anomalies = anomalies.filter(onset_at__lt=self.end)
        if self.stored_until:
            anomalies = anomalies.filter(stored_at__lte=self.stored_until)
        if self.series:
            anomalies = anomalies.filter(_matching(self.series))
        return _of_incident(anomalies, self.incident).filter(label_condition(self.label))


def label_condition(label: str) -> Q:
    """`none`, `not_false_alarm` and `any` beside the labels themselves."""
    if label == "none":
        return Q(label="")
    if label == "not_false_alarm":
        return ~Q(label=Anomaly.Label.FALSE_ALARM)
    if label in Anomaly.Label.values and label:
        return Q(label=label)
    return Q()


def _of_incident(anomalies: QuerySet[Anomaly], incident: str) -> QuerySet[Anomaly]:
    if not incident or not _members:
        return anomalies
    if incident == "none":
        return anomalies.exclude(pk__in=_members[0]("any"))
    return anomalies.filter(pk__in=_members[0](incident))


def _matching(pattern: str) -> Q:
    """Of a pattern `source/metric` with * and ?; without a slash it is the source's."""
    source, slash, metric = pattern.rpartition("/")
    if not slash:
        source, metric = pattern, ""
    named = _like("source", source) & _like("metric", metric)
    found = list(Series.objects.filter(named).values_list("pk", flat=True)[: FEW + 1])
    if len(found) > FEW:
        return named
    # Reports by hand belong to no series.
    return Q(series__in=found) | (Q(series__isnull=True) & named)


def _like(column: str, pattern: str) -> Q:
    if pattern in ("", "*"):
        return Q()
    if not any(mark in pattern for mark in "*?"):
        return Q(**{column: pattern})
    escaped = "".join(f"\\{c}" if c in "\\.^$|()[]{}+" else c for c in pattern)
    regex = escaped.replace("*", ".*").replace("?", ".")
    return Q(**{f"{column}__regex": f"^{regex}$"})
