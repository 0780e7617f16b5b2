"""Results reach the topic at least once, also those that a consumer left behind."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.utils import timezone

from anomalies import announce
from anomalies.announce import Announcer
from anomalies.models import Outbox
from anomalies.pending import Found
from streams import checkpoint
from streams.checkpoint import Owned
from streams.codec import Reject
from streams.connectors.topic import newest_messages
from streams.errors import DeliveryError
from streams.models import Stream, TopicIncarnation
from streams.producer import TopicProducer
from tests.conftest import MakeTopic

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def owned(transactional_db: None) -> Owned:
    stream = Stream.objects.create(name="raw", topic="raw")
    return checkpoint.acquire(checkpoint.incarnation(stream, "id-1"), 0, "me")


class Heard:
    """An announcer on topics of its own, and what arrived there."""

    def __init__(
        self,
        kafka: str,
        results: str,
        statistics: str,
        make: Any = None,
        dead_letters: str | None = None,
    ) -> None:
        self.client = {"bootstrap.servers": kafka}
        self.results, self.statistics = results, statistics
        self.pushed: list[dict[str, Any]] = []
        self.announcer = Announcer(
            make or (lambda: TopicProducer(self.client, linger_ms=5)),
            results,
            statistics,
            self,
            dead_letters,
        )

    def publish(self, message: dict[str, Any]) -> None:
        self.pushed.append(message)

    def close(self, timeout_s: float = 2.0) -> None: ...

    def on_topic(self) -> list[dict[str, Any]]:
        return [json.loads(m.value()) for m in newest_messages(self.client, self.results, 100)]


@pytest.fixture
def heard(topic: MakeTopic, kafka: str, owned: Owned) -> Iterator[Callable[..., Heard]]:
    made: list[Heard] = []

    def make(producer: Any = None) -> Heard:
        made.append(Heard(kafka, topic(1), topic(1), producer))
        return made[-1]

    yield make
    for one in made:
        one.announcer.close()


def row(owned: Owned, n: int, partition: int = 0, **more: Any) -> Outbox:
    return Outbox.objects.create(
        anomaly_id=uuid.UUID(int=n), sequence=0, kind="onset", partition=partition,
        payload={"id": str(n), "source": "web-1", "n": n}, incarnation_id=owned.incarnation_id,
        **more,
    )  # fmt: skip


def found(*rows: Outbox) -> Found:
    return Found(len(rows), [(r.anomaly_id, r.sequence, r.payload) for r in rows])


def unpublished() -> int:
    return Outbox.objects.filter(published_at__isnull=True).count()


def await_published(timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while unpublished():
        assert time.monotonic() < deadline, f"{unpublished()} rows are still unpublished"
        time.sleep(0.02)


def test_what_was_found_is_on_the_topic_and_counts_as_published(
    heard: Callable[..., Heard], owned: Owned
) -> None:
    one = heard()
    rows = [row(owned, n) for n in range(3)]
    assert one.announcer.found(found(*rows)) == 3
    await_published()
    assert [m["n"] for m in one.on_topic()] == [0, 1, 2]
    assert [a["n"] for a in one.pushed[0]["anomalies"]] == [0, 1, 2]


def test_the_next_owner_sends_what_the_last_one_left(
    heard: Callable[..., Heard], owned: Owned
) -> None:
    for n in range(4):
        row(owned, n)
    row(owned, 4, published_at=timezone.now())
    other = row(owned, 5, partition=1)
    one = heard()
    one.announcer.recover(owned)
    deadline = time.monotonic() + 20
    while unpublished() > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [m["n"] for m in one.on_topic()] == [0, 1, 2, 3]
    other.refresh_from_db()
    assert other.published_at is None


class Flaky(TopicProducer):
    """A broker that takes nothing for the first two flushes."""

    failures = 2

    def flush(self, timeout_s: float = 30.0) -> None:
        super().flush(timeout_s)
        if self.failures:
            self.failures -= 1
            raise DeliveryError(1, 0, "the broker is away")


def test_what_could_not_be_sent_is_sent_later_without_a_restart(
    heard: Callable[..., Heard], owned: Owned, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "RETRY_S", 0.1)
    one = heard(lambda: Flaky({"bootstrap.servers": kafka}, linger_ms=5))
    one.announcer.recover(owned)
    one.announcer.found(found(row(owned, 1)))
    await_published()
    assert {m["n"] for m in one.on_topic()} == {1}


def test_a_missing_statistics_topic_keeps_no_result_back(
    kafka: str, topic: MakeTopic, owned: Owned
) -> None:
    one = Heard(kafka, topic(1), f"missing-{uuid.uuid4().hex}")
    for n in range(12):
        one.announcer.tick({"events_per_s": 1.0})
        one.announcer.found(found(row(owned, n)))
        await_published()
        time.sleep(0.05)  # the broker's answer on the topic comes at its own time
    one.announcer.close()
    assert [m["n"] for m in one.on_topic()] == list(range(12))


def test_closing_sends_what_is_queued(heard: Callable[..., Heard], owned: Owned) -> None:
    one = heard()
    for n in range(20):
        one.announcer.found(found(row(owned, n)))
    one.announcer.tick({"events": 5, "events_per_s": 2.5})
    one.announcer.close()
    assert unpublished() == 0
    statistics = newest_messages(one.client, one.statistics, 10)
    assert [json.loads(m.value())["events_per_s"] for m in statistics] == [2.5]


def test_a_dead_letter_is_copied_with_its_bytes_and_place(
    kafka: str, topic: MakeTopic, owned: Owned
) -> None:
    dead = topic(1)
    one = Heard(kafka, topic(1), topic(1), dead_letters=dead)
    rejects = [
        Reject(3, 17, "json", "no JSON", b"key", b"{\xff"),
        Reject(0, 18, "empty", "the message has no value", None, None),
    ]
    one.announcer.refused("raw", rejects)
    one.announcer.close()
    first, second = newest_messages(one.client, dead, 10)
    assert (first.key(), first.value()) == (b"key", b"{\xff")
    assert first.headers() == [
        ("reason", b"json"), ("topic", b"raw"), ("partition", b"3"), ("offset", b"17")
    ]  # fmt: skip
    assert (second.key(), second.value()) == (None, None)


def test_rows_that_stay_unpublished_are_sent_without_being_asked_for(
    heard: Callable[..., Heard], owned: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "LOOK_S", 0.3)
    monkeypatch.setattr(announce, "RETRY_S", 0.1)
    one = heard()
    one.announcer.recover(owned)
    time.sleep(0.2)  # the owner's own look at the outbox comes first, and finds nothing
    row(owned, 1)
    await_published()
    assert [m["n"] for m in one.on_topic()] == [1]


def test_rows_of_a_partition_that_was_taken_over_are_its_new_owners(
    heard: Callable[..., Heard], owned: Owned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "LOOK_S", 0.2)
    monkeypatch.setattr(announce, "RETRY_S", 0.1)
    one = heard()
    one.announcer.recover(owned)
    time.sleep(0.1)
    life = TopicIncarnation.objects.get(pk=owned.incarnation_id)
    checkpoint.acquire(life, 0, "another")
    row(owned, 1)
    time.sleep(1.0)
    assert unpublished() == 1
