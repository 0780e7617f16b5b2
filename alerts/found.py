"""Incidents as pages and the API list them: filters, keyset pages, counts, surroundings."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from alerts.models import Attempt, Incident, IncidentAnomaly, Notification

MOST_COUNTED = 1_000
ACTIVE = Q(state__in=(Incident.State.OPEN, Incident.State.ACKNOWLEDGED))
SENT = (Notification.State.SENT, Notification.State.DIGESTED)
BEATS = 12
TOLD = 6


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to; an empty value narrows nothing.

    ``state``: one of Incident.State, or "active": open or acknowledged. ``severity`` and above.
    ``assignee``: a user's name, or "none".
    """

    state: str = ""
    severity: int | None = None
    rule: str = ""
    source: str = ""
    stream: str = ""
    assignee: str = ""
    label: str = ""
    start: datetime | None = None
    end: datetime | None = None

    def apply(self, rows: QuerySet[Incident]) -> QuerySet[Incident]:
        if self.state == "active":
            rows = rows.filter(ACTIVE)
        elif self.state:
            rows = rows.filter(state=self.state)
        if self.severity is not None:
            rows = rows.filter(severity__gte=self.severity)
        if self.rule:
            rows = rows.filter(rule__name=self.rule)
        if self.source:
            rows = rows.filter(
                Q(sources__contains=[self.source]) | Q(members__anomaly__source=self.source)
            ).distinct()
        if self.stream:
            rows = rows.filter(group__regex=f"^[a-z]+:{_escaped(self.stream)}(/|$)")
        if self.assignee == "none":
            rows = rows.filter(assignee=None)
        elif self.assignee:
            rows = rows.filter(assignee__username=self.assignee)
        if self.label == "none":
            rows = rows.filter(label="")
        elif self.label:
            rows = rows.filter(label=self.label)
        if self.start:
            rows = rows.filter(last_at__gte=self.start)
        if self.end:
            rows = rows.filter(first_at__lt=self.end)
        return rows


@dataclass(frozen=True, slots=True)
class Page:
    """One page, newest first; the cursors lead to the pages beside it."""

    rows: list[Incident]
    older: str | None
    newer: str | None


def page_of(filters: Filters, *, before: str = "", after: str = "", size: int = 50) -> Page:
    """The ``size`` incidents before or after a cursor, by when they were opened; keyset."""
    found = filters.apply(with_sent(with_people(Incident.objects.all())))
    older, newer = read_cursor(before), read_cursor(after)
    if newer:
        at, pk = newer
        later = found.filter(Q(opened_at__gt=at) | Q(opened_at=at, pk__gt=pk))
        rows = list(later.order_by("opened_at", "pk")[: size + 1])
        more = len(rows) > size
        rows = rows[:size][::-1]
        return Page(rows, _cursor(rows, -1, bool(rows)), _cursor(rows, 0, more))
    if older:
        at, pk = older
        found = found.filter(Q(opened_at__lt=at) | Q(opened_at=at, pk__lt=pk))
    rows = list(found.order_by("-opened_at", "-pk")[: size + 1])
    more = len(rows) > size
    rows = rows[:size]
    return Page(rows, _cursor(rows, -1, more), _cursor(rows, 0, older is not None))


def with_people(rows: QuerySet[Incident]) -> QuerySet[Incident]:
    """With what an incident's JSON and its line in a list need."""
    return rows.select_related(
        "rule", "rule_version", "assignee", "acknowledged_by", "resolved_by", "merged_into"
    )


def with_sent(rows: QuerySet[Incident]) -> QuerySet[Incident]:
    """With ``sent``: how many notifications of each went out."""
    gone = Notification.objects.filter(incident=OuterRef("pk"), state__in=SENT).order_by()
    counted = gone.values("incident").annotate(n=Count("pk")).values("n")
    return rows.annotate(sent=Coalesce(Subquery(counted), 0))


def beats(rows: Iterable[Incident], now: datetime) -> dict[int, list[float | None]]:
    """Onsets of the last hour, in steps of five minutes, by incident."""
    keys = [row.pk for row in rows]
    found: dict[int, list[float | None]] = {pk: [0.0] * BEATS for pk in keys}
    if not keys:
        return found
    members = IncidentAnomaly.objects.filter(
        incident__in=keys, anomaly__onset_at__gt=now - timedelta(hours=1)
    )
    for pk, at in members.values_list("incident_id", "anomaly__onset_at")[:MOST_COUNTED]:
        step = BEATS - 1 - int((now - at).total_seconds() * BEATS / 3_600)
        step = min(max(step, 0), BEATS - 1)
        found[pk][step] = (found[pk][step] or 0.0) + 1
    return found


def active_count() -> int:
    """Open and acknowledged ones, counted up to ``MOST_COUNTED``."""
    return Incident.objects.filter(ACTIVE)[:MOST_COUNTED].count()


def worst_active(most: int = 5) -> list[Incident]:
    """Those that most need somebody: the worst, then the newest."""
    rows = with_sent(with_people(Incident.objects.filter(ACTIVE)))
    return list(rows.order_by("-severity", "-opened_at", "-pk")[:most])


def of_anomaly(pk: UUID) -> list[Incident]:
    """The incidents that an anomaly is part of, the newest first."""
    rows = Incident.objects.filter(members__anomaly_id=pk).select_related("rule_version__rule")
    return list(rows.order_by("-pk")[:20])


def members_of(incident: str) -> QuerySet[IncidentAnomaly, UUID]:
    """The anomalies of an incident by its number, `INC-17` too; of `any`, those of all."""
    members = IncidentAnomaly.objects.order_by()
    number = incident.upper().removeprefix("INC-")
    if incident != "any":
        known = number.isascii() and number.isdigit() and len(number) < 18
        members = members.filter(incident=int(number)) if known else members.none()
    return members.values_list("anomaly_id", flat=True)


def told_of(pk: UUID) -> list[Notification]:
    """What was sent, or is to be, of the incidents that an anomaly is part of: the newest ``TOLD``
    first and one more where there is, each with the outcome of its last try."""
    last = Attempt.objects.filter(notification=OuterRef("pk")).order_by("-number")
    rows = Notification.objects.filter(incident__members__anomaly=pk)
    rows = rows.select_related("receiver", "incident", "rule_version__rule").annotate(
        last_status=Subquery(last.values("status")[:1]),
        last_ms=Subquery(last.values("latency_ms")[:1]),
    )
    return list(rows.order_by("-created_at", "pk")[: TOLD + 1])


def read_cursor(text: str) -> tuple[datetime, int] | None:
    """The place a cursor names, or None where it is not one of ours."""
    try:
        at, _, pk = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().partition("|")
        moment = datetime.fromisoformat(at)
        return (moment, int(pk)) if moment.tzinfo and 0 < int(pk) < 2**63 else None
    except (ValueError, UnicodeDecodeError):
        return None


def _cursor(rows: list[Incident], i: int, wanted: bool) -> str | None:
    if not rows or not wanted:
        return None
    text = f"{rows[i].opened_at.isoformat()}|{rows[i].pk}"
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _escaped(text: str) -> str:
    """As a literal in PostgreSQL's regular expressions."""
    return "".join(c if c.isalnum() else f"\\{c}" for c in text)
