"""Incidents: the list, one with its timeline and anomalies, and what people do with it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST
from django_htmx.middleware import HtmxDetails

from alerts import found, incidents
from alerts.errors import ActionError
from alerts.incident_forms import IncidentFilter
from alerts.models import Incident
from streams.roles import may_operate, operator_required

MEMBERS = 100
ENTRIES = 200
SNOOZES = [("60", "1 hour"), ("240", "4 hours"), ("1440", "1 day"), ("10080", "1 week")]
LABELS = [
    ("real", "Real", "trained without it"), ("false_alarm", "False alarm", "counts against it"),
    ("expected", "Expected", "learnt as normal"),
]  # fmt: skip


class HtmxRequest(HttpRequest):
    """A request as django-htmx' middleware leaves it."""

    htmx: HtmxDetails


@login_required
@require_GET
def incident_list(request: HtmxRequest) -> HttpResponse:
    """Incidents, the newest first; htmx gets the table alone."""
    form = IncidentFilter(request.GET)
    page = found.page_of(
        form.filters(), before=request.GET.get("before", ""), after=request.GET.get("after", "")
    )
    beats = found.beats(page.rows, timezone.now())
    lines = [(row, beats[row.pk]) for row in page.rows]
    partial = request.htmx and not request.htmx.boosted
    name = "_incident_table.html" if partial else "incident_list.html"
    return render(request, f"alerts/{name}", {"form": form, "page": page, "lines": lines})


@login_required
@require_GET
def incident(request: HttpRequest, number: int) -> HttpResponse:
    """One incident with everything around it."""
    rows = found.with_sent(found.with_people(Incident.objects.all()))
    one = rows.filter(pk=number).first()
    if one is None:
        raise Http404("No incident has this number.")
    members = one.members.select_related("anomaly__stream").defer(
        "anomaly__context", "anomaly__features", "anomaly__detectors", "anomaly__evidence"
    )
    entries = one.timeline.select_related("actor").order_by("-at", "-id")
    context: dict[str, Any] = {
        "incident": one,
        "entries": entries[:ENTRIES],
        "members": [m.anomaly for m in members.order_by("-anomaly__onset_at")[:MEMBERS]],
        "words": one.notifications.select_related("receiver").order_by("-created_at")[:50],
        "merged": one.merged.order_by("pk")[:50],
        "operator": may_operate(request.user),
        "people": User.objects.filter(is_active=True).order_by("username")[:200],
        "snoozes": SNOOZES, "labels": LABELS, "longest": incidents.LONGEST_COMMENT,
    }  # fmt: skip
    return render(request, "alerts/incident_detail.html", context)


@operator_required
@require_POST
def act(request: HttpRequest, number: int, action: str) -> HttpResponse:
    """Do one thing with an incident, and show it again; a mistake is told on its page."""
    if not Incident.objects.filter(pk=number).exists():
        raise Http404("No incident has this number.")
    try:
        shown = _act(request, number, action)
    except ActionError as error:
        messages.error(request, f"{error.message} Allowed: {error.allowed}.")
        shown = number
    return redirect("incident", shown)


def _act(request: HttpRequest, number: int, action: str) -> int:
    user = request.user if isinstance(request.user, User) else None
    given = request.POST.get("value", "")
    if action in ("acknowledge", "resolve", "reopen"):
        getattr(incidents, action)(number, user)
    elif action == "assign":
        incidents.assign(number, _person(given), user)
    elif action == "comment":
        incidents.comment(number, given, user)
    elif action == "snooze":
        until = None
        if given != "0":
            if given not in dict(SNOOZES):
                raise ActionError("until", "This is no time to snooze for.",
                                  ", ".join(words for _, words in SNOOZES))  # fmt: skip
            until = timezone.now() + timedelta(minutes=int(given))
        incidents.snooze(number, until, user)
    elif action == "label":
        incidents.label(number, given, user)
    elif action == "merge":
        into = given.strip().upper().removeprefix("INC-")
        if not (into.isascii() and into.isdigit() and len(into) < 19):
            raise ActionError("into", "This is no number of an incident.", "INC-17, or 17")
        return incidents.merge(number, int(into), user).pk
    else:
        raise Http404("There is no such action.")
    return number


def _person(name: str) -> User | None:
    if not name:
        return None
    person = User.objects.filter(username=name.replace("\x00", "")[:150], is_active=True).first()
    if person is None:
        raise ActionError("assignee", "There is no such user.", "an active user")
    return person
