"""Django's entry for the alerts app."""

from __future__ import annotations

from django.apps import AppConfig


class AlertsConfig(AppConfig):
    """Registers the app under its folder's name."""

    name = "alerts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Lists of anomalies can be narrowed to an incident: this app knows its members."""
        from alerts import found
        from anomalies import filters

        filters.incidents_by(found.members_of)
