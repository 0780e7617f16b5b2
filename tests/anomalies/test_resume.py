"""A client that is cut off amid traffic and comes back has each anomaly exactly once."""

from __future__ import annotations

import string
import threading
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import Settings

from anomalies import feed
from anomalies.filters import Filters
from anomalies.live import LivePublisher
from anomalies.models import Anomaly
from anomalies.results import result_of
from anomalies.sockets import LiveSocket
from streams.models import PartitionOffset, TopicIncarnation
from tests import builders

pytestmark = pytest.mark.django_db(transaction=True)


class Traffic:
    """What a consumer does: stores an anomaly with its partition's offset, then pushes it."""

    def __init__(self, redis_url: str, life: TopicIncarnation) -> None:
        self._push = LivePublisher(redis_url)
        self._life = life
        self.offsets = {0: 100, 1: 100}
        for partition, offset in self.offsets.items():
            PartitionOffset.objects.create(
                incarnation=life, partition=partition, next_offset=offset
            )

    def store(self, partition: int, *, age: timedelta = timedelta(0)) -> Anomaly:
        offset = self.offsets[partition]
        self.offsets[partition] += 10
        found = builders.anomaly(
            incarnation=self._life, partition=partition, offset=offset + 3, at=timezone.now()
        )
        if age:
            Anomaly.objects.filter(pk=found.pk).update(stored_at=timezone.now() - age)
        PartitionOffset.objects.filter(incarnation=self._life, partition=partition).update(
            next_offset=offset + 10
        )
        return found

    def tell(self, found: Anomaly) -> None:
        self._push.publish({"type": "update", "anomalies": [result_of(found)
                            | {"change": "onset"}]})  # fmt: skip

    def close(self) -> None:
        self._push.close()


class Client:
    """As live.js: takes in what it does not know by id."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.token = ""

    async def connect(self) -> WebsocketCommunicator:
        socket = WebsocketCommunicator(
            LiveSocket.as_asgi(), "/ws", headers=[(b"host", b"127.0.0.1")]
        )
        socket.scope["client"] = ["127.0.0.1", 5000]
        assert (await socket.connect())[0]
        assert await socket.receive_json_from() == {"type": "hello"}
        if self.token:
            missed = await sync_to_async(feed.since)(self.token, Filters())
            assert missed is not None
            self.token = missed.token
            self.take(missed.anomalies)
        return socket

    async def hear(self, socket: WebsocketCommunicator, until: str) -> None:
        while until not in self.seen:
            self.take((await socket.receive_json_from(timeout=10)).get("anomalies", []))

    def take(self, anomalies: list[dict[str, Any]]) -> None:
        for anomaly in anomalies:
            if anomaly["id"] not in self.seen:
                self.seen[anomaly["id"]] += 1


async def test_nothing_is_missed_and_nothing_comes_twice(
    settings: Settings, redis_url: str
) -> None:
    api = settings.VIGIL.api.model_copy(update={"open": True})
    settings.VIGIL = settings.VIGIL.model_copy(update={"api": api})
    life = await sync_to_async(builders.incarnation)()
    traffic = await sync_to_async(Traffic)(redis_url, life)
    store, client = sync_to_async(traffic.store), Client()
    await store(0)
    client.token = (await sync_to_async(feed.token_now)()).text()

    async def some(n: int) -> str:
        for i in range(n):
            found = await store(i % 2)
            traffic.tell(found)
        return str(found.pk)

    socket = await client.connect()
    await client.hear(socket, await some(20))
    # Cut off: more comes meanwhile, and one transaction that began before commits behind it all.
    began, go, done = threading.Event(), threading.Event(), threading.Event()

    def slowly() -> None:
        with transaction.atomic():
            late = traffic.store(1, age=timedelta(minutes=5))
            began.set()
            go.wait(20)
        traffic.tell(late)
        done.set()
        connection.close()

    await socket.disconnect()
    writer = threading.Thread(target=slowly)
    writer.start()
    assert await sync_to_async(began.wait)(20)
    for _ in range(10):
        traffic.tell(await store(0))
    socket = await client.connect()
    assert len(client.seen) == 30
    go.set()
    assert await sync_to_async(done.wait)(20)
    writer.join()
    # What came while nobody listened and was not in the first answer is in the next.
    await socket.disconnect()
    socket = await client.connect()
    await client.hear(socket, await some(20))
    await socket.disconnect()
    await sync_to_async(traffic.close)()
    stored = await sync_to_async(
        lambda: [str(pk) for pk in Anomaly.objects.values_list("pk", flat=True)]
    )()
    assert len(stored) == 52
    first = set(stored) - set(client.seen)
    assert len(first) == 1  # the one before the page was made
    assert set(client.seen.values()) == {1}


def test_a_token_that_is_not_ours_is_no_place() -> None:
    token = feed.token_now().text()
    assert feed.read_token(token) is not None
    letters = string.ascii_letters + string.digits + "-_=.+/ "
    cut = [token[:n] for n in range(len(token))]
    longer = [token + "AAAA" * n + c for n in range(2) for c in letters]
    altered = [token[:i] + c + token[i + 1 :] for i in range(len(token)) for c in letters]
    for odd in ("x", "é", "e" * 30_000, *cut, *longer, *altered):
        assert odd == token or feed.read_token(odd) is None, odd
    assert feed.since(token[:-3], Filters()) is None
