"""Looks at topics and makes missing ones, for the sources and for reading history."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from streams.errors import BrokerError

TIMEOUT_S = 15.0


def ensure_topic(
    client: Mapping[str, Any],
    topic: str,
    *,
    partitions: int,
    replication: int = 1,
    retention_hours: float | None = None,
) -> bool:
    """Make the topic where it is missing; True if it was made. An existing one is left as it is."""
    admin = AdminClient(dict(client))
    if topic in _metadata(admin, client):
        return False
    config = (
        {} if retention_hours is None else {"retention.ms": str(round(retention_hours * 3.6e6))}
    )
    future = admin.create_topics(
        [NewTopic(topic, partitions, replication, config=config)], request_timeout=TIMEOUT_S
    )[topic]
    try:
        future.result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise BrokerError(f"topic {topic!r} can't be made: {error.args[0].str()}") from error
    return True


def partitions_of(client: Mapping[str, Any], topic: str) -> list[int]:
    """The topic's partitions, sorted; empty where there is no such topic."""
    return sorted(_metadata(AdminClient(dict(client)), client).get(topic, ()))


def event_counts(client: Mapping[str, Any], topic: str) -> dict[int, int]:
    """How many messages each partition holds; empty where there is no such topic."""
    consumer = reader(client)
    try:
        spans = {
            partition: consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=TIMEOUT_S
            )
            for partition in partitions_of(client, topic)
        }
    finally:
        consumer.close()
    return {partition: high - low for partition, (low, high) in spans.items()}


def reader(client: Mapping[str, Any], **more: Any) -> Consumer:
    """A consumer outside of any group: it commits nothing and takes no partition from anybody."""
    return Consumer(
        {
            **client,
            "group.id": "vigil-reader",  # the client wants a name; assigning by hand never joins it
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            **more,
        }
    )


def newest_messages(client: Mapping[str, Any], topic: str, per_partition: int) -> list[Message]:
    """The last messages of each partition, at most that many of each, in no order between them."""
    consumer = reader(client)
    try:
        starts: list[TopicPartition] = []
        for partition in partitions_of(client, topic):
            low, high = consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=TIMEOUT_S
            )
            if high > low:
                starts.append(TopicPartition(topic, partition, max(low, high - per_partition)))
        return _read_to_end(consumer, starts)
    finally:
        consumer.close()


def start_offsets(
    consumer: Consumer, topic: str, partitions: list[int], since_ms: int
) -> dict[int, int]:
    """The first offset of each partition whose message arrived at or after that time.

    A partition without such a message is left out.
    """
    asked = [TopicPartition(topic, partition, since_ms) for partition in partitions]
    found = consumer.offsets_for_times(asked, timeout=TIMEOUT_S)
    return {p.partition: p.offset for p in found if p.offset not in (-1, OFFSET_INVALID)}


def arrivals(consumer: Consumer, most: int, topic: str) -> Iterator[list[Message]]:
    """Messages as they come, for ever; the caller leaves once it has all it wants.

    Raises:
        BrokerError: nothing came for a long time, not even the news that an end is reached.
    """
    heard = time.monotonic()
    while True:
        # `consume` waits for its time-out unless all it was asked for is there: so a short one.
        got = consumer.consume(most, timeout=0.1)
        if got:
            yield got
            heard = time.monotonic()
        elif time.monotonic() - heard > TIMEOUT_S:
            raise BrokerError(f"the broker sends nothing more of topic {topic}")


def _read_to_end(consumer: Consumer, starts: list[TopicPartition]) -> list[Message]:
    messages: list[Message] = []
    if not starts:
        return messages
    consumer.assign(starts)
    open_partitions = {start.partition for start in starts}
    for got in arrivals(consumer, 1_000, starts[0].topic):
        for message in got:
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                open_partitions.discard(message.partition() or 0)
            else:
                raise BrokerError(error.str())
        if not open_partitions:
            break
    return messages


def _metadata(admin: AdminClient, client: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    try:
        listed = admin.list_topics(timeout=TIMEOUT_S)
    except KafkaException as error:
        raise BrokerError(
            f"no Kafka broker answers at {client.get('bootstrap.servers')}: {error.args[0].str()}"
        ) from error
    return {name: tuple(entry.partitions) for name, entry in listed.topics.items()}
