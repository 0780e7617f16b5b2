"""Where one-click links lead: GET shows what would happen, POST does it; no login, one incident."""

from __future__ import annotations

from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from alerts import incidents, links
from alerts.errors import ActionError
from alerts.models import Incident

PER_MINUTE = 30
"""Of one address and one web process."""


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def link_view(request: HttpRequest, token: str) -> HttpResponse:
    """The page behind a link of a notification."""
    if _too_many(request):
        return _page(request, {"refused": "Too many requests: try again in a minute."}, 429)
    try:
        link = links.read(token)
        incident = Incident.objects.select_related("rule").get(pk=link.incident)
    except links.LinkError as error:
        return _page(request, {"refused": str(error)}, 400)
    except Incident.DoesNotExist:
        return _page(request, {"refused": "This incident is not there any more."}, 404)
    words, effect = links.ACTIONS[link.action]
    context = {"incident": incident, "words": words, "effect": effect,
               "severity": incident.get_severity_display()}  # fmt: skip
    if request.method != "POST":
        return _page(request, context)
    try:
        if link.action == "ack":
            done = incidents.acknowledge(incident.pk, None)
        else:
            done = incidents.label(incident.pk, links.LABELS[link.action], None)
    except ActionError as error:
        return _page(request, context | {"refused": str(error)}, 409)
    return _page(request, context | {"incident": done, "done": True})


def _page(request: HttpRequest, context: dict[str, object], status: int = 200) -> HttpResponse:
    response = render(request, "alerts/link.html", context, status=status)
    # The address is a key: it must not travel on, nor be found by a search.
    response["Referrer-Policy"] = "no-referrer"
    response["X-Robots-Tag"] = "noindex, nofollow"
    return response


def _too_many(request: HttpRequest) -> bool:
    key = f"alerts.links.{request.META.get('REMOTE_ADDR', '')}"
    if cache.add(key, 1, 60):
        return False
    try:
        return cache.incr(key) > PER_MINUTE
    except ValueError:
        return False
