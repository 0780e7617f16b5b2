"""From anomalies to people and programs: results, rules, silences, live pages."""

from __future__ import annotations

from datetime import timedelta

import redis
from django.conf import settings
from django.db.models import Count, Min
from django.urls import reverse

from alerts import silences
from alerts.evaluator import LEASE
from alerts.models import Lease, Rule, Silence
from anomalies.live import CHANNEL
from anomalies.models import Outbox
from config.system.world import Check, World, lasting

UNSENT = timedelta(minutes=1)


def results_out(world: World) -> Check:
    name = "Results reach their topic"
    waiting = Outbox.objects.filter(published_at=None, created_at__lt=world.now - UNSENT)
    late = waiting.exclude(kind=Outbox.Kind.MANUAL).aggregate(
        n=Count("id"), since=Min("created_at")
    )
    topic = world.config.kafka.output_topic
    if late["n"]:
        return Check(
            name, "warn", f"{late['n']:,} results wait for {topic}, the oldest for "
            f"{lasting(world.now - late['since'])}.", "They go out by themselves once a consumer "
            "runs and Kafka takes them.",
        )  # fmt: skip
    return Check(name, "ok", f"None waits for {topic}.")


def rules_tell(world: World) -> Check:
    name = "A rule tells somebody"
    rules = Rule.objects.filter(enabled=True, live__isnull=False).count()
    if not rules:
        return Check(
            name, "warn", "No alert rule is enabled: anomalies show on the pages only.",
            "Write a rule.", reverse("rules"), "Rules",
        )  # fmt: skip
    lease = Lease.objects.filter(name=LEASE).first()
    if lease is None or lease.until is None or lease.until < world.now:
        return Check(
            name, "bad", f"{rules} rule{'s' * (rules != 1)}, and nobody judges by "
            f"{'them' if rules != 1 else 'it'}.", "Start it: `manage.py runalerts`.",
            reverse("system") + "#processes", "Processes",
        )  # fmt: skip
    return Check(name, "ok", f"{rules} rule{'s' * (rules != 1)}, judged by {lease.owner}.")


def not_silenced(world: World) -> Check:
    name = "No silence holds it back"
    active = []
    for row in Silence.objects.filter(enabled=True):
        try:
            if silences.standing(row, world.now).state == "active":
                active.append(row.name)
        except ValueError:
            continue  # such a one holds nothing back
    if active:
        n = len(active)
        return Check(
            name, "warn", f"{n} silence{'s hold' if n != 1 else ' holds'} now: "
            f"{', '.join(active[:3])}. It keeps back notifications, not anomalies.",
            "End it if it is over.", reverse("silences"), "Silences",
        )  # fmt: skip
    return Check(name, "ok", "None is active.")


def live_push(world: World) -> Check:
    name = "Pages hear of it at once"
    dashboard = world.config.dashboard
    if not (dashboard.real_time_updates and dashboard.websocket_enabled):
        return Check(
            name, "warn", "Live updates are switched off: reload the page.",
            "Set dashboard.real_time_updates and dashboard.websocket_enabled.",
        )  # fmt: skip
    try:
        with redis.Redis.from_url(
            settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1
        ) as client:
            heard = dict(client.pubsub_numsub(CHANNEL)).get(CHANNEL.encode(), 0)
    except redis.RedisError as error:
        return Check(name, "bad", f"Valkey does not answer: {type(error).__name__}.",
                     "Start it, or mend REDIS_URL. Pages work by reload meanwhile.")  # fmt: skip
    return Check(name, "ok", f"{heard} web process{'es' * (heard != 1)} listen"
                 f"{'s' * (heard == 1)} to the live channel.")  # fmt: skip
