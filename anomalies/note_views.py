"""Writing, changing and deleting notes of an anomaly: by htmx in their card, or page by page."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from anomalies import notes
from anomalies.htmx import HtmxRequest
from anomalies.models import Anomaly, Note
from streams.roles import operator_required


@require_POST
@operator_required
def note_add(request: HtmxRequest, pk: UUID) -> HttpResponseBase:
    anomaly, text = get_object_or_404(Anomaly, pk=pk), request.POST.get("text", "")
    try:
        notes.add(anomaly, text, request.user.pk)
    except notes.NoteError as error:
        return _answer(request, anomaly, problem=str(error), draft=text)
    return _answer(request, anomaly)


@require_POST
@operator_required
def note_change(request: HtmxRequest, pk: int) -> HttpResponseBase:
    note, text = _own(request, pk), request.POST.get("text", "")
    try:
        notes.change(note, text)
    except notes.NoteError as error:
        return _answer(request, note.anomaly, problem=str(error), edited=str(pk))
    return _answer(request, note.anomaly)


@require_POST
@operator_required
def note_delete(request: HtmxRequest, pk: int) -> HttpResponseBase:
    note = _own(request, pk)
    anomaly = note.anomaly
    note.delete()
    return _answer(request, anomaly)


def _own(request: HtmxRequest, pk: int) -> Note:
    note = notes.own(pk, request.user)
    if note is None:
        raise Http404("This note is gone, or somebody else's.")
    return note


def _answer(request: HtmxRequest, anomaly: Anomaly, **more: Any) -> HttpResponseBase:
    if request.htmx:
        context = {"anomaly": anomaly, "notes": notes.of(anomaly), "operator": True} | more
        return render(request, "anomalies/_partials/notes.html", context)
    if problem := more.get("problem"):
        messages.error(request, problem)
    return redirect("anomaly", pk=anomaly.pk)
