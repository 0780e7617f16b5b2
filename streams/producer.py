"""Puts messages on topics: keyed, compressed, idempotent, bounded in memory.

A message counts as delivered when the broker has it; what could not be delivered is told by
`flush`, never swallowed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.errors import DeliveryError

log = logging.getLogger(__name__)
client_log = logging.getLogger("streams.librdkafka")

QUEUED_MESSAGES = 100_000
QUEUED_KBYTES = 256 * 1024
BLOCK = 2_000  # messages handed to librdkafka at once

Headers = list[tuple[str, str | bytes | None]]
Record = tuple[bytes | None, bytes | None]  # key, value


class TopicProducer:
    """A thin wrapper of librdkafka's producer that keeps count of what failed.

    The partitioner is Java's murmur2, so that a key meets the same partition whoever produced it.
    """

    def __init__(
        self,
        client: Mapping[str, Any],
        *,
        linger_ms: int = 20,
        compression: str = "lz4",
        delivery_timeout_ms: int = 120_000,
    ) -> None:
        self._failed = 0
        self._first_error: KafkaError | None = None
        self.queued = 0
        self._producer = Producer(
            {
                **client,
                "linger.ms": linger_ms,
                "compression.type": compression,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": QUEUED_MESSAGES,
                "queue.buffering.max.kbytes": QUEUED_KBYTES,
                "message.max.bytes": 16_000_000,
                "delivery.timeout.ms": delivery_timeout_ms,
                "delivery.report.only.error": True,
                "on_delivery": self._delivered,
                "error_cb": _told,
            },
            logger=client_log,
        )

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers | None = None,
    ) -> None:
        """Queue one message; blocks while the local queue is full.

        Raises:
            DeliveryError: it is refused at once, such as for a topic that does not exist.
        """
        while True:
            try:
                self._producer.produce(topic, value, key, headers=headers or [])
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                raise DeliveryError(1, 0, f"{topic}: {error.args[0].str()}") from error
            else:
                self.queued += 1
                break
        self._producer.poll(0)

    def send_many(self, topic: str, records: Iterable[Record]) -> int:
        """Queue messages in order; blocks while the local queue is full. Returns how many."""
        produce, poll = self._producer.produce, self._producer.poll
        sent = 0
        for key, value in records:
            while True:
                try:
                    produce(topic, value, key)
                except BufferError:
                    poll(0.1)
                else:
                    break
            sent += 1
            if sent % BLOCK == 0:
                poll(0)
        poll(0)
        self.queued += sent
        return sent

    def poll(self) -> None:
        """Serve delivery reports without waiting."""
        self._producer.poll(0)

    @property
    def failed(self) -> int:
        """Messages the broker did not take, since the last flush that raised."""
        return self._failed

    def flush(self, timeout_s: float = 120.0) -> None:
        """Wait until all queued messages are delivered.

        Raises:
            DeliveryError: some were refused, or had no answer in time.
        """
        waiting = self._producer.flush(timeout_s)
        failed, error = self._failed, self._first_error
        self._failed, self._first_error = 0, None
        if failed or waiting:
            raise DeliveryError(failed, waiting, error.str() if error else "no answer in time")

    def close(self, timeout_s: float = 120.0) -> None:
        """Flush; the producer must not be used afterwards."""
        self.flush(timeout_s)

    def abandon(self) -> None:
        """Give up what is queued: for leaving in a hurry when the broker is gone."""
        self._producer.purge()
        self._producer.flush(1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self._producer.flush(5.0)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed += 1
            if self._first_error is None:
                self._first_error = error


def _told(error: KafkaError) -> None:
    log.warning("kafka.error code=%s reason=%s", error.name(), error.str())
