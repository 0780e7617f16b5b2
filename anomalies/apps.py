"""Django's entry for the anomalies app."""

from __future__ import annotations

from django.apps import AppConfig


class AnomaliesConfig(AppConfig):
    """Registers the app under its folder's name."""

    name = "anomalies"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Training leaves out what people confirmed: this app knows what that is."""
        from anomalies import labelled  # noqa: F401  (registers itself)
