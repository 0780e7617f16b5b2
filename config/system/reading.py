"""From Kafka to the consumer: whether events come, are read, understood and of now."""

from __future__ import annotations

from datetime import timedelta

from django.db import connection
from django.urls import reverse

from anomalies.templatetags.vigil import reason_name
from config.system.world import Check, World, lasting
from streams.letters import STAGES

QUIET_TOPIC = timedelta(minutes=15)
BEHIND_S, MANY_UNREAD = 60.0, 50_000
AHEAD, PAST = timedelta(minutes=10), timedelta(hours=1)
FEW, MANY = 0.01, 0.5  # shares of messages that became dead letters
LATE_SHARE = 0.05


def broker_reachable(world: World) -> Check:
    name = "Kafka answers"
    servers = world.config.kafka.bootstrap_servers
    if not world.broker.reachable:
        return Check(
            name, "bad", f"No broker answers at {servers}: {world.broker.said}.",
            "Start Kafka, or mend kafka.bootstrap_servers (KAFKA_BOOTSTRAP_SERVERS).",
        )  # fmt: skip
    n = world.broker.brokers
    return Check(name, "ok", f"{n} broker{'s' * (n != 1)} at {servers}.")


def topic_exists(world: World) -> Check:
    name = "The topics exist"
    if not world.broker.reachable:
        return Check(name, "skip", "Kafka has to answer first.")
    gone = [topic for topic, about in world.about if not about.exists]
    if gone:
        return Check(
            name, "bad", f"There is no topic {', '.join(gone)}.",
            "Make it: `manage.py topics`. Or mend streams / kafka.input_topic in config.yaml.",
        )  # fmt: skip
    parts = sum(len(about.partitions) for _, about in world.about)
    return Check(name, "ok", f"{', '.join(world.topics)}: {parts} partition{'s' * (parts != 1)}.")


def events_arrive(world: World) -> Check:
    name = "Events arrive"
    if not world.broker.reachable or not any(about.exists for _, about in world.about):
        return Check(name, "skip", "The topic has to be there first.")
    parts = [ends for _, about in world.about for ends in about.partitions.values()]
    if not any(ends.end > 0 for ends in parts):
        return Check(
            name, "bad", f"Nobody has ever written to {', '.join(world.topics)}.",
            "Send something: `manage.py produce synthetic`, or point your producer at the topic.",
        )  # fmt: skip
    newest = max((ends.newest_at for ends in parts if ends.newest_at), default=None)
    if newest is None:
        return Check(name, "ok", f"{sum(ends.end for ends in parts):,} messages came so far.")
    age = world.now - newest
    if age > QUIET_TOPIC:
        return Check(
            name, "bad", f"The newest message came {lasting(age)} ago.",
            "Look at the producers: nothing new can be odd while nothing comes.",
        )  # fmt: skip
    return Check(name, "ok", f"The newest message came {lasting(age)} ago.")


def consumer_alive(world: World) -> Check:
    name = "A consumer reads them"
    if not world.who.rows and world.starting:
        return Check(
            name, "bad", "A consumer is starting: it compiles its kernels, which takes longest the "
            "first time after an update.", "Wait a minute or two.",
            reverse("system") + "#processes", "Processes",
        )  # fmt: skip
    if not world.who.rows:
        return Check(
            name, "bad", "No consumer has given a sign for 15 s.",
            "Start one: `manage.py runconsumer`.", reverse("system") + "#processes", "Processes",
        )  # fmt: skip
    alone = [row for row in world.rows if not row.owner]
    if alone:
        return Check(
            name, "bad" if len(alone) == len(world.rows) else "warn",
            f"{len(alone)} of {len(world.rows)} partitions have no consumer.",
            "Wait for the group to hand them over, or start another consumer.",
            reverse("streams"), "Partitions",
        )  # fmt: skip
    n = len(world.who.rows)
    return Check(name, "ok", f"{n} consumer{'s' * (n != 1)} read"
                 f"{'s' * (n == 1)} {len(world.rows)} partitions.")  # fmt: skip


def decodable(world: World) -> Check:
    return _readable(world, "They can be decoded", "decode", "The producer writes something else "
                     "than JSON: look at the bytes.")  # fmt: skip


def mapping_right(world: World) -> Check:
    return _readable(world, "The mapping fits", "map", "Mend the stream’s mapping or the "
                     "producer, then retry the letters.")  # fmt: skip


def _readable(world: World, name: str, stage: str, todo: str) -> Check:
    bad = {r: n for r, n in world.rejected.items() if r in STAGES[stage]}
    n, events = sum(bad.values()), world.worked["events"]
    seen = events + sum(world.rejected.values())
    if not seen:
        return Check(name, "skip", "No message was read in the last hour.")
    if not n:
        return Check(name, "ok", f"None of {seen:,} messages of the last hour failed here.")
    worst = max(bad, key=lambda reason: bad[reason])
    share = n / seen
    state = "bad" if share >= MANY else "warn" if share >= FEW else "ok"
    said = f"{n:,} of {seen:,} messages of the last hour failed, mostly for “{reason_name(worst)}”."
    if state == "ok":
        return Check(name, state, said)
    return Check(name, state, said, todo, f"{reverse('streams')}?stage={stage}#letters",
                 "Dead letters")  # fmt: skip


def not_lagging(world: World) -> Check:
    name = "It keeps up"
    if not world.who.rows:
        return Check(name, "skip", "A consumer has to run first.")
    lag = sum(row.lag or 0 for row in world.rows)
    lost = sum(row.lost for row in world.rows)
    if lost:
        return Check(
            name, "bad", f"Kafka deleted {lost:,} events before they were read.",
            "Keep messages longer in Kafka, and see why the consumer was away.",
            reverse("streams"), "Partitions",
        )  # fmt: skip
    behind = max((row.behind_s for row in world.rows if row.behind_s is not None), default=0.0)
    if behind > BEHIND_S or lag > MANY_UNREAD:
        age = f", the oldest for {lasting(behind)}" if behind else ""
        return Check(
            name, "warn", f"{lag:,} events wait{age}: what happens now is scored later.",
            "Start another consumer, or wait until it has caught up.", reverse("streams"), "Lag",
        )  # fmt: skip
    return Check(name, "ok", f"{lag:,} events wait.")


def clocks_right(world: World) -> Check:
    name = "Their times are of now"
    marks = [row.watermark for row in world.rows if row.watermark]
    if not marks:
        return Check(name, "skip", "No event was stored yet.")
    newest = max(marks)
    ahead, past = newest - world.now, world.now - newest
    if ahead > AHEAD:
        return Check(
            name, "warn", f"The newest event is {lasting(ahead)} in the future: a clock or a "
            "zone is wrong, and every event after it counts as late.",
            "Mend the producer’s clock, or set naive_time_zone of the stream.",
        )  # fmt: skip
    if past > PAST:
        return Check(
            name, "warn", f"The newest event happened {lasting(past)} ago: recorded data, or a "
            "wrong zone. Pages that show the last hours show nothing of it.",
            "Choose a longer range.", reverse("anomalies") + "?range=all", "All time",
        )  # fmt: skip
    return Check(name, "ok", f"The newest event happened {lasting(abs(past))} ago.")


def in_order(world: World) -> Check:
    name = "They come in order"
    with connection.cursor() as cursor:
        cursor.execute(_SEGMENTS)
        segments, minutes = cursor.fetchone()
    if not segments:
        return Check(name, "skip", "No minute was stored yet.")
    share = (segments - minutes) / segments
    if share > LATE_SHARE:
        return Check(
            name, "warn", f"{share:.0%} of the newest minutes were written to again by late "
            "events. They are scored, but as what comes after newer ones.",
            "Key by source, one producer for each source.", reverse("streams"), "Streams",
        )  # fmt: skip
    return Check(name, "ok", "No more than a few came late.")


# Segments of the newest minutes: a late event opens another one of its minute.
_SEGMENTS = """
WITH newest AS (SELECT series_id, minute, partition FROM streams_rollup
                 WHERE minute >= (SELECT max(watermark) - interval '10 minutes'
                                    FROM streams_partitionoffset
                                   WHERE watermark <= now() + interval '1 day')
                 LIMIT 20000)
SELECT count(*), count(DISTINCT (series_id, minute, partition)) FROM newest
"""
