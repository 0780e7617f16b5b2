"""The pages of series: list, one series with its parts, and a threshold saved from there.

The page answers with its chart; threshold, season and facts come as parts after it, or at once with
`whole=1`, which is what browsers without scripts are led to.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AbstractUser, AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from anomalies import (
    own_policy,
    proposals,
    series_chart,
    series_facts,
    series_list,
    units,
    what_if,
)
from anomalies.series_chart import View
from detection.models import ThresholdPolicy
from streams import history, season
from streams.beats import heartbeat
from streams.models import AuditEntry, Series
from streams.ranges import from_epoch
from streams.roles import may_operate, operator_required
from streams.silence import silent_for_s


def _series(pk: int) -> Series:
    if pk >= 2**63:
        raise Http404("No series has this number.")
    return get_object_or_404(Series.objects.select_related("stream"), pk=pk)


def _is_part(request: HttpRequest) -> bool:
    """Whether htmx asks for a part, and not for a page to go to."""
    return "HX-Request" in request.headers and "HX-Boosted" not in request.headers


# ---- The list -----------------------------------------------------------------------------------
@login_required
@require_GET
def listing(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    question = series_list.Question.of(request.GET)
    page = series_list.page_of(question, now)
    context = {
        "question": question, "page": page, "streams": series_list.streams(),
        "states": series_list.STATES, "ranges": series_list.RANGES,
        "sorts": list(series_list.SORTS.items()), "warm_up": series_list.WARM_UP,
        "sparks": history.sparks([row.series for row in page.rows]),
        "units": {row.series.pk: units.unit_of(row.series.metric) for row in page.rows},
    }  # fmt: skip
    name = "_partials/series_table.html" if _is_part(request) else "series_list.html"
    return render(request, f"anomalies/{name}", context)


# ---- One series ---------------------------------------------------------------------------------
@login_required
@require_GET
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    series, now = _series(pk), timezone.now()
    view = series_chart.view_of(series, request.GET, now)
    context = _charted(request, series, view)
    if _is_part(request) and request.headers.get("HX-Target") == "chart":
        return render(request, "anomalies/_partials/series_range.html", context)
    context |= {
        "operator": may_operate(request.user), "latest": own_policy.latest(series, now),
        "silent_s": silent_for_s(series, now), "whole": request.GET.get("whole") == "1",
        "warm_up": series_list.WARM_UP, "parts": request.GET.urlencode(),
        "silence_for": f"{own_policy.pattern_of(series.source)} / "
                       f"{own_policy.pattern_of(series.metric)}",
    }  # fmt: skip
    if (changed := context["latest"]) is not None:
        scope = "series" if own_policy.is_own(changed.policy, series) else "wide"
        context["may_undo"] = may_save(request.user, scope)
    if context["whole"]:
        for part in PARTS.values():
            context |= part(request, series)
    return render(request, "anomalies/series_detail.html", context)


def _charted(request: HttpRequest, series: Series, view: View) -> dict[str, Any]:
    now = timezone.now()
    beats = heartbeat(series, view.span, now)
    policy = own_policy.counting(series)
    draft, drafted = what_if.draft_of(policy, request.GET)
    context = series_chart.chart(series, view, beats, now)
    context["chart"] |= {
        "draft": _draft_json(draft) if drafted else None, "present": policy.threshold,
        "levels": what_if.ALL_LEVELS, "unit": units.unit_of(series.metric),
    }  # fmt: skip
    return context | {
        "series": series, "span": view.span, "view": view, "beats": beats, "policy": policy,
        "draft": draft, "drafted": drafted, "windows": series_chart.WINDOW_WORDS, "now": now,
        "unit": units.unit_of(series.metric), "poll": view.live,
        "marks": _axis(view), "severities": sorted({a.severity for a in context["anomalies"]}),
        "listed": {"start": series_chart.iso(view.span.start),
                   "end": series_chart.iso(view.span.end)},
    }  # fmt: skip


def _axis(view: View) -> list[Any]:
    """Moments that stand under the heartbeat strip."""
    step = (view.span.end - view.span.start) / 6
    return [view.span.start + i * step for i in range(6)]


def _draft_json(draft: what_if.Draft) -> dict[str, Any]:
    return {"threshold": draft.threshold, "direction": draft.direction, "least": draft.least}


@login_required
@require_GET
def part(request: HttpRequest, pk: int, name: str) -> HttpResponseBase:
    """One card of the page: htmx fetches it, others are led to the whole page."""
    if name not in PARTS:
        raise Http404("The parts of a series' page are threshold, season and facts.")
    if not _is_part(request):
        query = request.GET.copy()
        query["whole"] = "1"
        return redirect(f"{reverse('series', args=[pk])}?{query.urlencode()}#{name}")
    series = _series(pk)
    context = {"series": series, "operator": may_operate(request.user)}
    context |= PARTS[name](request, series)
    # The slider stays as it is while it is moved: only what it says is answered.
    moved = name == "threshold" and request.headers.get("HX-Target") == "effect"
    file = "series_effect" if moved else f"series_{name}"
    return render(request, f"anomalies/_partials/{file}.html", context | {"moved": moved})


def _threshold(request: HttpRequest, series: Series) -> dict[str, Any]:
    policy = own_policy.counting(series)
    draft, drafted = what_if.draft_of(policy, request.GET)
    span = 30 if request.GET.get("span") == "30" else 7
    return {
        "policy": policy, "draft": draft, "drafted": drafted, "span_days": span,
        "what": what_if.look(series, policy, draft, span), "choices": what_if.CHOICES,
        "directions": what_if.DIRECTIONS, "unit": units.unit_of(series.metric),
        "proposal": proposals.propose(series), "kept": _kept(request.GET),
        "spans": what_if.SPANS,
    }  # fmt: skip


def _kept(query: QueryDict) -> list[tuple[str, str]]:
    """What a form of the draft has to carry on."""
    return [(name, str(query[name])) for name in ("window", "start", "end", "day") if name in query]


def _season(request: HttpRequest, series: Series) -> dict[str, Any]:
    return {"season": season.profile(series, request.GET.get("day", "all"), timezone.now())}


def _facts(request: HttpRequest, series: Series) -> dict[str, Any]:
    base = request.build_absolute_uri("/").rstrip("/")
    found = series_facts.facts(series, base)
    return {"facts": found, "quiet": found.quiet}


PARTS: dict[str, Callable[[HttpRequest, Series], dict[str, Any]]] = {
    "threshold": _threshold, "season": _season, "facts": _facts,
}  # fmt: skip


@login_required
@require_GET
def tail(request: HttpRequest, pk: int) -> JsonResponse:
    """What came since, for a chart that is live; at most a day of it."""
    series, now = _series(pk), timezone.now()
    try:
        since = from_epoch(float(request.GET.get("since", "")))
        since = max(since, now - timedelta(days=1))
    except (ValueError, OverflowError, OSError):
        return JsonResponse({"error": {"field": "since", "message": "No moment.",
                                       "allowed": "seconds since 1970"}}, status=400)  # fmt: skip
    last = series.last_event_at
    return JsonResponse(
        series_chart.tail(series, min(since, now), now, _step(request.GET.get("step", "")))
        | {"last_at": last.timestamp() if last else None, "last_value": series.last_value,
           "events": series.events, "silent_s": silent_for_s(series, now)}
    )  # fmt: skip


def _step(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 and int(text) else 60


# ---- A threshold saved --------------------------------------------------------------------------
def _wish(request: HttpRequest, series: Series, query: QueryDict) -> own_policy.Wish | None:
    """What a query asks to save; None where its threshold is none of those that are counted."""
    policy = own_policy.counting(series)
    draft, _ = what_if.draft_of(policy, query)
    if not _counted(query.get("threshold", "")):
        return None
    scope = query.get("scope", "series")
    return own_policy.Wish(
        draft.threshold, direction=draft.direction, least=draft.least, budget=draft.budget,
        scope=scope if scope in own_policy.SCOPES else "series",
    )  # fmt: skip


def _counted(text: str) -> bool:
    try:
        return any(abs(float(text) - choice) < 1e-9 for choice in what_if.CHOICES)
    except ValueError:
        return False


def may_save(user: AbstractUser | AnonymousUser, scope: str) -> bool:
    """Operators for one series; what is wider is configuration, for those who may edit policies."""
    if scope == "series":
        return may_operate(user)
    return bool(may_operate(user) and user.has_perm("detection.change_thresholdpolicy")
                and user.has_perm("detection.add_thresholdpolicy"))  # fmt: skip


@require_http_methods(["GET", "HEAD", "POST"])
@operator_required
def policy(request: HttpRequest, pk: int) -> HttpResponseBase:
    """GET says in numbers what saving a draft would do; POST saves it."""
    series = _series(pk)
    wish = _wish(request, series, request.POST if request.method == "POST" else request.GET)
    if wish is None:
        allowed = ", ".join(f"{choice:g}" for choice in what_if.CHOICES)
        return HttpResponse(f"The threshold is one of those counted: {allowed}.", status=400,
                            content_type="text/plain")  # fmt: skip
    if not may_save(request.user, wish.scope):
        raise PermissionDenied(
            "Operators set the threshold of one series; of a metric or a stream, admins do."
        )
    if request.method != "POST":
        return _confirm(request, series, wish)
    saved = own_policy.save(series, wish, request.user)
    messages.success(request, f"Saved as {saved}: an anomaly from {wish.threshold:g} on, "
                              f"for {own_policy.SCOPES[wish.scope]}.")  # fmt: skip
    query = QueryDict(mutable=True)
    query.update(dict(_kept(request.POST)))
    tail = f"?{query.urlencode()}" if query else ""
    return redirect(reverse("series", args=[pk]) + tail)


def _confirm(request: HttpRequest, series: Series, wish: own_policy.Wish) -> HttpResponse:
    found = own_policy.counting(series)
    draft, _ = what_if.draft_of(found, request.GET)
    scopes = [(name, words) for name, words in own_policy.SCOPES.items()
              if may_save(request.user, name)]  # fmt: skip
    span = 30 if request.GET.get("span") == "30" else 7
    context = {
        "series": series, "wish": wish, "reach": own_policy.reach(series, wish), "policy": found,
        "what": what_if.look(series, found, draft, span), "scopes": scopes, "draft": draft,
        "unit": units.unit_of(series.metric), "kept": _kept(request.GET),
        "back": f"{reverse('series', args=[series.pk])}?{request.GET.urlencode()}",
    }  # fmt: skip
    name = "_partials/series_confirm.html" if _is_part(request) else "series_policy.html"
    return render(request, f"anomalies/{name}", context)


@require_POST
@operator_required
def policy_undo(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Take back what was saved from this page, if nobody changed it since."""
    series = _series(pk)
    number = request.POST.get("change", "")
    if not (number.isascii() and number.isdigit() and len(number) < 18):
        return HttpResponse("The change is the number of one saved here.", status=400)
    entry = get_object_or_404(AuditEntry, pk=int(number), kind=own_policy.KIND)
    changed = get_object_or_404(ThresholdPolicy, pk=entry.object_id)
    scope = "series" if own_policy.is_own(changed, series) else "wide"
    if not may_save(request.user, scope):
        raise PermissionDenied(
            "Operators change the threshold of one series; of a metric or a stream, admins do."
        )
    try:
        own_policy.undo(entry, request.user)
    except own_policy.ChangedSinceError as error:
        messages.error(request, f"Nothing was taken back: {error} was changed since.")
    else:
        again = own_policy.counting(series)
        messages.success(request, f"Taken back. An anomaly from {again.threshold:g} on again, by "
                                  f"policy {again.name}.")  # fmt: skip
    return redirect("series", pk=pk)


@require_POST
@operator_required
def threshold(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Give a series the threshold that its labels speak for."""
    series = _series(pk)
    try:
        made = proposals.apply(series, float(request.POST.get("threshold", "")), request.user)
    except ValueError:
        return HttpResponse("The threshold is one of those shown, like 0.9.", status=400)
    messages.success(
        request,
        f"{series.metric} on {series.source} is an anomaly from {made.threshold:g} on: policy "
        f"{made}, for events that come from now on.",
    )
    return redirect("series", pk=pk)
