"""Live push through the real Valkey: merging, bounds, and the socket that passes it on."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import redis
from channels.testing import WebsocketCommunicator
from pytest_django import Settings

from anomalies.live import CHANNEL, MAX_ANOMALIES, LivePublisher
from anomalies.sockets import QUEUE_SIZE, RESYNC, Hub, LiveSocket

HOST = (b"host", b"127.0.0.1:8000")


def received(redis_url: str, publish: Any, wait_s: float = 1.2) -> list[dict[str, Any]]:
    """What comes out of Valkey while `publish` runs and for a moment after it."""
    with redis.Redis.from_url(redis_url) as client, client.pubsub() as subscription:
        subscription.subscribe(CHANNEL)
        subscription.get_message(timeout=2)
        publish()
        found, until = [], time.monotonic() + wait_s
        while time.monotonic() < until:
            message = subscription.get_message(ignore_subscribe_messages=True, timeout=0.1)
            if message:
                found.append(json.loads(message["data"]))
    return found


def test_a_burst_becomes_few_messages_and_nothing_is_lost(redis_url: str) -> None:
    publisher = LivePublisher(redis_url)

    def burst() -> None:
        for i in range(150):
            publisher.publish({"type": "update", "events": 10, "rejects": 1, "lag": i,
                               "anomalies": [{"id": str(i)}]})  # fmt: skip
            time.sleep(0.005)

    found = received(redis_url, burst)
    assert len(found) <= 6
    assert sum(m["events"] for m in found) == 1_500
    assert [a["id"] for m in found for a in m["anomalies"]] == [str(i) for i in range(150)]
    assert found[-1]["lag"] == 149
    publisher.close()


def test_beyond_the_bound_the_oldest_fall_out_and_are_counted(redis_url: str) -> None:
    publisher = LivePublisher(redis_url)
    many = [{"id": str(i)} for i in range(MAX_ANOMALIES + 50)]
    (message,) = received(redis_url, lambda: publisher.publish({"anomalies": many}))
    assert message["dropped"] == publisher.dropped == 50
    assert message["anomalies"][0] == {"id": "50"}
    publisher.close()


def test_a_dead_server_neither_blocks_nor_raises() -> None:
    publisher = LivePublisher("redis://127.0.0.1:1/0")
    started = time.monotonic()
    for _ in range(100):
        publisher.publish({"type": "update", "events": 1, "odd": object()})
    assert time.monotonic() - started < 0.5
    publisher.close(0.5)


async def test_a_slow_socket_is_told_to_read_again(redis_url: str) -> None:
    hub = Hub(redis_url)
    slow, quick = await hub.join(), await hub.join()
    for i in range(QUEUE_SIZE + 1):
        hub.fan_out(str(i))
        assert quick.get_nowait() == str(i)
    assert slow.get_nowait() == RESYNC
    assert slow.empty()
    hub.leave(slow)
    hub.leave(quick)


def socket(*headers: tuple[bytes, bytes], client: str = "127.0.0.1") -> WebsocketCommunicator:
    communicator = WebsocketCommunicator(LiveSocket.as_asgi(), "/ws", headers=[HOST, *headers])
    communicator.scope["client"] = [client, 5000]
    return communicator


def with_settings(settings: Settings, *, opened: bool = True, enabled: bool = True) -> None:
    api = settings.VIGIL.api.model_copy(update={"open": opened})
    dashboard = settings.VIGIL.dashboard.model_copy(update={"websocket_enabled": enabled})
    settings.VIGIL = settings.VIGIL.model_copy(update={"api": api, "dashboard": dashboard})


async def test_the_socket_passes_updates_on(settings: Settings, redis_url: str) -> None:
    with_settings(settings)
    one = socket()
    assert (await one.connect())[0]
    assert await one.receive_json_from() == {"type": "hello"}
    publisher = LivePublisher(redis_url)
    publisher.publish({"type": "update", "events": 3})
    message = await one.receive_json_from(timeout=3)
    assert (message["type"], message["events"]) == ("update", 3)
    await one.disconnect()
    publisher.close()


@pytest.mark.parametrize(
    ("opened", "enabled", "headers", "client"),
    [
        (False, True, [], "127.0.0.1"),
        (True, False, [], "127.0.0.1"),
        (True, True, [(b"origin", b"http://evil.example")], "127.0.0.1"),
        (True, True, [], "10.1.2.3"),
        (True, True, [(b"authorization", b"Bearer guess")], "10.1.2.3"),
    ],
)
async def test_the_socket_is_refused(
    settings: Settings, opened: bool, enabled: bool,
    headers: list[tuple[bytes, bytes]], client: str,
) -> None:  # fmt: skip
    with_settings(settings, opened=opened, enabled=enabled)
    assert not (await socket(*headers, client=client).connect())[0]
