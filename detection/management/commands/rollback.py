"""`manage.py rollback`: brings the previous champion back, or scores without a stored model."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from detection import model_store
from detection.errors import ArtefactError, TransitionRefused
from detection.models import ModelVersion
from streams import audit
from streams.audited_command import AuditedCommand


class Command(AuditedCommand):
    """The way back after a promotion that was a mistake."""

    help = "Make the previous champion the champion again; where there was none, none."
    requires_system_checks: tuple[str, ...] = ()  # they import every page: a slower start

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--stream", metavar="NAME")
        parser.add_argument("--metric", metavar="NAME")
        parser.add_argument("--algorithm", metavar="NAME")
        parser.add_argument("--to-none", action="store_true", help="no champion at all")
        parser.add_argument("--reason", default="", help="kept with the change")

    def handle(self, *args: Any, **given: Any) -> None:
        line = _line(given)
        try:
            done = model_store.roll_back(
                line.stream, line.metric, line.algorithm,
                actor=actor(), reason=given["reason"], to_none=given["to_none"],
            )  # fmt: skip
        except (ArtefactError, TransitionRefused) as error:
            raise CommandError(f"it stays as it was. {error}") from error
        left = f" in place of v{done.left.version}" if done.left else ""
        if done.back is None:
            self.stdout.write(
                f"{model_store.describe(line)}: no champion{left}; the other detectors go on, "
                "running consumers follow within seconds"
            )
        else:
            self.stdout.write(
                f"{model_store.describe(done.back)} is the champion again{left}; "
                "running consumers take it up within seconds"
            )


actor = audit.person_here


def _line(given: dict[str, Any]) -> ModelVersion:
    """Any version of the one line that is meant."""
    rows = ModelVersion.objects.select_related("stream").defer("artefact").order_by("pk")
    if given["stream"] is not None:
        rows = rows.filter(stream__name=given["stream"])
    if given["metric"] is not None:
        rows = rows.filter(metric=given["metric"])
    if given["algorithm"] is not None:
        rows = rows.filter(algorithm=given["algorithm"])
    lines = {(row.stream_id, row.metric, row.algorithm): row for row in rows}
    if not lines:
        raise CommandError("there is no such model; `manage.py models` lists them")
    if len(lines) > 1:
        named = "; ".join(
            f"--stream {row.stream.name} --algorithm {row.algorithm} --metric '{row.metric}'"
            for row in list(lines.values())[:10]
        )
        raise CommandError(f"several models are meant, say which: {named}")
    return next(iter(lines.values()))
