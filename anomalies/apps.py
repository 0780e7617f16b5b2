"""Django's entry for the anomalies app."""

from __future__ import annotations

from django.apps import AppConfig


class AnomaliesConfig(AppConfig):
    """Registers the app under its folder's name."""

    name = "anomalies"
    default_auto_field = "django.db.models.BigAutoField"
