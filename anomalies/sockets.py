"""The live socket `/ws`: one Redis subscription a process, fanned out to bounded queues.

A slow browser loses messages, never the server its memory: it is told to read again ("resync").
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any
from weakref import WeakKeyDictionary

import redis.asyncio as redis
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.http.request import validate_host
from django.urls import path

from anomalies import access
from anomalies.live import CHANNEL

QUEUE_SIZE = 32
RESYNC = '{"type":"resync"}'
HELLO = '{"type":"hello"}'
log = logging.getLogger(__name__)


class Hub:
    """The process's one subscription and the queues of its open sockets."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._queues: set[asyncio.Queue[str]] = set()
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def join(self) -> asyncio.Queue[str]:
        """A queue of the messages from now on; returns once the subscription stands."""
        queue: asyncio.Queue[str] = asyncio.Queue(QUEUE_SIZE)
        self._queues.add(queue)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), 2)
        return queue

    def leave(self, queue: asyncio.Queue[str]) -> None:
        self._queues.discard(queue)
        if not self._queues and self._task is not None:
            self._task.cancel()
            self._task = None
            self._ready.clear()

    def fan_out(self, text: str) -> None:
        for queue in self._queues:
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
                text_for = RESYNC
            else:
                text_for = text
            queue.put_nowait(text_for)

    async def _run(self) -> None:
        wait_s, lost = 0.5, False
        while True:
            client = redis.Redis.from_url(self._url, health_check_interval=15)
            try:
                async with client.pubsub() as subscription:
                    await subscription.subscribe(CHANNEL)
                    self._ready.set()
                    wait_s = 0.5
                    if lost:
                        self.fan_out(RESYNC)
                    async for message in subscription.listen():
                        if message["type"] == "message":
                            self.fan_out(message["data"].decode())
            except (redis.RedisError, OSError) as error:
                log.warning("live.subscription_lost error=%s", error)
            finally:
                await client.aclose()
            lost = True
            self._ready.clear()
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, 10)


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def hub() -> Hub:
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        _hubs[loop] = Hub(settings.REDIS_URL)
    return _hubs[loop]


class LiveSocket(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """Sends each update as one JSON message; what a client sends is ignored."""

    _queue: asyncio.Queue[str] | None = None
    _pump: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        if not settings.VIGIL.dashboard.websocket_enabled or not self._allowed():
            await self.close()
            return
        self._queue = await hub().join()
        await self.accept()
        await self.send(text_data=HELLO)
        self._pump = asyncio.create_task(self._send_all(self._queue))

    async def disconnect(self, code: int) -> None:
        if self._pump is not None:
            self._pump.cancel()
        if self._queue is not None:
            hub().leave(self._queue)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        return None

    async def _send_all(self, queue: asyncio.Queue[str]) -> None:
        while True:
            await self.send(text_data=await queue.get())

    def _allowed(self) -> bool:
        scope: dict[str, Any] = self.scope
        headers = {
            name.decode("latin1"): value.decode("latin1") for name, value in scope["headers"]
        }
        host = headers.get("host", "").rpartition("@")[2]
        name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
        if not validate_host(name, settings.ALLOWED_HOSTS) or not access.same_origin(headers):
            return False
        user = scope.get("user")
        if user is not None and user.is_authenticated:
            return True
        if access.token_is_valid(access.token_of(headers)):
            return True
        return access.open_to((scope.get("client") or [None])[0], headers)


websocket_urlpatterns = [path("ws", LiveSocket.as_asgi())]
