"""The addresses of this app."""

from __future__ import annotations

from django.urls import path

from alerts import api

urlpatterns = [path("api/alert", api.alert_view, name="api-alert")]
