"""`manage.py runconsumer`: reads events from Kafka, scores them, stores what was found."""

from __future__ import annotations

import logging
import signal
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, ProgrammingError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from prometheus_client import start_http_server

from config.wiring import KNOWN_ERRORS, RunOptions, build_runner, settle, warm_up
from streams.heartbeat import STARTING, Heartbeat
from streams.models import Process
from streams.runner import instance_name
from streams.timestamps import TimestampError, parse_one

log = logging.getLogger(__name__)


class Command(BaseCommand):
    requires_system_checks: tuple[str, ...] = ()  # they import every page: a slower start
    help = "Score the configured streams until stopped (SIGTERM or Ctrl-C finishes the batch)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--from",
            dest="start",
            default="stored",
            metavar="earliest|latest|TIME",
            help="where partitions with no stored place begin, or how far to jump ahead;"
            " TIME is ISO 8601 with a zone or an epoch number",
        )
        parser.add_argument("--max-events", type=int, help="stop after so many events")
        parser.add_argument("--exit-at-end", action="store_true", help="stop at the log's end")
        parser.add_argument("--instance", help="this consumer's name; default: host and process id")

    def handle(self, *args: Any, **options: Any) -> None:
        config = settings.VIGIL
        connection_created.connect(_release_locks_when_frozen)
        instance = instance_name(options["instance"] or config.kafka.group_instance_id)
        run = RunOptions(
            start=_start(options["start"]),
            max_events=options["max_events"],
            exit_at_end=options["exit_at_end"],
        )
        try:
            runner = build_runner(config, instance, run, settings.REDIS_URL)
        except ProgrammingError as error:
            raise CommandError(
                f"the database has not been set up: run `manage.py migrate` ({_line(error)})"
            ) from None
        except OperationalError as error:
            raise CommandError(
                f"PostgreSQL does not answer: {_line(error)}. Check DATABASE_URL, or start the"
                " embedded servers with `make run`"
            ) from None
        if config.consumer.metrics_port is not None:
            _serve_metrics(config.consumer.metrics_host, config.consumer.metrics_port)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: runner.stop())
        topics = ", ".join(sorted({config.topic_of(given) for given in config.streams}))
        doing = STARTING
        sign = Heartbeat(Process.Kind.CONSUMER, lambda: doing).start()
        warm_up(config)
        settle()
        doing = f"{instance} reads {topics}"
        try:
            totals = runner.run()
        except KNOWN_ERRORS as error:
            raise CommandError(str(error)) from None
        finally:
            sign.stop()
        self.stdout.write(
            f"{totals.events} events, {totals.onsets} anomalies, {totals.rejects} dead letters"
        )
        sys.stdout.flush()


def _release_locks_when_frozen(connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Our transactions never rest: one that does is of a frozen process, and its partitions' next
    owner waits for the rows it has locked."""
    with connection.cursor() as cursor:
        cursor.execute("SET idle_in_transaction_session_timeout = '5s'")


def _start(given: str) -> str | int:
    if given in ("stored", "earliest", "latest"):
        return given
    try:
        return parse_one(int(given) if given.isdecimal() else given)
    except TimestampError as error:
        raise CommandError(f"--from: {error}; allowed: earliest, latest or a time") from None


def _serve_metrics(host: str, port: int) -> None:
    """This consumer's Prometheus metrics, on a thread of their own."""
    try:
        start_http_server(port, host)
    except OSError as error:
        raise CommandError(
            f"the metrics can't be served on {host}:{port}: {_line(error)}."
            " Each consumer of a machine needs a consumer.metrics_port of its own"
        ) from None
    log.info("metrics.served host=%s port=%s", host, port)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
