"""The search page, and its answers while one types."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from anomalies.htmx import HtmxRequest, wants_part
from config import search


@login_required
@require_GET
def search_page(request: HtmxRequest) -> HttpResponse:
    text = request.GET.get("q", "").replace("\x00", "")[: search.LONGEST]
    part = wants_part(request)
    groups = search.find(text, request.user, 4 if part else 20)
    context = {"q": text, "groups": groups, "found": sum(len(g.hits) for g in groups), "part": part}
    name = "search/_hits.html" if part else "search/search.html"
    return render(request, name, context)
