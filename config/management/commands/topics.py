"""`manage.py topics`: makes the topics that Vigil reads and writes."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from config.topics import TopicsError, ensure_topics


class Command(BaseCommand):
    help = "Make Kafka's topics with the settings' partitions and retention; says what it did."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            for line in ensure_topics(settings.VIGIL):
                self.stdout.write(line)
        except TopicsError as error:
            raise CommandError(str(error)) from None
