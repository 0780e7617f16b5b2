"""The pages of System: what runs, and why there may be no anomalies."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from config.system import diagnostics, figures, jobs
from config.system.effective import effective
from config.system.servers import libraries, servers
from config.system.stages import check_all, missing
from streams.roles import may_operate


@login_required
@require_GET
def system(request: HttpRequest) -> HttpResponse:
    """Everybody sees what runs and how fast; operators see places and settings as well."""
    now = timezone.now()
    running = jobs.processes(now)
    versions = jobs.versions(running)
    context: dict[str, Any] = {
        "running": running, "mixed": len(versions) > 1, "servers": servers(),
        "libraries": libraries(), "jobs": jobs.jobs(now), "figures": figures.figures(now),
        "queues": figures.queues(), "tables": figures.tables(settings.VIGIL.retention),
        "operator": may_operate(request.user),
    }  # fmt: skip
    if context["operator"]:
        context["settings"] = effective(settings.VIGIL, settings.VIGIL_ORIGINS)
    return render(request, "system/system.html", context)


@login_required
@require_GET
def why_none(request: HttpRequest) -> HttpResponse:
    """Each stage of an event's way, and the first thing that is missing."""
    parts = check_all(settings.VIGIL, timezone.now())
    checks = [check for _, found in parts for check in found]
    context = {
        "parts": parts, "first": missing(parts), "at": timezone.now(),
        "good": sum(check.state == "ok" for check in checks), "of": len(checks),
    }  # fmt: skip
    return render(request, "system/why_none.html", context)


@login_required
@require_GET
def diagnostics_text(request: HttpRequest) -> HttpResponse:
    """Fetched when asked for: it looks at every stage."""
    if not may_operate(request.user):
        return HttpResponse("Only operators and admins may read this.", status=403)
    now = timezone.now()
    parts = check_all(settings.VIGIL, now)
    said = diagnostics.text(
        now, servers(), jobs.processes(now), figures.figures(now), figures.queues(),
        [check for _, found in parts for check in found],
        effective(settings.VIGIL, settings.VIGIL_ORIGINS),
    )  # fmt: skip
    return render(request, "system/diagnostics.html", {"text": said})
