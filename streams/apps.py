"""Django's entry for the streams app."""

from __future__ import annotations

from django.apps import AppConfig


class StreamsConfig(AppConfig):
    """Registers the app under its folder's name."""

    name = "streams"
    default_auto_field = "django.db.models.BigAutoField"
