"""`manage.py retry_dead_letters`: puts dead letters' raw bytes on their topic once more."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from streams.connectors.options import count
from streams.dead_letters import retry
from streams.errors import StreamsError
from streams.models import DeadLetter, Stream
from streams.producer import TopicProducer


class Command(BaseCommand):
    """After the mapping or the producer was mended."""

    help = "Put waiting dead letters on their topic again, after the mapping was mended."
    requires_system_checks: tuple[str, ...] = ()  # they import every page: a slower start

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="*", type=count, metavar="ID", help="default: all waiting")
        parser.add_argument("--stream", metavar="NAME")
        parser.add_argument("--reason", metavar="WORD", help="such as schema or timestamp")
        parser.add_argument("--limit", type=count, help="at most so many, the oldest first")
        parser.add_argument("--dry-run", action="store_true", help="only say which")

    def handle(self, *args: Any, **given: Any) -> None:
        rows = DeadLetter.objects.filter(state=DeadLetter.State.WAITING)
        if given["ids"]:
            rows = rows.filter(pk__in=given["ids"])
        if given["stream"]:
            names = list(Stream.objects.values_list("name", flat=True))
            if given["stream"] not in names:
                raise CommandError(
                    f"--stream {given['stream']}: no such stream. There are: "
                    f"{', '.join(names) or 'none yet'}"
                )
            rows = rows.filter(incarnation__stream__name=given["stream"])
        if given["reason"]:
            rows = rows.filter(reason=given["reason"])
        keys = list(rows.order_by("pk").values_list("pk", flat=True)[: given["limit"]])
        missing = sorted(set(given["ids"]) - set(keys))
        if missing:
            raise CommandError(
                f"no waiting dead letter has the id {missing[0]}: retried and dismissed ones are "
                "not sent again"
            )
        if given["dry_run"]:
            self.stdout.write(f"{len(keys):,} dead letters would be sent again")
            return
        client = settings.VIGIL.kafka.quiet_client_config()
        try:
            with TopicProducer(client) as producer:
                result = retry(producer, keys)
        except StreamsError as error:
            raise CommandError(f"{error}. The letters stay waiting; run it again") from error
        self.stdout.write(
            f"{result.sent:,} dead letters sent again"
            + (f", {result.without_bytes:,} have no bytes to send" if result.without_bytes else "")
        )
