"""What pages of other apps show of incidents: the count in the sidebar, cards, links."""

from __future__ import annotations

from typing import Any

from django import template
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.safestring import SafeString

from alerts import found
from alerts.models import Incident
from anomalies.cards import card
from anomalies.models import Anomaly

register = template.Library()


@register.simple_tag(takes_context=True)
def incident_count(context: template.Context) -> str:
    """Open and acknowledged incidents, counted once a page; empty where there are none."""
    request = context.get("request")
    n = getattr(request, "open_incidents", None)
    if n is None:
        n = found.active_count()
        if request is not None:
            request.open_incidents = n
    return "" if not n else (f"{found.MOST_COUNTED - 1}+" if n >= found.MOST_COUNTED else str(n))


@register.simple_tag(takes_context=True)
def open_incidents(context: template.Context) -> SafeString:
    """The Overview's card."""

    def made() -> str:
        now = timezone.now()
        rows = found.worst_active()
        beats = found.beats(rows, now)
        return render_to_string("alerts/_open_incidents.html", {
            "lines": [(row, beats[row.pk]) for row in rows], "now": now,
            "request": context.get("request"),
        })  # fmt: skip

    return card("incidents", "Open incidents", made)


@register.simple_tag
def incidents_of(anomaly: Anomaly) -> list[Incident]:
    """The incidents that an anomaly is part of."""
    return found.of_anomaly(anomaly.pk)


@register.inclusion_tag("alerts/_told.html")
def told_of(anomaly: Anomaly) -> dict[str, Any]:
    """The card of who was told of an anomaly's incidents, and how each try ended."""
    rows = found.told_of(anomaly.pk)
    return {"told": rows[: found.TOLD], "more": len(rows) > found.TOLD,
            "now": timezone.now()}  # fmt: skip


@register.filter
def open_for(incident: Incident) -> float:
    """Seconds since it was opened, or for which it was."""
    end = incident.resolved_at or timezone.now()
    return (end - incident.opened_at).total_seconds()


@register.filter
def snoozed(incident: Incident) -> bool:
    """Whether nobody is told of it for now."""
    return incident.snoozed_until is not None and incident.snoozed_until > timezone.now()
