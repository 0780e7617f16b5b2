"""One message read again from its place in the log; what can't be read says why."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Found:
    """The bytes of the message, or why there are none in ``said``."""

    said: str = ""
    value: bytes | None = None
    key: bytes | None = None
    at: datetime | None = None


def read_again(
    client: Mapping[str, Any], topic: str, topic_id: str, partition: int, offset: int
) -> Found:
    """The message at an offset of that life of the topic; never raises, answers in some seconds."""
    quiet = dict(client) | {"log_level": 0, "socket.timeout.ms": int(1000 * TIMEOUT_S / 2)}
    deadline = time.monotonic() + TIMEOUT_S
    try:
        admin = AdminClient(quiet)  # by name: let go of, it takes its answers with it
        asked = admin.describe_topics(TopicCollection([topic]), request_timeout=TIMEOUT_S / 2)
        if str(asked[topic].result(TIMEOUT_S).topic_id) != topic_id:
            return Found(f"The topic {topic} was deleted and made anew since: its messages are "
                         "others.")  # fmt: skip
        reader = Consumer(quiet | {
            "group.id": "vigil-look", "enable.auto.commit": False, "auto.offset.reset": "error",
            "queued.max.messages.kbytes": 1_024, "fetch.message.max.bytes": 65_536,
        })  # fmt: skip
        try:
            return _at(reader, TopicPartition(topic, partition, offset), deadline)
        finally:
            reader.close()
    except (KafkaException, TimeoutError) as error:
        reason = error.args[0] if error.args else None
        if isinstance(reason, KafkaError) and reason.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return Found(f"The topic {topic} does not exist any more.")
        why = reason.str() if isinstance(reason, KafkaError) else str(error)
        return Found(f"Kafka gave no answer{f': {why}' if why else ''}. Try again later.")


def _at(reader: Consumer, place: TopicPartition, deadline: float) -> Found:
    first, end = reader.get_watermark_offsets(
        TopicPartition(place.topic, place.partition), timeout=TIMEOUT_S / 2
    )
    if place.offset < first:
        return Found("Kafka has deleted it: the topic's retention keeps this partition from "
                     f"offset {first:,} on.")  # fmt: skip
    if place.offset >= end:
        return Found(f"The partition ends at offset {end:,}: it has no such message.")
    reader.assign([place])
    while (left := deadline - time.monotonic()) > 0:
        message = reader.poll(left)
        if message is None:
            continue
        if (error := message.error()) is not None:
            raise KafkaException(error)
        if message.offset() != place.offset:
            return Found("Kafka has deleted it: the next message that is kept has offset "
                         f"{message.offset():,}.")  # fmt: skip
        return _found(message)
    return Found("Kafka did not give it in time. Try again.")


def _found(message: Message) -> Found:
    kind, ms = message.timestamp()
    at = datetime.fromtimestamp(ms / 1000, UTC) if kind != TIMESTAMP_NOT_AVAILABLE else None
    value, key = message.value(), message.key()
    return Found("", _bytes(value), _bytes(key), at)


def _bytes(given: str | bytes | None) -> bytes | None:
    return given.encode() if isinstance(given, str) else given


def as_text(raw: bytes) -> str:
    r"""Bytes as a page may show them: what is no text, or can't be seen, is one sign.

    >>> as_text(b"{}\x00\xff")
    '{}��'
    """
    text = raw.decode("utf-8", errors="replace")
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
