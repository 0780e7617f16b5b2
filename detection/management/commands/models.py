"""`manage.py models`: lists the stored models, the newest first."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from detection.models import ModelVersion
from streams.connectors.options import count

COLUMNS = ("id", "model", "stream", "metric", "state", "rows", "alarms/10k", "trained", "sha256")


class Command(BaseCommand):
    """What is there to promote."""

    help = "List the stored models, the newest first."
    requires_system_checks: tuple[str, ...] = ()  # they import every page: a slower start

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--stream", metavar="NAME")
        parser.add_argument("--limit", type=count, default=50)

    def handle(self, *args: Any, **given: Any) -> None:
        rows = ModelVersion.objects.select_related("stream").defer("artefact").order_by("-pk")
        if given["stream"]:
            rows = rows.filter(stream__name=given["stream"])
        table = [COLUMNS, *(_line(row) for row in rows[: given["limit"]])]
        if len(table) == 1:
            self.stdout.write("no models yet; `manage.py train` makes one")
            return
        widths = [max(len(line[at]) for line in table) for at in range(len(COLUMNS))]
        for line in table:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            self.stdout.write("  ".join(cells).rstrip())


def _line(row: ModelVersion) -> tuple[str, ...]:
    alarms = row.manifest.get("metrics", {}).get("held_out_alarms_per_10000")
    return (
        str(row.pk),
        f"{row.algorithm} v{row.version}",
        row.stream.name,
        row.metric or "all",
        row.state,
        f"{row.manifest.get('rows_used', 0):,}",
        "" if alarms is None else f"{alarms:.1f}",
        f"{row.created_at:%Y-%m-%d %H:%M}",
        row.sha256[:12],
    )
