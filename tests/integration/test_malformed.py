"""Broken messages of many kinds between good ones: each a dead letter, no good event lost."""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter

import pytest
from confluent_kafka import Producer

from streams.models import DeadLetter, PartitionOffset, Series
from streams.vectors import label_of
from tests.conftest import MakeTopic
from tests.integration.harness import Consumer, produce, stored_events
from tests.streams.malformed import Malformed, malformed

PARTITIONS = 3
GOOD = 4_000
LARGEST = 8_000_000  # bytes of a message that topic and producer let through

pytestmark = pytest.mark.django_db(transaction=True)


def name() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"


def good(i: int) -> bytes:
    """Mostly plain events; every tenth is a wide one of three."""
    event = {"source": f"web-{i % 5}", "timestamp": 1_704_067_200 + i}
    if i % 10:
        return json.dumps({**event, "metric": "cpu", "value": i / 7}).encode()
    return json.dumps({**event, "values": {"cpu": i, "mem": -i, "disk": i / 3}}).encode()


def events_of(i: int) -> int:
    return 1 if i % 10 else 3


class Mixed:
    """Bad messages at random places between good ones, and where each of them went."""

    def __init__(self, bootstrap: str, topic: str, bad: list[Malformed]) -> None:
        self.bad: dict[tuple[int, int], Malformed] = {}
        self.events = Counter(dict.fromkeys(range(PARTITIONS), 0))
        self.messages = Counter(dict.fromkeys(range(PARTITIONS), 0))
        producer = Producer(
            {"bootstrap.servers": bootstrap, "message.max.bytes": LARGEST, "linger.ms": 5}
        )
        order: list[Malformed | int] = [*bad, *range(GOOD)]
        random.Random(4).shuffle(order)
        for number, one in enumerate(order):
            partition = number % PARTITIONS
            key = one.key if isinstance(one, Malformed) else b"good"
            value = one.value if isinstance(one, Malformed) else good(one)
            producer.produce(topic, value, key, partition=partition)
            if isinstance(one, Malformed):
                self.bad[partition, self.messages[partition]] = one
            else:
                self.events[partition] += events_of(one)
            self.messages[partition] += 1
            if number % 50 == 0:
                producer.flush(30)
        assert producer.flush(60) == 0


def test_each_bad_message_is_a_dead_letter_and_no_good_event_is_lost(
    topic: MakeTopic, kafka: str
) -> None:
    bad = list(malformed(per_kind=20, heavy_per_kind=2))
    assert len(bad) >= 1_000
    assert len({one.kind for one in bad}) >= 20
    assert max(len(one.value or b"") for one in bad) >= 5_000_000
    place = topic(PARTITIONS, max_message_bytes=str(LARGEST))
    mixed = Mixed(kafka, place, bad)
    Consumer(
        name(), place, name(), "--exit-at-end",
        VIGIL_CONSUMER__DEAD_LETTER_RATIO_LIMIT="1", VIGIL_KAFKA__BATCH_SIZE="500",
    ).wait()  # fmt: skip

    letters = {
        (row.partition, row.offset): row
        for row in DeadLetter.objects.filter(incarnation__stream__topic=place)
    }
    missed = {one.kind for at, one in mixed.bad.items() if at not in letters}
    assert not missed, f"no dead letter of: {missed}"
    assert letters.keys() == mixed.bad.keys()
    wrong = {
        (one.kind, letters[at].reason, letters[at].detail)
        for at, one in mixed.bad.items()
        if letters[at].reason not in one.reasons
    }
    assert not wrong
    for at, one in mixed.bad.items():
        row = letters[at]
        raw = None if row.raw is None else bytes(row.raw)
        assert raw == one.value, one.kind
        assert bytes(row.key) == one.key, one.kind
        assert row.size == len(one.value or b"")
        assert row.detail.strip(), one.kind

    partitions = PartitionOffset.objects.filter(incarnation__stream__topic=place)
    rejects = Counter(partition for partition, _ in mixed.bad)
    assert {p.partition: p.next_offset for p in partitions} == mixed.messages
    assert {p.partition: p.events for p in partitions} == mixed.events
    assert {p.partition: p.rejects for p in partitions} == rejects
    # Refused messages leave no series behind.
    names = set(Series.objects.filter(stream__topic=place).values_list("source", "metric"))
    wide = {("web-0", "mem"), ("web-0", "disk"), ("web-0", label_of(("cpu", "disk", "mem")))}
    assert names == {(f"web-{s}", "cpu") for s in range(5)} | wide


def test_too_many_dead_letters_stop_the_consumer_loudly_with_all_of_them_stored(
    topic: MakeTopic, kafka: str
) -> None:
    place = topic(1)
    broken = [(0, b"no event") if i % 5 else (0, good(10 * i + 1)) for i in range(15_000)]
    produce(kafka, place, broken)
    stream, group = name(), name()
    consumer = Consumer(stream, place, group, VIGIL_CONSUMER__DEAD_LETTER_RATIO_LIMIT="0.5")
    output = consumer.wait(60, code=1)
    assert "80% of the last" in output
    assert "consumer.dead_letter_ratio_limit" in output
    assert "Traceback" not in output
    row = PartitionOffset.objects.get(incarnation__stream__topic=place)
    letters = DeadLetter.objects.filter(incarnation__stream__topic=place)
    assert row.next_offset >= 10_000
    assert letters.count() == row.rejects == row.next_offset * 4 // 5

    # Started again, it goes on behind them: nothing is read twice, nothing is stuck.
    again = Consumer(
        stream, place, group, "--exit-at-end", VIGIL_CONSUMER__DEAD_LETTER_RATIO_LIMIT="1"
    )
    again.wait()
    assert letters.count() == 12_000
    assert stored_events(place) == 3_000
