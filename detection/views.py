"""Models: what was trained, from what, and which one serves."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET

from detection.drift import drift_context
from detection.models import ModelVersion, TrainingRun
from detection.shadow import shadow_context


@login_required
@require_GET
def model_list(request: HttpRequest) -> HttpResponse:
    versions = ModelVersion.objects.select_related("stream", "run").defer("artefact")
    runs = TrainingRun.objects.select_related("stream").order_by("-started_at")
    context = {"versions": versions.order_by("-created_at")[:100], "runs": runs[:20]}
    return render(request, "detection/model_list.html", context)


@login_required
@require_GET
def model_shadow(request: HttpRequest, pk: int) -> HttpResponse:
    """A version beside the champion: where the two differ, and what the gate says."""
    model = _version(pk)
    context = {"model": model, "title": "Challenger", "part": "detection/_shadow.html"}
    shadow = {"shadow": shadow_context(model)}
    return render(request, "detection/model_part.html", context | shadow)


@login_required
@require_GET
def model_drift(request: HttpRequest, pk: int) -> HttpResponse:
    """How far live events have moved from those that a version was trained on."""
    model = _version(pk)
    context = {"model": model, "title": "Drift", "part": "detection/_drift.html"}
    return render(request, "detection/model_part.html", context | {"drift": drift_context(model)})


def _version(pk: int) -> ModelVersion:
    rows = ModelVersion.objects.select_related("stream").defer("artefact")
    return get_object_or_404(rows, pk=pk)
