"""Alertmanagers that send us alerts: their tokens, and what came from each."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import IntegrityError, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from alerts import inbound
from alerts.machine import FOREIGN, fits
from alerts.models import InboundAlert, InboundSource, Rule
from alerts.rules import live_spec
from streams import audit
from streams.audit import Action
from streams.roles import may_operate, operator_required

NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
SHOWN = 20
KEPT = ("token_hash", "last_at", "alerts", "own", "created_at")
"""Of no concern to the audit; the hash is a secret's."""


@login_required
@require_GET
def inbound_list(request: HttpRequest) -> HttpResponse:
    """All sources, and how to set one up."""
    return render(request, "alerts/inbound_list.html", _list(request))


@require_POST
@operator_required
def inbound_new(request: HttpRequest) -> HttpResponseBase:
    """A new source; its token is shown this once."""
    name = request.POST.get("name", "").strip()
    source = InboundSource(name=name)
    wrong = "" if NAME.fullmatch(name) else "1 to 60 letters, digits, hyphens and underscores."
    token = ""
    if not wrong:
        token = inbound.new_token(source)
        try:
            with transaction.atomic():
                source.save()
                inbound.ensure_rule(request.user)
                audit.record(request.user, Action.CREATED, source, None, _facts(source))
        except IntegrityError:
            wrong = "There is a source of that name already."
    if wrong:
        context = _list(request) | {"wrong": wrong, "name": name[:100]}
        return render(request, "alerts/inbound_list.html", context, status=400)
    return _shown(request, source, token)


@login_required
@require_GET
def inbound_source(request: HttpRequest, pk: int) -> HttpResponse:
    """One source: what came lately, which rules take it, how to set it up."""
    return _shown(request, get_object_or_404(InboundSource, pk=pk))


@require_POST
@operator_required
def inbound_act(request: HttpRequest, pk: int, action: str) -> HttpResponseBase:
    """Give it another token, switch it on or off, or delete it."""
    source = get_object_or_404(InboundSource, pk=pk)
    before, token = _facts(source), ""
    with transaction.atomic():
        match action:
            case "renew":
                token = inbound.new_token(source)
            case "on" | "off":
                source.enabled = action == "on"
            case "delete":
                audit.record(request.user, Action.DELETED, source, before, None)
                source.delete()
                messages.success(request, f"{source.name} is deleted: its token is worth nothing.")
                return redirect("inbound")
            case _:
                raise Http404("There is no such action.")
        source.save()
        audit.record(request.user, Action.CHANGED, source, before, _facts(source))
    if token:
        return _shown(request, source, token)
    messages.success(request, f"{source.name} is {'on' if source.enabled else 'off'}.")
    return redirect("inbound-source", pk=pk)


def _list(request: HttpRequest) -> dict[str, Any]:
    return {
        "sources": InboundSource.objects.order_by("name"), "operator": may_operate(request.user),
        "address": _address(request),
    }  # fmt: skip


def _shown(request: HttpRequest, source: InboundSource, token: str = "") -> HttpResponse:
    alerts = InboundAlert.objects.filter(source=source).select_related("anomaly")
    context = {
        "source": source, "token": token, "address": _address(request),
        "operator": may_operate(request.user), "rules": _rules(source),
        "open": alerts.filter(ends_at=None).count(),
        "latest": [(a, a.labels.get("alertname", "alert")) for a in alerts.order_by("-pk")[:SHOWN]],
        "stream": f"{FOREIGN}{source.name}",
    }  # fmt: skip
    response = render(request, "alerts/inbound_source.html", context)
    response["Cache-Control"] = "no-store"
    return response


def _rules(source: InboundSource) -> list[Rule]:
    """Rules that count and mean its alerts by naming its stream."""
    found = []
    for rule in Rule.objects.filter(enabled=True).exclude(live=None).select_related("live"):
        spec = live_spec(rule)
        if spec is not None and any(fits(p, f"{FOREIGN}{source.name}") for p in spec.match.streams):
            found.append(rule)
    return found


def _facts(source: InboundSource) -> dict[str, Any]:
    return audit.facts(source, KEPT)


def _address(request: HttpRequest) -> str:
    path = reverse("api-alertmanager")
    public = settings.VIGIL.dashboard.public_url
    return f"{str(public).rstrip('/')}{path}" if public else request.build_absolute_uri(path)
