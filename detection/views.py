"""Models: what was trained, from what, and which one serves."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from detection.models import ModelVersion, TrainingRun


@login_required
@require_GET
def model_list(request: HttpRequest) -> HttpResponse:
    versions = ModelVersion.objects.select_related("stream", "run").defer("artefact")
    runs = TrainingRun.objects.select_related("stream").order_by("-started_at")
    context = {"versions": versions.order_by("-created_at")[:100], "runs": runs[:20]}
    return render(request, "detection/model_list.html", context)
