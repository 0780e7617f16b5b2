"""The config app: system checks for the configuration and the schedule made after migrating."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class ConfigConfig(AppConfig):
    name = "config"
    label = "config"
    verbose_name = "Vigil configuration"

    def ready(self) -> None:
        from django.conf import settings

        from config import checks  # noqa: F401  (registers the checks)

        # So that `.delay()` finds the broker in every process. With a wrong configuration only
        # `check` comes this far, and it needs no broker.
        if not settings.VIGIL_ERRORS:
            from config import celery  # noqa: F401

        post_migrate.connect(_after_migrate, dispatch_uid="config.schedule")


def _after_migrate(app_config: AppConfig, **_: Any) -> None:
    # The schedule's rows live in django-celery-beat's tables, so they follow its migration.
    if app_config.name == "django_celery_beat":
        from config.schedule import ensure_schedule

        ensure_schedule()
