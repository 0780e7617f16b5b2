"""`manage.py weights`: what was learnt of the ensembles, what counts, and how to change it."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from detection import learnt_weights
from detection.errors import TransitionRefused
from detection.management.commands.rollback import actor
from detection.models import LearntWeights
from streams.audited_command import AuditedCommand
from streams.connectors.options import count


class Command(AuditedCommand):
    """Without options: all that was learnt."""

    help = "Learnt weights of the ensembles: list them, use one, or leave it again."
    requires_system_checks: tuple[str, ...] = ()  # they import every page: a slower start

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--use", type=count, metavar="ID", help="let this set count")
        what.add_argument(
            "--leave", type=count, metavar="ID", help="go back to the configuration's weights"
        )

    def handle(self, *args: Any, **given: Any) -> None:
        try:
            if given["use"] is not None:
                row = learnt_weights.use(given["use"], actor())
                said = f"weights {row.pk} count for {row.stream.name}"
            elif given["leave"] is not None:
                row = learnt_weights.leave(given["leave"], actor())
                said = f"the configuration's weights count for {row.stream.name}"
            else:
                self._list()
                return
        except LearntWeights.DoesNotExist:
            raise CommandError(
                f"there are no learnt weights {given['use'] or given['leave']}: `manage.py weights`"
                " lists them"
            ) from None
        except TransitionRefused as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{said}: running consumers follow within seconds")

    def _list(self) -> None:
        rows = list(LearntWeights.objects.select_related("stream").order_by("pk"))
        for row in rows:
            weights = ", ".join(f"{name} {weight:.3g}" for name, weight in row.weights.items())
            f1 = (row.metrics.get("held_out") or {}).get("f1")
            reached = "" if f1 is None else f", F1 {f1:.2f}"
            self.stdout.write(
                f"{row.pk:>4}  {row.stream.name}  {row.state}  {row.method}: {weights};"
                f" gain {row.gain:.3g}{reached}"
            )
        if not rows:
            self.stdout.write(
                "nothing was learnt: `manage.py evaluate weights --store STREAM` learns and keeps"
            )
