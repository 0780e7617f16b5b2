"""A member of the group on the real broker: paused until started, and where it was told to."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from streams.consumer import GroupConsumer, Place
from streams.errors import BrokerError, StreamsError
from streams.producer import TopicProducer
from tests.conftest import MakeTopic


@pytest.fixture
def member(kafka: str) -> Iterator[Callable[..., GroupConsumer]]:
    made: list[GroupConsumer] = []

    def make(group: str | None = None) -> GroupConsumer:
        made.append(
            GroupConsumer(
                {"bootstrap.servers": kafka}, group_id=group or f"g-{uuid.uuid4().hex[:8]}",
                session_timeout_ms=6_000,
            )
        )  # fmt: skip
        return made[-1]

    yield make
    for one in made:
        one.close()


def fill(kafka: str, topic: str, n: int) -> None:
    with TopicProducer({"bootstrap.servers": kafka}) as producer:
        for i in range(n):
            producer.send(topic, str(i).encode(), b"k")


def assigned(one: GroupConsumer, *others: GroupConsumer, count: int) -> list[Place]:
    deadline = time.monotonic() + 30
    while len(one.assigned) != count:
        assert time.monotonic() < deadline
        messages, errors = one.poll(100, 0.1)
        assert (messages, errors) == ([], [])
        for other in others:
            other.poll(100, 0.1)
    return sorted(one.take_fresh())


def read(one: GroupConsumer, count: int) -> list[int]:
    found: list[int] = []
    deadline = time.monotonic() + 30
    while len(found) < count:
        assert time.monotonic() < deadline
        found += [int(m.offset() or 0) for m in one.poll(100, 0.2)[0]]
    return found


def test_partitions_come_paused_and_run_from_where_they_are_started(
    member: Callable[..., GroupConsumer], topic: MakeTopic, kafka: str
) -> None:
    name = topic(1)
    fill(kafka, name, 50)
    one = member()
    one.subscribe([name], lambda places, lost: None)
    assert assigned(one, count=1) == [(name, 0)]
    assert one.take_fresh() == []
    assert one.poll(100, 0.5) == ([], [])
    one.start((name, 0), 20)
    assert read(one, 30) == list(range(20, 50))
    one.start((name, 0), 48)
    assert read(one, 2) == [48, 49]


def test_nothing_is_lost_over_a_pause(
    member: Callable[..., GroupConsumer], topic: MakeTopic, kafka: str
) -> None:
    name = topic(1)
    fill(kafka, name, 300)
    one = member()
    one.subscribe([name], lambda places, lost: None)
    assigned(one, count=1)
    one.start((name, 0), 0)
    found: list[int] = []
    while len(found) < 300:
        found += [int(m.offset() or 0) for m in one.poll(20, 1.0)[0]]
        one.pause([(name, 0)])
        found += [int(m.offset() or 0) for m in one.poll(20, 0.01)[0]]
        one.resume([(name, 0)])
    assert found == list(range(300))


def test_a_partition_that_goes_is_announced_before(
    member: Callable[..., GroupConsumer], topic: MakeTopic
) -> None:
    name = topic(2)
    given_up: list[tuple[list[Place], bool]] = []
    one, other = member("shared-" + name), member("shared-" + name)
    one.subscribe([name], lambda places, lost: given_up.append((places, lost)))
    assigned(one, count=2)
    other.subscribe([name], lambda places, lost: None)
    assigned(other, one, count=1)
    ((places, lost),) = [g for g in given_up if g[0]]
    assert not lost
    assert set(places) == other.assigned
    assert one.assigned | other.assigned == {(name, 0), (name, 1)}


def test_watermarks_times_and_the_topics_id(
    member: Callable[..., GroupConsumer], topic: MakeTopic, kafka: str
) -> None:
    name = topic(1)
    before_ms = int(time.time() * 1_000) - 60_000
    fill(kafka, name, 5)
    one = member()
    one.subscribe([name], lambda places, lost: None)
    assigned(one, count=1)
    place = (name, 0)
    assert one.watermarks(place, cached=False) == (0, 5)
    assert one.offset_at(place, before_ms) == 0
    assert one.offset_at(place, before_ms + 10**9) == 5
    assert one.topic_id(name) == one.topic_id(name) != one.topic_id(topic(1))


def test_a_topic_that_is_not_there_says_what_to_do(member: Callable[..., GroupConsumer]) -> None:
    with pytest.raises(StreamsError, match=r"manage\.py topics") as error:
        member().topic_id("there-is-no-such-topic")
    assert not isinstance(error.value, BrokerError)
