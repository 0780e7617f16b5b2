"""What the broker says of topics: partitions, first and last offsets, retention, oldest unread.

Short time-outs and answers kept for some seconds: a page stays quick while Kafka is away.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType

KEEP_S = 5.0
KEEP_AWAY_S = 10.0
TIMEOUT_S = 1.5
UNREAD_WITHIN_S = 0.8
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Ends:
    """A partition's log: the oldest offset that is kept, the one behind the newest message."""

    first: int
    end: int
    led: bool = True
    newest_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Topic:
    """`retention` is None where messages are kept for ever."""

    exists: bool
    said: str = ""
    partitions: Mapping[int, Ends] = field(default_factory=dict)
    retention: timedelta | None = None
    retention_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Broker:
    """One look; `said` tells why nothing is known."""

    reachable: bool
    said: str = ""
    brokers: int = 0
    topics: Mapping[str, Topic] = field(default_factory=dict)
    # When the oldest message that was not read yet arrived, for the places that were asked for.
    unread_since: Mapping[Place, datetime] = field(default_factory=dict)


class Looker:
    """Looks at most every few seconds, one at a time, on a thread of its own."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="broker")
        self._kept: dict[tuple[str, ...], tuple[float, Broker]] = {}
        self._running: Future[Broker] | None = None

    def look(
        self, client: Mapping[str, Any], topics: Sequence[str], unread: Mapping[Place, int]
    ) -> Broker:
        """What is known of these topics; ``unread`` are the next offsets of places to look into."""
        names = tuple(sorted(set(topics)))
        with self._lock:
            at, known = self._kept.get(names, (0.0, None))
            keep = KEEP_S if known is not None and known.reachable else KEEP_AWAY_S
            if known is not None and time.monotonic() - at < keep:
                return known
            asked = self._pool.submit(ask, dict(client), names, dict(unread))
            try:
                found = asked.result(2 * TIMEOUT_S + UNREAD_WITHIN_S)
            except FutureTimeout:
                found = Broker(False, "no answer in time")
            self._kept[names] = (time.monotonic(), found)
            return found

    def forget(self) -> None:
        with self._lock:
            self._kept.clear()


looker = Looker()


def ask(client: dict[str, Any], names: tuple[str, ...], unread: dict[Place, int]) -> Broker:
    """Ask the broker now; never raises for one that is away."""
    quiet = client | {"log_level": 0, "socket.timeout.ms": int(TIMEOUT_S * 1000)}
    try:
        admin = AdminClient(quiet)
        cluster = admin.describe_cluster(request_timeout=TIMEOUT_S).result()
        found = _topics(admin, names) if names else {}
        since = _unread_since(quiet, {place: at for place, at in unread.items()
                                      if found.get(place[0], Topic(False)).exists})  # fmt: skip
    except KafkaException as error:
        reason = error.args[0]
        return Broker(False, reason.str() if isinstance(reason, KafkaError) else str(reason))
    return Broker(True, "", len(cluster.nodes), found, since)


def _topics(admin: AdminClient, names: tuple[str, ...]) -> dict[str, Topic]:
    found: dict[str, Topic] = {}
    led: dict[Place, bool] = {}
    for name, described in admin.describe_topics(
        TopicCollection(list(names)), request_timeout=TIMEOUT_S
    ).items():
        try:
            for part in described.result().partitions:
                leader = part.leader
                led[name, part.id] = leader is not None and leader.id >= 0
            found[name] = Topic(True)
        except KafkaException as error:
            found[name] = Topic(False, error.args[0].str())
    places = [TopicPartition(name, number) for (name, number), led_now in led.items() if led_now]
    first = _offsets(admin, places, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
    end = _offsets(admin, places, OffsetSpec.latest())  # type: ignore[no-untyped-call]
    newest = _newest(admin, places)
    kept = _retentions(admin, [name for name, topic in found.items() if topic.exists])
    for name, topic in found.items():
        if topic.exists:
            ends = {
                number: Ends(first.get((t, number), 0), end.get((t, number), 0), led_now,
                             newest.get((t, number)))
                for (t, number), led_now in sorted(led.items()) if t == name
            }  # fmt: skip
            age, size = kept.get(name, (None, None))
            found[name] = replace(topic, partitions=ends, retention=age, retention_bytes=size)
    return found


def _offsets(
    admin: AdminClient, places: list[TopicPartition], which: OffsetSpec
) -> dict[Place, int]:
    if not places:
        return {}
    found: dict[Place, int] = {}
    asked = admin.list_offsets(dict.fromkeys(places, which), request_timeout=TIMEOUT_S)
    for place, answer in asked.items():
        try:
            found[place.topic, place.partition] = int(answer.result().offset)
        except KafkaException:
            continue
    return found


def _newest(admin: AdminClient, places: list[TopicPartition]) -> dict[Place, datetime]:
    """The broker's time of each partition's newest message; brokers before 3.0 don't tell."""
    if not places:
        return {}
    found: dict[Place, datetime] = {}
    which = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]
    asked = admin.list_offsets(dict.fromkeys(places, which), request_timeout=TIMEOUT_S)
    for place, answer in asked.items():
        try:
            ms = int(answer.result().timestamp)
        except (KafkaException, TypeError):
            continue
        if ms > 0:
            found[place.topic, place.partition] = datetime.fromtimestamp(ms / 1000, UTC)
    return found


def _retentions(
    admin: AdminClient, names: list[str]
) -> dict[str, tuple[timedelta | None, int | None]]:
    if not names:
        return {}
    found: dict[str, tuple[timedelta | None, int | None]] = {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    for resource, answer in admin.describe_configs(resources, request_timeout=TIMEOUT_S).items():
        try:
            said = answer.result()
        except KafkaException:
            continue  # a login may be refused this while it may read
        ms, size = int(said["retention.ms"].value), int(said["retention.bytes"].value)
        found[resource.name] = (
            timedelta(milliseconds=ms) if 0 <= ms < 10**14 else None, size if size >= 0 else None,
        )  # fmt: skip
    return found


def _unread_since(client: dict[str, Any], places: dict[Place, int]) -> dict[Place, datetime]:
    """The broker's time of the message at each offset, or of the first one kept behind it."""
    if not places:
        return {}
    found: dict[Place, datetime] = {}
    reader = Consumer(
        client
        | {"group.id": "vigil-look", "enable.auto.commit": False, "auto.offset.reset": "earliest",
           "queued.max.messages.kbytes": 1_024, "fetch.message.max.bytes": 65_536}
    )  # fmt: skip
    try:
        reader.assign([TopicPartition(topic, number, at) for (topic, number), at in places.items()])
        deadline = time.monotonic() + UNREAD_WITHIN_S
        while len(found) < len(places) and (left := deadline - time.monotonic()) > 0:
            for message in reader.consume(100, min(0.2, left)):
                place = (str(message.topic()), int(message.partition() or 0))
                if message.error() is not None or place in found:
                    continue
                kind, ms = message.timestamp()
                if kind != TIMESTAMP_NOT_AVAILABLE:
                    found[place] = datetime.fromtimestamp(ms / 1000, UTC)
                    reader.pause([TopicPartition(*place)])
    finally:
        reader.close()
    return found
