"""A series that falls silent is told within seconds; nobody is called silent for our own gaps."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from anomalies.models import Anomaly, Outbox
from config.embedded.stack import EmbeddedStack
from detection.models import ThresholdPolicy
from streams.models import Series
from tests.conftest import MakeTopic
from tests.integration import harness
from tests.integration.harness import Consumer, stored_events

LIMIT_S = 3.0
EVERY_S = 0.1

# Nothing here is over at once, and the consumer needs the machine more than the question.
await_until = partial(harness.await_until, every_s=0.05)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def name() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"


class Sources:
    """Beats of some sources from a thread of their own, one key a source; any may be paused."""

    def __init__(self, bootstrap: str, topic: str, names: tuple[str, ...]) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
        self._topic = topic
        self.beating = set(names)
        self.sent = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            for source in sorted(self.beating):
                body = {"source": source, "metric": "heartbeat", "value": 1.0,
                        "timestamp": round(time.time() * 1e6)}  # fmt: skip
                self._producer.produce(self._topic, json.dumps(body).encode(), source.encode())
                self.sent += 1
            self._producer.poll(0)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self._producer.flush(30)


@pytest.fixture
def limit(transactional_db: None) -> ThresholdPolicy:
    return ThresholdPolicy.objects.create(name="short", silence_after_s=LIMIT_S)


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[EmbeddedStack]:
    """One that may be killed: the others' is left alone."""
    with EmbeddedStack(tmp_path, parts=("kafka",), throwaway=True) as stack:
        yield stack


@pytest.fixture
def start(kafka: str) -> Iterator[Callable[[str, tuple[str, ...]], Sources]]:
    started: list[Sources] = []

    def begin(topic: str, names: tuple[str, ...]) -> Sources:
        started.append(Sources(kafka, topic, names))
        return started[-1]

    yield begin
    for one in started:
        one.end()


def missing(source: str, **more: object) -> bool:
    return Anomaly.objects.filter(kind="missing", source=source, **more).exists()


def seen_to_arrive(sources: int) -> bool:
    """The clock may speak of so many: before, all their events were a past that was read in."""
    return Series.objects.filter(delivery_delay_s__isnull=False).count() == sources


def test_a_source_and_a_whole_topic_fall_silent_and_come_back(
    limit: ThresholdPolicy, topic: MakeTopic, start: Callable[[str, tuple[str, ...]], Sources]
) -> None:
    place, stream, group = topic(2), name(), name()
    consumer = Consumer(stream, place, group)
    sources = start(place, ("edge-1", "edge-2", "edge-3"))
    await_until(lambda: seen_to_arrive(3))

    # one of them, while the others go on
    sources.beating.discard("edge-1")
    stopped = time.monotonic()
    await_until(lambda: missing("edge-1", state="open"), 30)
    assert LIMIT_S - 1 < time.monotonic() - stopped < LIMIT_S + 8
    found = Anomaly.objects.get(kind="missing")
    assert (found.onset_at - found.stored_at).total_seconds() < 0
    assert found.onset_at.timestamp() == pytest.approx(time.time(), abs=10)
    sources.beating.add("edge-1")
    await_until(lambda: missing("edge-1", state="closed"), 10)

    # all of them; who takes over goes on with what is open
    sources.beating.clear()
    await_until(lambda: Anomaly.objects.filter(kind="missing", state="open").count() == 3, 30)
    consumer.kill()
    consumer = Consumer(stream, place, group)
    await_until(lambda: Anomaly.objects.filter(kind="missing", severity__gte=3).count() == 3, 60)
    sources.beating.update({"edge-1", "edge-2", "edge-3"})
    await_until(lambda: Anomaly.objects.filter(kind="missing", state="closed").count() == 4, 30)
    consumer.stop()
    assert Anomaly.objects.count() == 4
    for anomaly in Anomaly.objects.all():
        told = list(
            Outbox.objects.filter(anomaly=anomaly).order_by("sequence")
            .values_list("sequence", "kind")
        )  # fmt: skip
        assert told[0] == (0, "onset")
        assert told[-1] == (len(told) - 1, "closed")


def test_a_consumer_that_was_away_calls_nobody_silent(
    limit: ThresholdPolicy, topic: MakeTopic, start: Callable[[str, tuple[str, ...]], Sources]
) -> None:
    place, stream, group = topic(2), name(), name()
    first = Consumer(stream, place, group)
    sources = start(place, ("edge-1", "edge-2"))
    await_until(lambda: seen_to_arrive(2))
    first.stop()
    away = sources.sent
    await_until(lambda: sources.sent > away + 2 * 3 * LIMIT_S / EVERY_S, 60)
    second = Consumer(stream, place, group)
    await_until(lambda: stored_events(place) > away + 2 * 4 * LIMIT_S / EVERY_S, 60)
    # it can tell: it does so of one that stops
    sources.beating.discard("edge-2")
    await_until(lambda: missing("edge-2", state="open"), 30)
    second.stop()
    assert Anomaly.objects.count() == 1


def test_a_broker_that_was_killed_makes_nobody_silent(
    limit: ThresholdPolicy, own_broker: EmbeddedStack
) -> None:
    place, bootstrap = name(), own_broker.env["KAFKA_BOOTSTRAP_SERVERS"]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(place, 2, 1)])[place].result(30)
    consumer = Consumer(name(), place, name(), KAFKA_BOOTSTRAP_SERVERS=bootstrap)
    sources = Sources(bootstrap, place, ("edge-1", "edge-2"))
    try:
        await_until(lambda: seen_to_arrive(2))
        (broker,) = own_broker.servers
        assert broker.child is not None
        os.kill(broker.child.pid, signal.SIGKILL)
        away = sources.sent
        await_until(lambda: sources.sent > away + 2 * 3 * LIMIT_S / EVERY_S, 60)
        assert own_broker.revive() == ["Kafka"]
        back = sources.sent
        await_until(lambda: stored_events(place) > back, 60)
        # it can tell: it does so of what stops then
        sources.beating.clear()
        stopped = time.time()
        await_until(lambda: missing("edge-1") and missing("edge-2"), 90)
    finally:
        sources.end()
    consumer.stop()
    onsets = Anomaly.objects.values_list("onset_at", flat=True)
    assert len(onsets) == 2
    assert min(onsets).timestamp() > stopped
