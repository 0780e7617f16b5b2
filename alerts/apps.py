"""Django's entry for the alerts app."""

from __future__ import annotations

from django.apps import AppConfig


class AlertsConfig(AppConfig):
    """Registers the app under its folder's name."""

    name = "alerts"
    default_auto_field = "django.db.models.BigAutoField"
