"""Silences and maintenance windows: the list, the form with its preview, ending and copying."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from alerts import rehearsal, silence_form, silences
from alerts.models import Silence
from alerts.silence_form import SilenceForm
from streams.roles import may_operate, operator_required

SHOWN = 8
ORDER = {"active": 0, "coming": 1, "off": 2, "over": 3}


@login_required
@require_GET
def silence_list(request: HttpRequest) -> HttpResponse:
    """All silences: those that hold now first, then by their next window."""
    now = timezone.now()
    rows = [(row, silences.standing(row, now, 1)) for row in Silence.objects.order_by("-pk")[:500]]
    rows.sort(key=lambda pair: (ORDER[pair[1].state],
                                pair[1].coming[0].start if pair[1].coming else now))  # fmt: skip
    context = {"rows": rows, "operator": may_operate(request.user)}
    return render(request, "alerts/silence_list.html", context)


@login_required
@require_GET
def silence_edit(request: HttpRequest, pk: int | None = None) -> HttpResponse:
    """The form of a stored silence or of a new one."""
    row = get_object_or_404(Silence, pk=pk) if pk is not None else None
    now = timezone.now()
    form = silence_form.of_row(row) if row else silence_form.empty(now, request.GET)
    if (copied := request.GET.get("copy", "")).isdecimal() and row is None:
        form = silence_form.of_row(get_object_or_404(Silence, pk=int(copied[:12])))
        form.values["name"] = f"{form.values['name'][:130]} copy"
        form.row = None
    return render(request, "alerts/silence_edit.html", _context(request, row, form))


@require_POST
@operator_required
def silence_save(request: HttpRequest, pk: int | None = None) -> HttpResponseBase:
    """Store it; what is wrong is said at its field."""
    row = get_object_or_404(Silence, pk=pk) if pk is not None else None
    form = silence_form.of_post(request.POST, row)
    if form.row is None:
        context = _context(request, row, form)
        return render(request, "alerts/silence_edit.html", context, status=400)
    silences.save(form.row, request.user, silences.facts(row) if row else None)
    messages.success(request, f"{form.row.name} is saved.")
    return redirect("silences")


@require_POST
@login_required
def silence_preview(request: HttpRequest, pk: int | None = None) -> HttpResponse:
    """What the form, as it stands, would have hidden, and what it means now."""
    row = get_object_or_404(Silence, pk=pk) if pk is not None else None
    form = silence_form.of_post(request.POST, row)
    return render(request, "alerts/_silence_preview.html", _context(request, row, form) | {
        "swap": True} | _preview(form))  # fmt: skip


@require_POST
@operator_required
def silence_end(request: HttpRequest, pk: int) -> HttpResponseBase:
    """End it now: what still fires is told within seconds."""
    row = get_object_or_404(Silence, pk=pk)
    silences.end_now(row, request.user)
    messages.success(request, f"{row.name} has ended. What still fires is told within seconds.")
    return redirect("silences")


@require_POST
@operator_required
def silence_switch(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Switch it on again, or off."""
    row = get_object_or_404(Silence, pk=pk)
    before = silences.facts(row)
    row.enabled = request.POST.get("on") == "1"
    silences.save(row, request.user, before)
    messages.success(request, f"{row.name} is {'on' if row.enabled else 'off'}.")
    return redirect("silences")


def _context(request: HttpRequest, row: Silence | None, form: SilenceForm) -> dict[str, Any]:
    now = timezone.now()
    return {
        "silence": row, "form": form, "choices": silence_form.choices(),
        "fields": silence_form.FIELDS, "operator": may_operate(request.user), "now": now,
        "standing": silences.standing(row, now) if row else None,
    }  # fmt: skip


def _preview(form: SilenceForm) -> dict[str, Any]:
    if form.row is None:
        return {}
    # What is switched off is previewed as if it were on.
    one = silences.quiet(form.row)
    found = rehearsal.of_silence(one)
    return {
        "found": found, "hidden": found.hidden[:SHOWN],
        "coming": one.recurrence.coming(timezone.now(), 4),
    }  # fmt: skip
