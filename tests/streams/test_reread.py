"""A message read again from its place, and the ways in which it can be gone."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from django.test import Client
from pytest_django import Settings

from streams.reread import Found, read_again
from tests import builders
from tests.conftest import MakeTopic


def topic_id(admin: AdminClient, topic: str) -> str:
    return str(admin.describe_topics(TopicCollection([topic]))[topic].result(10).topic_id)


def send(kafka: str, topic: str, *values: bytes, partition: int = 1) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    for value in values:
        producer.produce(topic, value, b"web-1", partition=partition)
    assert producer.flush(10) == 0


def test_the_message_at_its_place_and_no_other(
    kafka: str, kafka_admin: AdminClient, topic: MakeTopic
) -> None:
    name, client = topic(partitions=2), {"bootstrap.servers": kafka}
    life = topic_id(kafka_admin, name)
    send(kafka, name, b'{"value": 1.0}', b"\xff\x00", b"three")

    def read(offset: int, life: str = life, partition: int = 1, name: str = name) -> Found:
        return read_again(client, name, life, partition, offset)

    first, second = read(0), read(1)
    assert (first.value, first.key, first.said) == (b'{"value": 1.0}', b"web-1", "")
    assert first.at is not None
    assert abs(first.at.timestamp() - time.time()) < 60
    assert second.value == b"\xff\x00"
    assert "ends at offset 3" in read(3).said
    assert "ends at offset 0" in read(0, partition=0).said
    assert "made anew" in read(0, life="another").said
    assert "does not exist" in read(0, name=f"{name}-gone").said
    kafka_admin.delete_records([TopicPartition(name, 1, 2)])
    deadline = time.monotonic() + 10
    while read(1).value is not None:
        assert time.monotonic() < deadline
    assert "from offset 2 on" in read(1).said
    assert read(2).value == b"three"


def test_a_broker_that_is_away_is_told_of_in_time() -> None:
    began = time.monotonic()
    found = read_again({"bootstrap.servers": "127.0.0.1:1"}, "raw", "id", 0, 0)
    assert "Kafka gave no answer" in found.said
    assert time.monotonic() - began < 6


@pytest.mark.django_db
def test_an_anomaly_shows_its_raw_event(
    client: Client, kafka: str, kafka_admin: AdminClient, topic: MakeTopic, settings: Settings
) -> None:
    name = topic(partitions=2)
    send(kafka, name, b"before", b'{"source": "<b>", "value": 85.5}')
    stream = builders.stream(name)
    life = stream.incarnations.create(topic_id=topic_id(kafka_admin, name))
    odd = builders.anomaly(builders.series(stream=stream), incarnation=life, partition=1, offset=1)
    path = f"/anomalies/{odd.pk}/event"
    assert client.get(path).status_code == 302
    client.force_login(builders.user())
    assert path in client.get(f"/anomalies/{odd.pk}/").content.decode()
    whole = client.get(path).content.decode()
    part = client.get(path, headers={"hx-request": "true"}).content.decode()
    assert "&lt;b&gt;&quot;, &quot;value&quot;: 85.5" in part
    assert "web-1" in part
    assert "before" not in part
    assert "<h1>Raw event</h1>" in whole
    assert "<h1>" not in part
    by_hand = builders.anomaly(origin="manual", incarnation=None, partition=None, offset=None)
    assert client.get(f"/anomalies/{by_hand.pk}/event").status_code == 404
    assert "/event" not in client.get(f"/anomalies/{by_hand.pk}/").content.decode()
