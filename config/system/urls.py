"""The addresses of System."""

from __future__ import annotations

from django.urls import path

from config.system import views

urlpatterns = [
    path("system/", views.system, name="system"),
    path("system/why-no-anomalies/", views.why_none, name="why-none"),
    path("system/diagnostics/", views.diagnostics_text, name="diagnostics"),
]
