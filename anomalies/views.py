"""Overview, feedback, series, signing in. Views parse, query, render; htmx gets the part."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_POST

from anomalies import detail, feed, feedback, health, proposals, queries, quiet
from anomalies.filters import Filters
from anomalies.forms import FilterForm, SignInForm
from anomalies.htmx import HtmxRequest
from anomalies.models import Anomaly
from streams import history
from streams.models import DeadLetter, Series
from streams.ranges import Range, named_range
from streams.roles import may_operate, operator_required

REMEMBER_S = 14 * 86_400
THEME_COOKIE = "vigil_theme"
CHART_RANGES = {"1h": 3_600, "6h": 21_600, "24h": 86_400, "7d": 604_800}


class SignIn(LoginView):
    """The sign-in page; without "stay signed in" the session ends with the browser."""

    authentication_form = SignInForm
    redirect_authenticated_user = True

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        self.request.session.set_expiry(REMEMBER_S if form.cleaned_data["remember"] else 0)
        return response


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Keep the chosen theme in a cookie, so that the server renders it without a flash."""
    chosen = request.POST.get("theme", "")
    back = request.POST.get("next", "/")
    if not back.startswith("/") or not url_has_allowed_host_and_scheme(back, {request.get_host()}):
        back = "/"
    response = HttpResponseRedirect(back)
    if chosen not in ("light", "dark"):
        # As the system says.
        response.delete_cookie(THEME_COOKIE, samesite="Lax")
        return response
    response.set_cookie(
        THEME_COOKIE, chosen, max_age=365 * 86_400, samesite="Lax", secure=request.is_secure()
    )
    return response


# ---- Overview -----------------------------------------------------------------------------------
@login_required
@require_GET
def overview(request: HtmxRequest) -> HttpResponse:
    """The first page; htmx asks for its parts by the id of what is to be swapped."""
    now = timezone.now()
    if not _anything_seen():
        return render(request, "anomalies/first_run.html", _first_run())
    form = FilterForm(request.GET, default_range="24h")
    span = named_range(form.range, now, whole=_whole(form.range))
    context: dict[str, Any] = {"form": form, "span": span, "now": now}
    target = request.htmx.target if request.htmx and not request.htmx.boosted else None
    if target == "strip":
        return render(request, "anomalies/_partials/strip.html", context | _strip(span))
    context |= _lanes(request, form, span)
    if target == "lanes":
        return render(request, "anomalies/_partials/lanes.html", context)
    context |= _strip(span) | _feed(form) | {"quiet": quiet.totals()}
    page = "_partials/overview.html" if target == "overview" else "overview.html"
    return render(request, f"anomalies/{page}", context)


@login_required
@require_GET
def components(request: HttpRequest) -> HttpResponse:
    """The components card: its checks take a while, so the page fetches it after itself."""
    parts = health.components()
    partial = "ready" if request.GET.get("as") == "ready" else "components"
    context = {"components": parts, "wrong": [p for p in parts if p.state in ("warn", "down")]}
    return render(request, f"anomalies/_partials/{partial}.html", context)


@login_required
@require_GET
def seen(request: HttpRequest) -> HttpResponse:
    """Asked by the first-run page: once there is an event, the browser is sent to the overview."""
    response = HttpResponse(status=204)
    if _anything_seen():
        response["HX-Redirect"] = "/"
    return response


def _anything_seen() -> bool:
    return (
        Series.objects.exists() or queries.events_seen() > 0
        or Anomaly.objects.exists() or DeadLetter.objects.exists()
    )  # fmt: skip


def _first_run() -> dict[str, Any]:
    kafka = settings.VIGIL.kafka
    return {"topic": kafka.input_topic, "servers": kafka.bootstrap_servers}


def _whole(name: str) -> Any:
    return queries.whole_span() if name == "all" else None


def _strip(span: Range) -> dict[str, Any]:
    # The pipeline's figures are by the wall clock; event time is what lanes and lists go by.
    now = timezone.now()
    wall = named_range(span.name, now, whole=(now - timedelta(days=30), now))
    work = history.throughput(wall)
    events, odd, bad = sum(work.events), sum(work.anomalies), sum(work.rejects)
    pulse = queries.pulse(now)
    return {
        "pulse": pulse, "work": work, "events": events, "odd": odd, "bad": bad,
        "odd_per_million": 1e6 * odd / events if events else None,
        "bad_per_million": 1e6 * bad / (events + bad) if events + bad else None,
        "behind_s": pulse.lag / pulse.events_per_s if pulse.events_per_s > 0 else None,
        "odd_rates": [1e6 * a / e if e else 0.0 for a, e in zip(work.anomalies, work.events,
                                                                strict=True)],
        "waiting": DeadLetter.objects.filter(state=DeadLetter.State.WAITING).count(),
        "chart": {"t": work.t, "events": work.rates,
                  "anomalies": work.anomalies, "step_s": work.step_s},
        "wall": wall,
    }  # fmt: skip


def _lanes(request: HttpRequest, form: FilterForm, span: Range) -> dict[str, Any]:
    by = request.GET.get("by", "source")
    by = by if by in queries.LANE_COLUMNS else "source"
    severity = int(form.severity) if form.severity else None
    found = queries.lanes(span, by, stream=form.stream, severity=severity, label=form.label)
    marks = [found.total.cells[i].start for i in range(0, queries.LANE_CELLS, 12)]
    return {"lanes": found, "by": by, "marks": marks, "by_choices": ["source", "metric", "stream"]}


def _feed(form: FilterForm) -> dict[str, Any]:
    filters = Filters(
        stream=form.stream, label=form.label, severity=int(form.severity) if form.severity else None
    )
    rows = feed.newest(filters)
    cursor = feed.cursor_at(rows, timezone.now())
    return {"feed": rows, "cursor": cursor, "known": feed.known(cursor, filters)}


# ---- Feedback -----------------------------------------------------------------------------------
@login_required
@require_GET
def feedback_page(request: HttpRequest) -> HttpResponse:
    """Labels counted: how often detectors and series were right, and who said so last."""
    context = {
        "total": feedback.total(), "detectors": feedback.by_detector(),
        "series": feedback.by_series(), "latest": feedback.latest(),
        "names": detail.DETECTOR_NAMES, "operator": may_operate(request.user),
    }  # fmt: skip
    return render(request, "anomalies/feedback.html", context)


@require_POST
@operator_required
def series_threshold(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Give a series the threshold that its labels speak for."""
    series = get_object_or_404(Series.objects.select_related("stream"), pk=pk)
    try:
        given = float(request.POST.get("threshold", ""))
        made = proposals.apply(series, given, request.user)
    except ValueError:
        return HttpResponse("The threshold is one of those shown, like 0.9.", status=400)
    messages.success(
        request,
        f"{series.metric} on {series.source} is an anomaly from {made.threshold:g} on: policy "
        f"{made}, for events that come from now on.",
    )
    return redirect("series", pk=pk)


# ---- Series -------------------------------------------------------------------------------------
@login_required
@require_GET
def series_list(request: HtmxRequest) -> HttpResponse:
    form = FilterForm(request.GET)
    page = queries.series_page(form.source, form.metric, form.stream, request.GET.get("from", ""))
    context = {
        "form": form, "page": page, "sparks": history.sparks(page.rows),
        "counts": queries.anomaly_counts(page.rows, timezone.now()),
    }  # fmt: skip
    partial = request.htmx and not request.htmx.boosted
    name = "_partials/series_table.html" if partial else "series_list.html"
    return render(request, f"anomalies/{name}", context)


@login_required
@require_GET
def series_detail(request: HtmxRequest, pk: int) -> HttpResponse:
    series = get_object_or_404(Series.objects.select_related("stream"), pk=pk)
    window = _choice(request.GET.get("window", "24h"))
    context = detail.series_chart(series, window, CHART_RANGES[window]) | {
        "series": series, "window": window, "windows": list(CHART_RANGES),
        "gap_s": queries.typical_gap_s(series),
    }  # fmt: skip
    if request.htmx and not request.htmx.boosted:
        return render(request, "anomalies/_partials/series_body.html", context)
    context["quiet"] = quiet.of_series(series)
    context["proposal"] = proposals.propose(series)
    context["operator"] = may_operate(request.user)
    return render(request, "anomalies/series_detail.html", context)


def _choice(window: str) -> str:
    return window if window in CHART_RANGES else "1h"
