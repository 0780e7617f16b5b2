"""Pages of receivers: list with health, a form for each kind, tests, previews of templates."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.db.models import Count, Q
from django.db.models.deletion import ProtectedError
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from alerts import delivery, texts, wording
from alerts.models import Hours, Notification, Receiver, Team
from alerts.receiver_form import ReceiverForm, facts, secrets_of
from alerts.receivers import KINDS
from streams import audit
from streams.audit import Action
from streams.roles import may_operate, operator_required

Kind = Receiver.Kind


@login_required
@require_GET
def receiver_list(request: HttpRequest) -> HttpResponse:
    """All receivers with what is wrong with them."""
    now = timezone.now()
    waiting = Count("notifications", filter=Q(notifications__state__in=("waiting", "sending")))
    dead = Count("notifications", filter=Q(notifications__state="dead"))
    rows = Receiver.objects.select_related("team").annotate(waiting=waiting, dead=dead)
    found = [(row, health(row, now)) for row in rows.order_by("name")]
    context = {"rows": found, "kinds": _kinds(), "operator": may_operate(request.user)}
    return render(request, "alerts/receiver_list.html", context)


@require_http_methods(["GET", "POST"])
@operator_required
def receiver_new(request: HttpRequest, kind: str) -> HttpResponseBase:
    """The form of a kind, and a new receiver by it."""
    if kind not in KINDS:
        raise Http404("There is no such kind of receiver.")
    if request.method == "POST":
        return _save(request, ReceiverForm.posted(kind, None, request.POST.dict()))
    return _form(request, ReceiverForm.of(kind))


@login_required
@require_http_methods(["GET", "POST"])
def receiver_edit(request: HttpRequest, pk: int) -> HttpResponseBase:
    """One receiver; operators change it."""
    row = get_object_or_404(Receiver, pk=pk)
    if row.kind not in KINDS:
        raise Http404("This kind of receiver is not known any more.")
    if request.method == "POST":
        return _change(request, row)
    return _form(request, ReceiverForm.of(row.kind, row))


@operator_required
def _change(request: HttpRequest, row: Receiver) -> HttpResponseBase:
    return _save(request, ReceiverForm.posted(row.kind, row, request.POST.dict()))


@require_POST
@operator_required
def receiver_delete(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Delete one, with what it was sent: asked for by its name."""
    row = get_object_or_404(Receiver, pk=pk)
    if request.POST.get("name", "").strip() != row.name:
        messages.error(request, "Not deleted: the name is not the receiver's.")
        return redirect("receiver", pk=pk)
    try:
        with transaction.atomic():
            audit.record(request.user, Action.DELETED, row, facts(row), None)
            row.delete()
    except ProtectedError:
        messages.error(request, "Not deleted: something needs it.")
        return redirect("receiver", pk=pk)
    messages.success(request, f"{row.name} is deleted.")
    return redirect("receivers")


@require_POST
@operator_required
def receiver_test(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Send a test; the page that follows tells how it ended."""
    row = get_object_or_404(Receiver, pk=pk)
    note = delivery.send_test(row, request.user.get_username(), timezone.now())
    audit.record(request.user, Action.ACTED, row, after={"test": str(note.pk)})
    return redirect("delivery", pk=note.pk)


@require_POST
@operator_required
def template_preview(request: HttpRequest) -> HttpResponse:
    """What two templates would give for an example, or for an incident's latest notification."""
    subject = request.POST.get("subject_template", "").replace("\r\n", "\n")
    body = request.POST.get("body_template", "").replace("\r\n", "\n")
    errors: dict[str, str] = {}
    shown = {"subject": "", "body": ""}
    row = _example(request.POST.get("notification", ""))
    for name, source in (("subject", subject), ("body", body)):
        pair = (source, "") if name == "subject" else ("", source)
        try:
            shown[name] = wording.previewed(*pair, row)[0 if name == "subject" else 1]
        except texts.TextError as error:
            errors[name] = str(error)
    return render(request, "alerts/_template_preview.html", {"shown": shown, "errors": errors})


def health(row: Receiver, now: Any) -> tuple[str, str]:
    """(kind of tag, words) of how a receiver does."""
    if not row.enabled:
        return "", "switched off"
    if row.failures_in_a_row >= delivery.BREAKS_AFTER:
        return "bad", f"broken, {row.failures_in_a_row} failures in a row"
    if row.closed_until is not None and row.closed_until > now:
        return "warn", "told to slow down"
    if row.last_error:
        return "warn", "last one failed"
    return ("ok", "works") if row.last_ok_at else ("", "not used yet")


def _example(given: str) -> Notification:
    try:
        rows = Notification.objects.select_related("incident", "receiver")
        found = rows.filter(pk=UUID(given), incident__isnull=False).first() if given else None
    except ValueError:
        found = None
    return found or wording.sample(None)


def _save(request: HttpRequest, form: ReceiverForm) -> HttpResponse:
    kept = secrets_of(form.receiver) if form.receiver else {}
    before = facts(form.receiver) if form.receiver else None
    with transaction.atomic():
        row = form.save()
        if row is not None:
            action = Action.CHANGED if before else Action.CREATED
            now = secrets_of(row)
            changed = {name for name in now if before and now[name] != kept.get(name)}
            audit.record(request.user, action, row, before, facts(row, changed))
    if row is None:
        return _form(request, form, status=400)
    messages.success(request, f"{row.name} is saved. Send a test to see whether it arrives.")
    return redirect("receiver", pk=row.pk)


def _form(request: HttpRequest, form: ReceiverForm, status: int = 200) -> HttpResponse:
    row = form.receiver
    context: dict[str, Any] = {
        "form": form, "receiver": row, "kind": KINDS[form.kind], "label": Kind(form.kind).label,
        "teams": Team.objects.order_by("name"), "hours": Hours.objects.order_by("name"),
        "operator": may_operate(request.user), "usual_subject": wording.SUBJECT,
        "usual_body": wording.BODY, "names": wording.NAMES,
    }  # fmt: skip
    if row is not None and row.pk:
        context["health"] = health(row, timezone.now())
        context["recent"] = row.notifications.select_related("incident").order_by("-created_at")[:8]
    return render(request, "alerts/receiver_form.html", context, status=status)


def _kinds() -> list[tuple[str, str, str]]:
    return [(name, str(Kind(name).label), kind.about) for name, kind in KINDS.items()]
