"""The audit: who changed what, field by field, and taking a change back."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from alerts import audit_log, audit_words, reverting
from alerts.audit_words import DOORS, KINDS
from alerts.models import Hours, InboundSource, Notification, Receiver, Rule, Silence, Team
from alerts.undo import RevertError
from detection.models import ModelVersion, ThresholdPolicy
from streams.models import AuditEntry
from streams.roles import REFUSAL, may_operate

PAGES: dict[str, tuple[Any, str]] = {
    "alerts.Rule": (Rule, "rule"), "alerts.Silence": (Silence, "silence"),
    "alerts.Receiver": (Receiver, "receiver"), "alerts.Hours": (Hours, "hours"),
    "alerts.Team": (Team, "team"), "alerts.Notification": (Notification, "delivery"),
    "alerts.InboundSource": (InboundSource, "inbound-source"),
    "detection.ModelVersion": (ModelVersion, "model"),
    "detection.ThresholdPolicy": (ThresholdPolicy, "admin:detection_thresholdpolicy_change"),
}  # fmt: skip
"""What has a page of its own, and its name."""
LATER = 20


@login_required
@require_GET
def audit_list(request: HttpRequest) -> HttpResponse:
    """All changes, the newest first; htmx gets the table alone."""
    given = audit_log.Filter.of(request.GET)
    page = audit_log.page_of(given, request.GET.get("before", ""), request.GET.get("after", ""))
    context = {
        "given": given, "page": page, "kinds": [("", "anything"), *KINDS.items()],
        "people": [("", "anybody"), *((n, n) for n in audit_log.people())],
        "doors": [("", "any way"), *DOORS.items()], "ranges": audit_log.RANGES,
        "rows": [
            (row, audit_words.kind_word(row.kind), audit_words.sentence(row), DOORS.get(row.via))
            for row in page.rows
        ],
    }  # fmt: skip
    part = request.headers.get("HX-Request") == "true" and "HX-Boosted" not in request.headers
    return render(request, f"alerts/{'_audit_table' if part else 'audit_list'}.html", context)


@login_required
@require_GET
def audit_entry(request: HttpRequest, pk: int) -> HttpResponse:
    """One change field by field, and what taking it back would do."""
    return _shown(request, _entry(pk))


@require_POST
@login_required
def audit_revert(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Take a change back, as it was shown."""
    entry = _entry(pk)
    if not reverting.may(entry, request.user):
        raise PermissionDenied(REFUSAL)
    try:
        done = reverting.take_back(
            entry, request.user, request.POST.get("seen", ""), "anyway" in request.POST
        )
    except RevertError as error:
        return _shown(request, entry, str(error), 409)
    messages.success(request, f"{entry.object_name}: the change is taken back.")
    if done.page is None:
        return redirect("audit-entry", pk=pk)
    return redirect(done.page[0], done.page[1])


def _shown(
    request: HttpRequest, entry: AuditEntry, refused: str = "", status: int = 200
) -> HttpResponse:
    context: dict[str, Any] = {
        "entry": entry, "kind": audit_words.kind_word(entry.kind), "refused": refused,
        "changes": audit_words.changes_of(entry), "sentence": audit_words.sentence(entry, 10),
        "door": DOORS.get(entry.via, entry.via), "may": reverting.may(entry, request.user),
        "later": [(row, audit_words.sentence(row)) for row in audit_log.later(entry)[:LATER]],
        "taken_back": entry.reverted_by.order_by("pk").first(), "page": _page_of(entry, request),
        "reason": (entry.after or {}).get("reason") if isinstance(entry.after, dict) else None,
    }  # fmt: skip
    try:
        context["plan"] = reverting.plan(entry)
    except RevertError as error:
        context["why_not"] = str(error)
    return render(request, "alerts/audit_entry.html", context, status=status)


def _entry(pk: int) -> AuditEntry:
    return get_object_or_404(AuditEntry.objects.select_related("reverts"), pk=pk)


def _page_of(entry: AuditEntry, request: HttpRequest) -> str | None:
    """Where the thing itself is shown; None where it is gone or has no page."""
    model, name = PAGES.get(entry.kind, (None, ""))
    if model is None or not model.objects.filter(pk=entry.object_id).exists():
        return None
    if name.startswith("admin:") and not may_operate(request.user):
        return None
    return reverse(name, args=[entry.object_id])
