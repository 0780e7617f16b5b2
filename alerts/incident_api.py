"""The JSON API of incidents; docs/api.md documents it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils import timezone

from alerts import found, incidents
from alerts.errors import ActionError
from alerts.models import Incident
from anomalies import access
from anomalies.api import DEFAULT_LIMIT, MAX_LIMIT, endpoint, problem
from anomalies.parameters import BadRequestError, moment, one_of, severity_of, text_of, whole
from anomalies.results import result_of

MAX_BODY = 16_000
MEMBERS = 1_000
LABELS = [label for label in Incident.Label.values if label]
Body = Mapping[str, Any]
Act = Callable[[int, Body, incidents.Actor], Incident]


@endpoint("GET", "HEAD")
def incidents_view(request: HttpRequest) -> HttpResponseBase:
    """The newest incidents, narrowed by filters, page by page."""
    query = request.GET
    limit = whole("limit", query.get("limit", str(DEFAULT_LIMIT)), 1, MAX_LIMIT)
    filters = found.Filters(
        state=one_of("state", query.get("state", ""), ["", "active", *Incident.State.values]),
        severity=severity_of(query.get("severity", "")),
        rule=text_of("rule", query.get("rule", "")),
        source=text_of("source", query.get("source", "")),
        stream=text_of("stream", query.get("stream", "")),
        assignee=text_of("assignee", query.get("assignee", "")),
        label=one_of("label", query.get("label", ""), ["", "none", *LABELS]),
        start=moment("since", query.get("since", "")),
        end=moment("until", query.get("until", "")),
    )
    before = query.get("cursor", "")
    if before and found.read_cursor(before) is None:
        raise BadRequestError("cursor", "No cursor of this API.", "`next` of the last answer")
    page = found.page_of(filters, before=before, size=limit)
    return JsonResponse(
        {"count": len(page.rows), "incidents": [incidents.as_json(i) for i in page.rows],
         "next": page.older}
    )  # fmt: skip


@endpoint("GET", "HEAD")
def incident_view(request: HttpRequest, number: int) -> HttpResponseBase:
    """One incident with its timeline, anomalies and notifications."""
    incident = _with_people(number)
    if incident is None:
        return _unknown()
    members = incident.members.select_related("anomaly__stream").order_by("-anomaly__onset_at")
    return JsonResponse(
        incidents.as_json(incident)
        | {
            "timeline": [
                incidents.entry_json(entry)
                for entry in incident.timeline.select_related("actor").order_by("at", "id")
            ],
            "members": [result_of(m.anomaly) for m in members[:MEMBERS]],
            "notifications": [
                {
                    "id": str(n.pk), "receiver": n.receiver.name, "reason": n.reason,
                    "state": n.state, "attempts": n.attempts,
                    "due_at": n.due_at.isoformat(),
                    "sent_at": n.sent_at.isoformat() if n.sent_at else None,
                    "last_error": n.last_error or None,
                }
                for n in incident.notifications.select_related("receiver").order_by("created_at")
            ],
        }
    )  # fmt: skip


@endpoint("POST")
def action_view(request: HttpRequest, number: int, action: str) -> HttpResponseBase:
    """Acknowledge, resolve, reopen, assign, comment, merge, snooze or label one."""
    act = _ACTIONS.get(action)
    if act is None:
        return problem(404, "There is no such action.", field="action",
                       allowed=", ".join(_ACTIONS))  # fmt: skip
    try:
        raw = request.body
    except RequestDataTooBig:
        raw = b" " * (MAX_BODY + 1)
    if len(raw) > MAX_BODY:
        return problem(413, "The body is too long.", field="body", allowed=f"{MAX_BODY} bytes")
    # Only JSON: a browser sends that to another site only after asking, which we never grant.
    if request.content_type != "application/json":
        return problem(415, "The body's type is not JSON.", field="Content-Type",
                       allowed="application/json")  # fmt: skip
    if not access.same_origin({name.lower(): value for name, value in request.headers.items()}):
        return problem(403, "Another site's page may not act.", field="Origin")
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return problem(400, "The body is no JSON object.", field="body", allowed="a JSON object")
    if unknown := sorted(set(body) - {_FIELDS.get(action, "")}):
        raise BadRequestError(str(unknown[0])[:60], "This field is not known.",
                              _FIELDS.get(action, "no fields"))  # fmt: skip
    user = request.user if request.user.is_authenticated else None
    try:
        act(number, body, user)
    except Incident.DoesNotExist:
        return _unknown()
    except ActionError as error:
        status = 409 if error.field == "state" else 400
        return problem(status, error.message, field=error.field, allowed=error.allowed)
    incident = _with_people(number)
    return _unknown() if incident is None else JsonResponse(incidents.as_json(incident))


def _with_people(number: int) -> Incident | None:
    return found.with_people(Incident.objects.filter(pk=number)).first()


def _unknown() -> JsonResponse:
    return problem(404, "No incident has this number.", field="number")


def _assign(number: int, body: Body, user: incidents.Actor) -> Incident:
    name = _field(body, "to", "a user's name, or null")
    if name is None:
        return incidents.assign(number, None, user)
    person = User.objects.filter(
        username=str(name)[:150].replace("\x00", ""), is_active=True
    ).first()
    if person is None:
        raise BadRequestError("to", "There is no such user.", "the name of an active user, or null")
    return incidents.assign(number, person, user)


def _comment(number: int, body: Body, user: incidents.Actor) -> Incident:
    text = _field(body, "text", "text")
    if not isinstance(text, str):
        raise BadRequestError(
            "text", "This is no text.", f"1 to {incidents.LONGEST_COMMENT} characters"
        )
    return incidents.comment(number, text, user)


def _merge(number: int, body: Body, user: incidents.Actor) -> Incident:
    into = _field(body, "into", "the number of an incident")
    if isinstance(into, bool) or not isinstance(into, int) or not 0 < into < 2**63:
        raise BadRequestError("into", "This is no number of an incident.", "a whole number")
    return incidents.merge(number, into, user)


def _snooze(number: int, body: Body, user: incidents.Actor) -> Incident:
    given = _field(body, "until", "ISO 8601 with a zone, minutes from now, or null")
    if given is None:
        return incidents.snooze(number, None, user)
    if isinstance(given, int | float) and not isinstance(given, bool):
        if not 0 < given <= incidents.LONGEST_SNOOZE.total_seconds() / 60:
            raise BadRequestError("until", "So many minutes are not allowed.", "1 to 43200")
        return incidents.snooze(number, timezone.now() + timedelta(minutes=given), user)
    until = moment("until", str(given) or "nothing")
    return incidents.snooze(number, until, user)


def _label(number: int, body: Body, user: incidents.Actor) -> Incident:
    given = _field(body, "label", ", ".join([*LABELS, "null"]))
    if given is not None and given not in LABELS:
        raise BadRequestError("label", "This is no label.", ", ".join([*LABELS, "null"]))
    return incidents.label(number, given or "", user)


def _field(body: Body, name: str, allowed: str) -> Any:
    if name not in body:
        raise BadRequestError(name, "This field is missing.", allowed)
    return body[name]


_FIELDS = {"assign": "to", "comment": "text", "merge": "into", "snooze": "until", "label": "label"}
_ACTIONS: dict[str, Act] = {
    "acknowledge": lambda number, _, user: incidents.acknowledge(number, user),
    "resolve": lambda number, _, user: incidents.resolve(number, user),
    "reopen": lambda number, _, user: incidents.reopen(number, user),
    "assign": _assign,
    "comment": _comment,
    "merge": _merge,
    "snooze": _snooze,
    "label": _label,
}
