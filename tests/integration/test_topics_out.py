"""What a real consumer writes to topics besides: every event, dead letters; and its metrics."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from typing import Any

import pytest

from config.embedded.ports import free_port
from streams.connectors.topic import newest_messages
from streams.models import DeadLetter, PartitionOffset, Series
from tests.conftest import MakeTopic
from tests.integration.harness import Consumer, await_until, events, produce, stored_events

EVENTS = 8_000
pytestmark = pytest.mark.django_db(transaction=True)


def name() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"


def read(kafka: str, topic: str) -> list[Any]:
    return newest_messages({"bootstrap.servers": kafka}, topic, 20_000)


def test_events_and_dead_letters_reach_their_topics(topic: MakeTopic, kafka: str) -> None:
    place, results, dead = topic(4), topic(1), topic(1)
    produce(kafka, place, events(EVENTS, partitions=4, series=40))
    Consumer(
        name(), place, name(), "--exit-at-end",
        VIGIL_KAFKA__OUTPUT_TOPIC=results, VIGIL_KAFKA__DEAD_LETTER_TOPIC=dead,
        VIGIL_KAFKA__STATISTICS_TOPIC=topic(1), VIGIL_ANOMALY_DETECTION__EMIT="all",
        VIGIL_CONSUMER__MAX_SERIES="30",
    ).wait()  # fmt: skip

    told = [json.loads(m.value()) for m in read(kafka, results)]
    plain = {(r["partition"], r["offset"]) for r in told if r["change"] == "event"}
    assert len(plain) == stored_events(place)
    assert {r["anomaly_score"] is None for r in told} == {True, False}

    # a quarter of the series came too late; the others went on
    letters = DeadLetter.objects.filter(incarnation__stream__topic=place)
    assert Series.objects.filter(stream__topic=place).count() == 30
    assert letters.filter(reason="limit").count() > EVENTS / 5
    ends = PartitionOffset.objects.filter(incarnation__stream__topic=place)
    assert sum(ends.values_list("next_offset", flat=True)) == EVENTS
    copies = {
        tuple((key, value.decode()) for key, value in m.headers()): m.value()
        for m in read(kafka, dead)
    }
    for letter in letters:
        header = (
            ("reason", letter.reason), ("topic", place),
            ("partition", str(letter.partition)), ("offset", str(letter.offset)),
        )  # fmt: skip
        assert copies.pop(header) == bytes(letter.raw or b"")
    assert not copies


def test_the_metrics_of_a_consumer_are_served(topic: MakeTopic, kafka: str) -> None:
    place, port = topic(1), free_port()
    produce(kafka, place, events(500, partitions=1, series=4))
    consumer = Consumer(
        name(), place, name(),
        VIGIL_CONSUMER__METRICS_PORT=str(port), VIGIL_KAFKA__OUTPUT_TOPIC=topic(1),
        VIGIL_KAFKA__STATISTICS_TOPIC=topic(1), VIGIL_KAFKA__DEAD_LETTER_TOPIC=topic(1),
    )  # fmt: skip

    def metrics() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError:
            return ""

    try:
        await_until(lambda: "vigil_events_total 500.0" in metrics(), every_s=0.2)
        assert "vigil_latency_seconds_bucket" in metrics()
    finally:
        consumer.stop()
