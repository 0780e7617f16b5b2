"""`manage.py topics`: makes the topics that Vigil reads and writes."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.topics import TIMEOUT_S, TopicsError, ensure_topics


class Command(BaseCommand):
    help = "Make Kafka's topics with the settings' partitions and retention; says what it did."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--timeout", type=float, default=TIMEOUT_S, help="seconds to wait for Kafka"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            for line in ensure_topics(settings.VIGIL, timeout_s=options["timeout"]):
                self.stdout.write(line)
        except TopicsError as error:
            raise CommandError(str(error)) from None
