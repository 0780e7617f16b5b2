"""`manage.py models`: lists the stored models, the newest first, or says what was live then."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from detection.live_at import LiveVersion, live_at, read_moment
from detection.models import ModelVersion
from streams.connectors.options import count

COLUMNS = ("id", "model", "stream", "metric", "state", "rows", "alarms/10k", "trained", "sha256")


class Command(BaseCommand):
    """What is there to promote, and what scored when."""

    help = "List the stored models, the newest first; with --at, what was live at a moment."
    requires_system_checks: tuple[str, ...] = ()  # they import every page: a slower start

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--stream", metavar="NAME")
        parser.add_argument("--limit", type=count, default=50)
        parser.add_argument(
            "--at", metavar="TIME", help="2024-01-01T12:00 (UTC): the models, policies and "
            "detectors that were live then",
        )  # fmt: skip
        parser.add_argument(
            "--event-time", action="store_true",
            help="with --at: what scored the events of that minute, whenever they were read",
        )  # fmt: skip

    def handle(self, *args: Any, **given: Any) -> None:
        if given["at"] is not None:
            self._live(given)
            return
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

    def _live(self, given: dict[str, Any]) -> None:
        try:
            moment = read_moment(given["at"])
        except ValueError as error:
            raise CommandError(f"--at: {error}") from error
        by_event = given["event_time"]
        found = live_at(moment, "event" if by_event else "clock", given["stream"] or "")
        if not found:
            said = "no event of that minute is stored" if by_event else "no version was live"
            self.stdout.write(f"{said} at {moment:%Y-%m-%d %H:%M:%S%z}")
            return
        for live in found:
            for one in live.versions:
                self._version(live.stream.name, one)

    def _version(self, stream: str, one: LiveVersion) -> None:
        parts = ", ".join(f"{p.partition} from offset {p.from_offset:,}" for p in one.partitions)
        lines = [("stream", stream), ("scoring", f"version {one.version.pk} {one.version.sha256}"),
                 ("since", f"{one.since:%Y-%m-%d %H:%M:%S} UTC"), ("partitions", parts),
                 ("detectors", f"{', '.join(one.detectors)} ({one.method})")]  # fmt: skip
        lines += [
            ("model", f"{m['algorithm']} v{m['version']} ({m['metric'] or 'every metric'}), "
                      f"id {m['id']}, sha256 {m['sha256']}")
            for m in one.models
        ] or [("model", "none")]  # fmt: skip
        lines += [
            ("policy", f"{p['name']} v{p.get('version', 0)}: threshold {p['threshold']:g}, "
                       f"{p.get('source_pattern') or '*'} / {p.get('metric_pattern') or '*'}")
            for p in one.policies
        ]  # fmt: skip
        for name, text in lines:
            self.stdout.write(f"{name:<11}{text}")
        self.stdout.write("")


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
