"""Signing in, theme, feedback. Views parse, query, render; htmx gets the part."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.templatetags.static import static
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_POST

from anomalies import detail, feedback
from anomalies.forms import SignInForm
from streams.roles import may_operate

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


@require_GET
def favicon(request: HttpRequest) -> HttpResponse:
    """Browsers ask for it beside what has no head to name an icon in: JSON, exports, the admin."""
    return redirect(static("img/logo.svg"))


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
