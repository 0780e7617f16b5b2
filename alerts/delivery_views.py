"""Pages of deliveries: what went out, to whom, how each try ended; the dead ones again."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_GET, require_POST

from alerts import delivery, wording
from alerts.models import Notification, Receiver
from streams import audit
from streams.audit import Action
from streams.roles import may_operate, operator_required

PAGE = 50
MOST_AT_ONCE = 1_000
TAGS = {"sent": "ok", "dead": "bad", "sending": "accent", "waiting": "warn"}
Rows = QuerySet[Notification, Notification]


@login_required
@require_GET
def delivery_list(request: HttpRequest) -> HttpResponse:
    """The newest first, by state, receiver and reason."""
    given = {name: request.GET.get(name, "") for name in ("state", "receiver", "reason")}
    rows = _chosen(given).select_related("receiver", "incident")
    before = request.GET.get("before", "")
    try:
        moment = parse_datetime(before) if before else None
    except ValueError:
        moment = None
    if moment is not None and moment.tzinfo is not None:
        rows = rows.filter(created_at__lt=moment)
    found = list(rows.order_by("-created_at")[: PAGE + 1])
    counts = dict(
        Notification.objects.filter(state__in=("dead", "waiting", "sending"))
        .order_by().values_list("state").annotate(n=Count("id"))
    )  # fmt: skip
    context = {
        "rows": [(row, TAGS.get(row.state, "")) for row in found[:PAGE]], "given": given,
        "older": found[PAGE - 1].created_at.isoformat() if len(found) > PAGE else None,
        "states": Notification.State.choices, "reasons": Notification.Reason.choices,
        "receivers": Receiver.objects.order_by("name"), "dead": counts.get("dead", 0),
        "waiting": counts.get("waiting", 0) + counts.get("sending", 0),
        "operator": may_operate(request.user),
    }  # fmt: skip
    part = request.headers.get("HX-Target") == "deliveries"
    name = "_deliveries.html" if part else "delivery_list.html"
    return render(request, f"alerts/{name}", context)


@login_required
@require_GET
def delivery_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    """One notification: its words, and each try."""
    rows = Notification.objects.select_related("receiver", "incident", "rule_version__rule")
    row = get_object_or_404(rows, pk=pk)
    message = wording.message_of(row)
    context: dict[str, Any] = {
        "row": row, "tag": TAGS.get(row.state, ""), "subject": message.subject,
        "body": message.body, "tries": row.tries.order_by("-number")[:100],
        "operator": may_operate(request.user), "active": row.state in ("waiting", "sending"),
        "can_resend": row.state in ("dead", "cancelled"), "now": timezone.now(),
    }  # fmt: skip
    part = request.headers.get("HX-Target") == "delivery"
    return render(request, f"alerts/{'_delivery' if part else 'delivery'}.html", context)


@require_POST
@operator_required
def delivery_resend(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Send one again that was given up or cancelled."""
    row = get_object_or_404(Notification.objects.select_related("receiver"), pk=pk)
    if delivery.resend(row, timezone.now()):
        audit.record(request.user, Action.ACTED, row, after={"sent_again": True})
        messages.success(request, "It is sent again, under the same key.")
    else:
        messages.warning(
            request, f"It is {row.get_state_display().lower()}: nothing to send again."
        )
    return redirect("delivery", pk=pk)


@require_POST
@operator_required
def deliveries_resend(request: HttpRequest) -> HttpResponseBase:
    """Send all dead ones again, of one receiver or of all."""
    rows = _chosen({"state": "dead", "receiver": request.POST.get("receiver", ""), "reason": ""})
    now, done = timezone.now(), 0
    for row in rows.order_by("created_at")[:MOST_AT_ONCE]:
        done += delivery.resend(row, now)
    if done:
        messages.success(request, f"{done} sent again, each under its own key.")
    else:
        messages.warning(request, "There was nothing to send again.")
    return redirect("deliveries")


def _chosen(given: dict[str, str]) -> Rows:
    rows: Rows = Notification.objects.all()
    if given["state"] in Notification.State.values:
        rows = rows.filter(state=given["state"])
    if given["reason"] in Notification.Reason.values:
        rows = rows.filter(reason=given["reason"])
    number = given["receiver"]
    if number.isascii() and number.isdigit() and len(number) < 18:
        rows = rows.filter(receiver_id=int(number))
    return rows
