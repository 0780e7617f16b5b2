"""A command whose changes the audit tells from those of pages and of the system itself."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from streams import audit


class AuditedCommand(BaseCommand):
    """What it changes came by "command"."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        with audit.through("command"):
            return super().execute(*args, **options)
