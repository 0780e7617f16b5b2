"""`manage.py runalerts`: judges what was found by the alert rules, and publishes incidents."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from alerts import delivery, rounds
from alerts.announce import Announcer
from alerts.evaluator import Evaluator
from streams.heartbeat import Heartbeat
from streams.models import Process
from streams.producer import TopicProducer
from streams.runner import instance_name

log = logging.getLogger(__name__)
LEAVE_WITHIN_S = 5.0

Loop = Callable[[threading.Event], None]


class Command(BaseCommand):
    requires_system_checks: tuple[str, ...] = ()  # they import every page: a slower start
    help = (
        "Judge anomalies by the alert rules until stopped; of several, one works and the others"
        " stand by."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--instance", help="this process' name; default: host and process id")

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        evaluator = Evaluator(instance_name(options["instance"]))
        for loop in loops(evaluator):
            threading.Thread(target=loop, args=(stop,), name=loop.__qualname__, daemon=True).start()
        log.info("alerts.started instance=%s", evaluator.owner)
        sign = Heartbeat(
            Process.Kind.ALERTS,
            lambda: "judges and delivers" if evaluator.holds else "delivers, stands by to judge",
        ).start()
        evaluator.run(stop)
        sign.stop()
        for thread in threading.enumerate():
            if thread.daemon:
                thread.join(LEAVE_WITHIN_S)


def loops(evaluator: Evaluator) -> list[Loop]:
    """What runs beside the evaluator, each on a thread of its own until the event is set."""
    kafka = settings.VIGIL.kafka
    client = kafka.quiet_client_config()
    announcer = Announcer(
        lambda: TopicProducer(client, linger_ms=5, delivery_timeout_ms=10_000),
        kafka.alerts_topic,
        lambda: evaluator.holds,
    )

    def deliver(stop: threading.Event) -> None:
        delivery.run(evaluator.owner, stop)

    def go_round(stop: threading.Event) -> None:
        rounds.run(evaluator.owner, stop)

    return [announcer.run, deliver, go_round]
