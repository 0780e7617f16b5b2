"""The Kafka side of the consumer: joining the group, pausing, seeking, watermarks.

Partitions come in paused; the runner resumes each once its state is restored.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from streams.errors import BrokerError, StreamsError

log = logging.getLogger(__name__)
Place = tuple[str, int]


class SeekError(StreamsError):
    """Retry: the broker did not let the consumer move to an offset."""


class GroupConsumer:
    """A member of the consumer group that decides itself where each partition starts.

    For one thread only (but for :meth:`ask_ends`): the client lets one call in at a time, so that
    another thread's would wait for a poll, and for the rebalance that is served within it.
    """

    def __init__(
        self,
        client: Mapping[str, Any],
        *,
        group_id: str,
        instance_id: str | None = None,
        session_timeout_ms: int = 45_000,
    ) -> None:
        settings: dict[str, Any] = {
            **client,
            "group.id": group_id,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session_timeout_ms,
            "heartbeat.interval.ms": max(200, session_timeout_ms // 4),
            # 1.24 × the rate: the default of a second lets the local queue run dry
            "fetch.queue.backoff.ms": 10,
            "queued.min.messages": 50_000,
            "queued.max.messages.kbytes": 65_536,
            "fetch.wait.max.ms": 50,
            "error_cb": self._on_error,
            "logger": logging.getLogger("streams.librdkafka"),
        }
        if instance_id:
            settings["group.instance.id"] = instance_id
        self._consumer = Consumer(settings)
        self._admin = AdminClient({**client, "log_level": 0})  # the consumer says the same
        self.assigned: set[Place] = set()
        self.fresh: list[Place] = []
        self.unreachable_at = -math.inf  # time.monotonic() when no broker could be reached, last
        self._on_revoke: Callable[[list[Place], bool], None] = lambda places, lost: None

    def subscribe(
        self, topics: Sequence[str], on_revoke: Callable[[list[Place], bool], None]
    ) -> None:
        """Join; ``on_revoke(places, lost)`` is called before partitions are given up."""
        self._on_revoke = on_revoke
        self._consumer.subscribe(
            list(topics), on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lost
        )

    def poll(self, count: int, wait_s: float) -> tuple[list[Message], list[KafkaError]]:
        """Up to ``count`` messages within ``wait_s``, and errors that concern partitions."""
        messages = self._consumer.consume(count, wait_s)
        if not any(map(Message.error, messages)):
            return messages, []
        good = [m for m in messages if not m.error()]
        return good, [e for m in messages if (e := m.error())]

    def take_fresh(self) -> list[Place]:
        """Partitions that were assigned since the last call; they are paused."""
        fresh, self.fresh = self.fresh, []
        return [place for place in fresh if place in self.assigned]

    def start(self, place: Place, offset: int, timeout_s: float = 10.0) -> None:
        """Let a paused partition run from ``offset``.

        Raises:
            SeekError: the broker did not take it in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self._consumer.seek(TopicPartition(*place, offset))
                break
            except KafkaException as error:
                # "Erroneous state" until the fetcher of a new partition stands
                if time.monotonic() > deadline:
                    raise SeekError(f"{place[0]}[{place[1]}] to {offset}: {error}") from error
                time.sleep(0.05)
        self.resume([place])

    def pause(self, places: Sequence[Place]) -> None:
        """Fetch no more of these."""
        self._consumer.pause([TopicPartition(*p) for p in places])

    def resume(self, places: Sequence[Place]) -> None:
        """Go on with these."""
        self._consumer.resume([TopicPartition(*p) for p in places])

    def ask_ends(self, places: Sequence[Place], timeout_s: float = 5.0) -> dict[Place, Future[Any]]:
        """Ask the broker for logs' ends; each answer's ``offset`` is one, once it has come.

        Unlike :meth:`watermarks` this waits for nobody: that one may wait for minutes.
        """
        from confluent_kafka.admin import OffsetSpec

        wanted = {
            TopicPartition(*place): OffsetSpec.latest()  # type: ignore[no-untyped-call]
            for place in places
        }
        if not wanted:
            return {}
        answers = self._admin.list_offsets(wanted, request_timeout=timeout_s)
        return {(where.topic, where.partition): answer for where, answer in answers.items()}

    def watermarks(self, place: Place, *, cached: bool = True) -> tuple[int, int]:
        """(first offset kept, next offset of the log); -1001 where a cached one is unknown."""
        found = self._consumer.get_watermark_offsets(
            TopicPartition(*place), timeout=10.0, cached=cached
        )
        if found is None:
            raise BrokerError(f"no answer on the offsets of {place[0]}[{place[1]}]")
        return int(found[0]), int(found[1])

    def offset_at(self, place: Place, time_ms: int) -> int:
        """The first offset at or after a time, the log's end if there is none."""
        answer = self._consumer.offsets_for_times([TopicPartition(*place, time_ms)], timeout=10.0)
        offset = int(answer[0].offset)
        return offset if offset >= 0 else self.watermarks(place, cached=False)[1]

    def follow(self, offsets: Mapping[Place, int]) -> None:
        """Tell Kafka how far we are: for lag tools only, and never waited for."""
        if offsets:
            self._consumer.commit(
                offsets=[TopicPartition(*p, o) for p, o in offsets.items()], asynchronous=True
            )

    def topic_id(self, topic: str) -> str:
        """Kafka's id of the topic's present incarnation.

        Raises:
            BrokerError: no answer.
            StreamsError: there is no such topic.
        """
        from confluent_kafka import TopicCollection

        try:
            answer = self._admin.describe_topics(TopicCollection([topic]), request_timeout=10.0)
            return str(answer[topic].result(15).topic_id)
        except KafkaException as error:
            code = error.args[0].code() if error.args else None
            if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise StreamsError(
                    f"topic {topic} does not exist: create it with `manage.py topics`"
                ) from error
            raise BrokerError(f"no answer on topic {topic}: {error}") from error

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for p in partitions:
            p.offset = OFFSET_BEGINNING
        consumer.incremental_assign(partitions)
        if partitions:
            consumer.pause(partitions)
        places = [(p.topic, p.partition) for p in partitions]
        self.assigned.update(places)
        self.fresh.extend(places)

    def _revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_up(consumer, partitions, lost=False)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_up(consumer, partitions, lost=True)

    def _give_up(self, consumer: Consumer, partitions: list[TopicPartition], *, lost: bool) -> None:
        places = [(p.topic, p.partition) for p in partitions]
        self._on_revoke(places, lost)
        self.assigned.difference_update(places)
        consumer.incremental_unassign(partitions)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.unreachable_at = time.monotonic()
        log.warning("kafka.error code=%s reason=%s", error.name(), error.str())
