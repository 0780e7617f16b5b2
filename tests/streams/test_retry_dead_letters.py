"""Dead letters get a second way: raw bytes on their topic again, once each."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from streams.connectors.topic import newest_messages
from streams.dead_letters import retry
from streams.errors import DeliveryError
from streams.models import DeadLetter, Stream, TopicIncarnation
from streams.producer import TopicProducer
from tests.conftest import MakeTopic

State = DeadLetter.State


@pytest.fixture
def life(topic: MakeTopic, db: None) -> TopicIncarnation:
    stream = Stream.objects.create(name="raw", topic=topic(2, max_message_bytes="100000"))
    return TopicIncarnation.objects.create(stream=stream, topic_id="id-1")


def letter(
    life: TopicIncarnation, offset: int, raw: bytes | None, reason: str = "schema"
) -> DeadLetter:
    return DeadLetter.objects.create(
        incarnation=life, partition=0, offset=offset, reason=reason, detail="", key=b"k", raw=raw
    )


def run(*words: str) -> str:
    out = StringIO()
    call_command("retry_dead_letters", *words, stdout=out)
    return out.getvalue()


def test_raw_bytes_go_out_again_and_count_as_retried(life: TopicIncarnation, kafka: str) -> None:
    raws = [b"\xff\x00{", b"", b'{"a": 1}']
    letters = [letter(life, offset, raw) for offset, raw in enumerate(raws)]
    tombstone = letter(life, 9, None)
    assert "3 dead letters sent again, 1 have no bytes" in run()
    client = {"bootstrap.servers": kafka}
    found = newest_messages(client, life.stream.topic, 10)
    assert [(m.key(), m.value()) for m in found] == [(b"k", raw) for raw in raws]
    states = DeadLetter.objects.filter(pk__in=[row.pk for row in letters])
    assert set(states.values_list("state", flat=True)) == {State.RETRIED}
    tombstone.refresh_from_db()
    assert tombstone.state == State.WAITING
    assert "0 dead letters sent again" in run()


def test_some_can_be_chosen(life: TopicIncarnation) -> None:
    one, two = letter(life, 1, b"1", "json"), letter(life, 2, b"2", "timestamp")
    assert "2 dead letters would be sent" in run("--dry-run")
    assert "1 dead letters sent" in run("--reason", "timestamp")
    assert "1 dead letters sent" in run(str(one.pk), "--stream", "raw")
    with pytest.raises(CommandError, match=f"no waiting dead letter has the id {two.pk}"):
        run(str(two.pk))
    with pytest.raises(CommandError, match=r"no such stream\. There are: raw"):
        run("--stream", "none")


def test_what_the_broker_refuses_stays_waiting(life: TopicIncarnation, kafka: str) -> None:
    row = letter(life, 1, b"x" * 3_000_000)
    producer = TopicProducer({"bootstrap.servers": kafka}, compression="none")
    with pytest.raises(DeliveryError):
        retry(producer, [row.pk])
    row.refresh_from_db()
    assert row.state == State.WAITING
