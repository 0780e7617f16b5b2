"""`manage.py evaluate`: how good the configured detection is, by the product's own code."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from config.evaluations import (
    gate,
    injected,
    labels,
    nab,
    normal,
    recurring,
    skab,
    weights,
)

# Each module has HELP, add_arguments(parser) and run(config, options, out).
KINDS: dict[str, ModuleType] = {
    "nab": nab,
    "skab": skab,
    "normal": normal,
    "injected": injected,
    "recurring": recurring,
    "labels": labels,
    "weights": weights,
    "gate": gate,
}


class Command(BaseCommand):
    help = (
        "How good the configured detection is, by the product's own code; `labels` needs servers."
    )
    requires_system_checks = ()  # they may ask servers

    def add_arguments(self, parser: CommandParser) -> None:
        kinds = parser.add_subparsers(
            dest="kind", required=True, metavar="{" + ",".join(KINDS) + "}"
        )
        for name, kind in KINDS.items():
            kind.add_arguments(kinds.add_parser(name, help=kind.HELP))

    def handle(self, *args: Any, **options: Any) -> None:
        KINDS[options["kind"]].run(settings.VIGIL, options, self.stdout)
