"""The page of one line, and its card of training, which asks for itself again and again."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from detection import line_page
from detection.catalogue import STAGE_NAMES
from streams.roles import may_operate


@login_required
@require_GET
def line(request: HttpRequest, pk: int) -> HttpResponse:
    """Everything of the line that a version belongs to, at once."""
    context = line_page.page_context(_line(pk), timezone.now())
    return render(request, "detection/line.html", context | _of(request))


@login_required
@require_GET
def line_run(request: HttpRequest, pk: int) -> HttpResponse:
    """The card of training; the versions too once a run that was active has ended."""
    found = _line(pk)
    context = line_page.run_context(found, timezone.now()) | _of(request)
    if request.GET.get("active") == "1" and not context["active"]:
        context |= line_page.versions_context(found) | {"swap": True}
    return render(request, "detection/_line_run.html", context)


def _line(pk: int) -> line_page.Line:
    found = line_page.line_with(pk)
    if found is None:
        raise Http404(f"There is no version {pk}, so no line of it.")
    return found


def _of(request: HttpRequest) -> dict[str, object]:
    return {"operator": may_operate(request.user), "stages": STAGE_NAMES}
