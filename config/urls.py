"""All pages' addresses: each app's own, the admin, logging in and out, and metrics."""

from __future__ import annotations

from importlib.util import find_spec

from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.urls import URLPattern, URLResolver, include, path

from anomalies.views import SignIn
from config import search_views

admin.site.site_header = "Vigil"
admin.site.site_title = "Vigil"

handler400 = "config.error_views.bad_request"
handler403 = "config.error_views.forbidden"
handler404 = "config.error_views.not_found"
handler500 = "config.error_views.failed"

urlpatterns: list[URLPattern | URLResolver] = [
    path("login/", SignIn.as_view(), name="login"),
    path("logout/", auth_views.LogoutView.as_view(), name="logout"),
    path("search/", search_views.search_page, name="search"),
    path("admin/", admin.site.urls),
    path("", include("django_prometheus.urls")),
]
for _urls in (
    "anomalies.urls", "alerts.urls", "streams.urls", "detection.urls", "config.system.urls",
):  # fmt: skip
    if find_spec(_urls) is not None:
        urlpatterns.append(path("", include(_urls)))
