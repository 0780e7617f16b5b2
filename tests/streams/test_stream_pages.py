"""The pages of streams tell what broker, consumers and database say, and letters are handled."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from streams.broker import looker
from streams.connectors.topic import newest_messages
from streams.letters import Filter, page_of
from streams.models import (
    AuditEntry,
    ConsumerStatus,
    DeadLetter,
    PartitionOffset,
    PipelineStat,
    Stream,
    TopicIncarnation,
)
from streams.pace import paces
from streams.producer import TopicProducer
from streams.ranges import Range
from tests import builders
from tests.conftest import MakeTopic

pytestmark = pytest.mark.django_db
State = DeadLetter.State


@pytest.fixture(autouse=True)
def fresh() -> None:
    looker.forget()


@pytest.fixture
def viewer(client: Client) -> Client:
    client.force_login(builders.user())
    return client


@pytest.fixture
def operator() -> Client:
    client = Client()
    client.force_login(builders.user("olga", is_staff=True))
    return client


@pytest.fixture
def life(topic: MakeTopic) -> TopicIncarnation:
    """A stream whose topic of two partitions is on the broker."""
    stream = Stream.objects.create(name="webshop", topic=topic(2, retention_ms="86400000"))
    return TopicIncarnation.objects.create(stream=stream, topic_id="id-1")


def send(kafka: str, topic: str, n: int) -> None:
    with TopicProducer({"bootstrap.servers": kafka}) as producer:
        for i in range(n):
            producer.send(topic, b"%d" % i, b"k")


def owned(life: TopicIncarnation, next_offsets: dict[int, int], **more: Any) -> None:
    topic, now = life.stream.topic, timezone.now()
    for number, at in next_offsets.items():
        PartitionOffset.objects.create(incarnation=life, partition=number, next_offset=at)
    ConsumerStatus.objects.create(
        instance="c-1", started_at=now, beat_at=now,
        partitions=[{"topic": topic, "partition": p, "next_offset": at, "end_offset": at}
                    for p, at in next_offsets.items()], **more,
    )  # fmt: skip


def test_lag_is_the_brokers_end_less_the_stored_offset(
    viewer: Client, life: TopicIncarnation, kafka: str
) -> None:
    send(kafka, life.stream.topic, 30)
    owned(life, {0: 0, 1: 0})
    page = viewer.get("/streams/").content.decode()
    assert "running" in page
    assert "Lag <b>30</b> events" in page
    assert "kept 1 d" in page


def test_without_a_consumer_it_says_so_and_how_long_events_are_kept(
    viewer: Client, life: TopicIncarnation, kafka: str
) -> None:
    send(kafka, life.stream.topic, 5)
    owned(life, {0: 0, 1: 0})
    long_ago = timezone.now() - timedelta(hours=1)
    ConsumerStatus.objects.update(beat_at=long_ago)
    PartitionOffset.objects.update(updated_at=long_ago)
    page = viewer.get("/streams/webshop/").content.decode()
    assert "No consumer reads this stream" in page
    # The oldest unread message came just now, so nearly all of its day is left.
    assert "23 h 59 m" in page or ">1 d<" in page


def test_a_topic_that_is_not_there_is_a_state(viewer: Client, life: TopicIncarnation) -> None:
    Stream.objects.update(topic="nobody-made-this")
    answer = viewer.get("/streams/")
    assert answer.status_code == 200
    assert "The topic nobody-made-this does not exist" in answer.content.decode()


def test_a_broker_that_is_away_is_a_state_and_quick(
    viewer: Client, life: TopicIncarnation, settings: Settings
) -> None:
    kafka = settings.VIGIL.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    settings.VIGIL = settings.VIGIL.model_copy(update={"kafka": kafka})
    owned(life, {0: 7, 1: 9})
    began = timezone.now()
    for _ in range(3):
        page = viewer.get("/streams/").content.decode()
        assert "Kafka does not answer" in page
        assert ">7<" in page
    assert timezone.now() - began < timedelta(seconds=6)


def test_events_that_retention_took_are_counted(
    viewer: Client, life: TopicIncarnation, kafka: str, kafka_admin: Any
) -> None:
    from confluent_kafka import TopicPartition

    topic = life.stream.topic
    send(kafka, topic, 40)
    owned(life, {0: 0, 1: 0})
    ends = [TopicPartition(topic, p, -1) for p in (0, 1)]
    for future in kafka_admin.delete_records(ends).values():
        future.result(30)
    assert "40 events were deleted by Kafka" in viewer.get("/streams/").content.decode()


def test_paces_are_differences_of_offsets_whoever_read() -> None:
    start = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=10)
    for i, who in enumerate(["a", "a", "b", "b"]):
        PipelineStat.objects.create(
            instance=who, minute=start + timedelta(minutes=i),
            places={"t/0": [600 * i, 600 * i + 60 * i], "other/0": [1, 2]},
        )  # fmt: skip
    found = paces(["t"], Range("1h", start, start + timedelta(minutes=4)))["t"]
    assert list(found.partitions) == [0]
    assert found.whole.read[:4] == [None, 10.0, 10.0, 10.0]
    assert found.whole.arrived[:4] == [None, 11.0, 11.0, 11.0]
    assert found.whole.lag[:4] == [0, 60, 120, 180]


def test_a_topic_made_anew_has_no_negative_pace() -> None:
    start = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=10)
    for i, at in enumerate([9_000, 60]):
        PipelineStat.objects.create(
            instance="a", minute=start + timedelta(minutes=i), places={"t/0": [at, at]}
        )
    found = paces(["t"], Range("1h", start, start + timedelta(minutes=2)))["t"]
    assert found.whole.read[:2] == [None, None]


# ---- Dead letters -------------------------------------------------------------------------------
def letter(life: TopicIncarnation, offset: int, **more: Any) -> DeadLetter:
    given = {"reason": "json", "detail": "not JSON", "raw": b"{", "size": 1, "partition": 0}
    return DeadLetter.objects.create(incarnation=life, offset=offset, **given | more)


def test_one_is_retried_with_its_bytes(
    operator: Client, life: TopicIncarnation, kafka: str
) -> None:
    one, two = letter(life, 1, raw=b"\xff{"), letter(life, 2)
    answer = operator.post(
        "/streams/dead-letters/handle", {"do": "retry", "letter": one.pk}, follow=True
    )
    assert "1 dead letter sent again" in answer.content.decode()
    found = newest_messages({"bootstrap.servers": kafka}, life.stream.topic, 5)
    assert [m.value() for m in found] == [b"\xff{"]
    one.refresh_from_db()
    two.refresh_from_db()
    assert (one.state, one.handled_by, two.state) == (State.RETRIED, "olga", State.WAITING)


def test_all_that_match_are_retried_once_confirmed(
    operator: Client, life: TopicIncarnation, kafka: str
) -> None:
    for offset in range(7):
        letter(life, offset, reason="timestamp" if offset < 4 else "json")
    given = {"do": "retry-all", "reason": "timestamp"}
    asked = operator.post("/streams/dead-letters/handle", given).content.decode()
    assert "Send 4 dead letters again?" in asked
    assert DeadLetter.objects.filter(state=State.WAITING).count() == 7
    operator.post("/streams/dead-letters/handle", given | {"sure": "yes"})
    left = DeadLetter.objects.filter(state=State.WAITING)
    assert set(left.values_list("reason", flat=True)) == {"json"}
    assert left.count() == 3
    assert len(newest_messages({"bootstrap.servers": kafka}, life.stream.topic, 9)) == 4


def test_discarding_needs_a_reason_and_keeps_it(operator: Client, life: TopicIncarnation) -> None:
    one = letter(life, 1)
    given = {"do": "discard", "letter": one.pk}
    assert "Discard 1 dead letter?" in operator.post(
        "/streams/dead-letters/handle", given).content.decode()  # fmt: skip
    refused = operator.post("/streams/dead-letters/handle", given | {"sure": "yes", "note": " "})
    assert (refused.status_code, "Say why" in refused.content.decode()) == (400, True)
    operator.post("/streams/dead-letters/handle", given | {"sure": "yes", "note": "a test\x00"})
    one.refresh_from_db()
    assert (one.state, one.note, one.handled_by) == (State.DISMISSED, "a test", "olga")
    entry = AuditEntry.objects.latest("pk")
    assert (entry.actor_name, entry.object_name) == ("olga", "webshop")
    assert entry.after == {"dead_letters": "1 discarded: a test"}


def test_what_was_sent_in_vain_counts_its_tries(life: TopicIncarnation) -> None:
    letter(life, 1, state=State.RETRIED)
    letter(life, 2, state=State.RETRIED, raw=b"[", size=1)
    again = letter(life, 3)
    other = letter(life, 4, raw=b"[", size=1, reason="schema")
    found = page_of(Filter()).tries
    assert (found[again.pk].count, found[again.pk].alike) == (1, True)
    assert (found[other.pk].count, found[other.pk].alike) == (1, False)


@pytest.mark.parametrize(
    "query", ["reason=%00", "stage=x", "partition=-1", "before=9e9", "state=x", "q=%25%00", "x=1"]
)
def test_odd_filters_narrow_nothing_or_find_nothing(
    viewer: Client, life: TopicIncarnation, query: str
) -> None:
    letter(life, 1)
    assert viewer.get(f"/streams/?{query}").status_code == 200


def test_filters_narrow_the_list(viewer: Client, life: TopicIncarnation) -> None:
    letter(life, 11, reason="timestamp", partition=1, detail="no zone in 09:31")
    letter(life, 22, reason="json")
    for query, shown in {
        "stage=map": ["11"], "stage=decode": ["22"], "reason=json": ["22"], "partition=1": ["11"],
        "q=ZONE": ["11"], "state=retried": [], "": ["22", "11"],
    }.items():  # fmt: skip
        page = viewer.get(f"/streams/?{query}", headers={"HX-Target": "letters"}).content.decode()
        assert [n for n in ("22", "11") if f"at {n}</span>" in page] == shown, query


def test_a_viewer_handles_nothing(viewer: Client, life: TopicIncarnation) -> None:
    one = letter(life, 1)
    given = {"do": "retry", "letter": one.pk}
    assert viewer.post("/streams/dead-letters/handle", given).status_code == 403
    assert b'value="retry"' not in viewer.get("/streams/").content


def test_a_request_that_says_nothing_is_refused(operator: Client) -> None:
    assert operator.post("/streams/dead-letters/handle", {}).status_code == 400
    assert operator.post("/streams/dead-letters/handle", {"do": "retry"}).status_code == 302
