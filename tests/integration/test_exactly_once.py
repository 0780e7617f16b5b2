"""Kills and freezes change nothing of what is stored: promises 1 and 2 on the real servers."""

from __future__ import annotations

import json
import random
import signal
import uuid
from functools import partial
from typing import Any

import pytest

from streams.models import PartitionOffset
from tests.conftest import MakeTopic
from tests.integration.harness import (
    Consumer,
    assert_same,
    await_until,
    events,
    produce,
    stored,
    stored_events,
)

EVENTS = 200_000
KILLS = 20
pytestmark = pytest.mark.django_db(transaction=True)


def name() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def undisturbed(topic: MakeTopic, kafka: str) -> tuple[list[Any], dict[str, Any]]:
    """The messages, and what a run that nothing disturbs stores of them."""
    messages = events(EVENTS, partitions=4, series=40)
    calm = topic(4)
    produce(kafka, calm, messages)
    consumer = Consumer(name(), calm, name(), "--exit-at-end", VIGIL_KAFKA__BATCH_SIZE="10000")
    consumer.wait()
    found = stored(calm)
    assert len(found["anomalies"]) > 50
    assert len(found["candidates"]) > 100
    assert len(found["dead letters"]) > 50
    return messages, found


def test_twenty_kills_and_a_freeze_leave_the_same_rows(
    undisturbed: tuple[list[Any], dict[str, Any]], topic: MakeTopic, kafka: str
) -> None:
    messages, expected = undisturbed
    killed(messages, expected, topic(4), kafka)
    frozen(messages, expected, topic(4), kafka)


def killed(messages: list[Any], expected: dict[str, Any], place: str, kafka: str) -> None:
    produce(kafka, place, messages)
    chance = random.Random(11)
    stream, group = name(), name()
    points = sorted(chance.sample(range(2_000, int(EVENTS * 0.93)), KILLS))
    midstream = 0
    for point in points:
        consumer = Consumer(
            stream, place, group,
            VIGIL_KAFKA__BATCH_SIZE="500", VIGIL_KAFKA__GROUP_INSTANCE_ID="one",
        )  # fmt: skip
        before = stored_events(place)
        # At least one commit more each time, so that a kill lies in new work.
        await_until(partial(reached, place, max(point, before + 1)))
        consumer.kill()
        midstream += before < stored_events(place) < EVENTS * 0.99
    assert midstream >= 15, f"only {midstream} of {KILLS} kills were mid-stream"
    Consumer(stream, place, group, "--exit-at-end", VIGIL_KAFKA__GROUP_INSTANCE_ID="one").wait()
    assert_same(expected, stored(place))


def reached(place: str, events: int) -> bool:
    return stored_events(place) >= events


def frozen(messages: list[Any], expected: dict[str, Any], place: str, kafka: str) -> None:
    produce(kafka, place, messages)
    stream, group = name(), name()
    slow = Consumer(stream, place, group, VIGIL_KAFKA__BATCH_SIZE="500")
    await_until(lambda: stored_events(place) > 20_000)
    slow.signal(signal.SIGSTOP)
    epochs = dict(PartitionOffset.objects.values_list("id", "owner_epoch"))
    other = Consumer(stream, place, group, VIGIL_KAFKA__BATCH_SIZE="500")
    # The frozen one's session ends, the other takes its partitions over: new epochs say so.
    await_until(
        lambda: all(
            o.owner_epoch > epochs[o.pk]
            for o in PartitionOffset.objects.filter(incarnation__stream__topic=place)
        )
    )
    slow.signal(signal.SIGCONT)
    await_until(lambda: stored_events(place) >= sum_of(expected), timeout_s=90)
    other.stop()
    slow.stop()
    assert_same(expected, stored(place))


def sum_of(expected: dict[str, Any]) -> int:
    """Events in all, from the undisturbed run's counts."""
    return sum(json.loads(row)[2] for row in expected["counts"])
