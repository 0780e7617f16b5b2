"""Django's entry for the detection app."""

from __future__ import annotations

from django.apps import AppConfig


class DetectionConfig(AppConfig):
    """Registers the app under its folder's name."""

    name = "detection"
    default_auto_field = "django.db.models.BigAutoField"
