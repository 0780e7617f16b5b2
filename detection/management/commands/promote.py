"""`manage.py promote ID`: makes a stored model the one that scores."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from detection import model_store, promotion
from detection.errors import ArtefactError, TransitionRefused
from detection.management.commands.rollback import actor
from detection.models import ModelVersion
from streams.audited_command import AuditedCommand
from streams.connectors.options import count


class Command(AuditedCommand):
    """An older version works as well: that is how a model is rolled back."""

    help = "Make a stored model the champion of its stream."
    requires_system_checks: tuple[str, ...] = ()  # they import every page: a slower start

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", type=count, help="as `manage.py models` lists it")
        parser.add_argument("--reason", default="", help="kept with the change")
        parser.add_argument("--anyway", action="store_true", help="past the gate; needs --reason")

    def handle(self, *args: Any, **given: Any) -> None:
        try:
            before = ModelVersion.objects.defer("artefact").get(pk=given["id"])
            was = model_store.champion(before.stream, before.metric, before.algorithm)
            model, _ = promotion.promote(
                given["id"], actor=actor(), reason=given["reason"], anyway=given["anyway"]
            )
        except ModelVersion.DoesNotExist:
            raise CommandError(
                f"there is no model with the id {given['id']}; `manage.py models` lists them"
            ) from None
        except promotion.GateFailed as error:
            raise CommandError(
                f"it stays as it was. {error}. `manage.py promote {given['id']} --anyway --reason "
                "TEXT` promotes it all the same"
            ) from error
        except (ArtefactError, TransitionRefused) as error:
            raise CommandError(f"it stays as it was. {error}") from error
        name = model_store.describe(model)
        if was is not None and was.pk == model.pk:
            self.stdout.write(f"{name} is the champion already")
        else:
            instead = f" in place of v{was.version}" if was else ""
            self.stdout.write(
                f"{name} is the champion{instead}; running consumers take it up within seconds"
            )
