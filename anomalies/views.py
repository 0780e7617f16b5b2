"""Series, signing in. Views parse, query, render; htmx gets the part."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_POST

from anomalies import detail, feedback, proposals, queries, quiet
from anomalies.forms import FilterForm, SignInForm
from anomalies.htmx import HtmxRequest
from streams import history
from streams.models import Series
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
