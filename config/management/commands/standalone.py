"""`manage.py standalone`: the whole of Vigil on one machine, with servers out of packages."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.embedded.errors import EmbeddedError
from config.embedded.standalone import SOURCES, Place, run


class Command(BaseCommand):
    help = "Start everything here: Kafka, PostgreSQL, Valkey, web, consumer, worker, beat, demo."
    # The servers that checks may ask are not there yet.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--source",
            choices=SOURCES,
            default="demo",
            help="demo (the default): two days of history, then live; none: start empty",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        dashboard = settings.VIGIL.dashboard
        place = Place(
            project=settings.BASE_DIR,
            data=settings.DATA_DIR,
            host=dashboard.host,
            port=dashboard.port,
            input_topic=settings.VIGIL.kafka.input_topic,
        )
        try:
            run(options["source"], place, settings.VIGIL_NAMED, os.environ)
        except EmbeddedError as error:
            raise CommandError(str(error)) from None
