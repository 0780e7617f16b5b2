"""Many WebSocket clients in a process of their own: when each of them heard of which anomaly.

`python -m config.benchmark.listeners ws://127.0.0.1:8000/ws 100 heard.json` says "ready" once all
are connected, and writes what was heard when its input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from autobahn.asyncio.websocket import WebSocketClientFactory, WebSocketClientProtocol

CONNECT_WITHIN_S = 60.0


class Heard:
    """What all clients heard; they get the same texts, so each is parsed once."""

    def __init__(self) -> None:
        self.open = 0
        self.lost = 0
        self.messages = 0
        self.resyncs = 0
        self.at: list[tuple[int, float]] = []  # (text, moment), for each message of each client
        self.texts: dict[str, int] = {}

    def take(self, text: str) -> None:
        now = time.time()
        self.messages += 1
        self.at.append((self.texts.setdefault(text, len(self.texts)), now))

    def result(self) -> dict[str, Any]:
        parsed = [json.loads(text) for text in self.texts]
        self.resyncs = sum(parsed[n]["type"] == "resync" for n, _ in self.at)
        ids = [[a["id"] for a in p.get("anomalies", ()) if a["change"] == "onset"] for p in parsed]
        return {
            "lost": self.lost, "messages": self.messages, "resyncs": self.resyncs,
            "dropped": sum(p.get("dropped", 0) for p in parsed),
            "heard": [(ids[n], moment) for n, moment in self.at if ids[n]],
        }  # fmt: skip


class Client(WebSocketClientProtocol):
    factory: Any

    def onOpen(self) -> None:  # noqa: N802  (autobahn's names)
        self.factory.heard.open += 1

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N802, N803
        self.factory.heard.take(payload.decode())

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:  # noqa: N802, N803
        self.factory.heard.lost += 1


async def listen(url: str, clients: int, out: Path) -> None:
    loop = asyncio.get_running_loop()
    factory: Any = WebSocketClientFactory(url)  # type: ignore[no-untyped-call]
    factory.protocol = Client
    heard = factory.heard = Heard()
    for _ in range(clients):
        await loop.create_connection(factory, factory.host, factory.port)
    deadline = time.monotonic() + CONNECT_WITHIN_S
    while heard.open < clients:
        if heard.lost or time.monotonic() > deadline:
            raise SystemExit(f"{heard.open} of {clients} clients were let in, {heard.lost} refused")
        await asyncio.sleep(0.05)
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    result = heard.result() | {"lost": heard.lost}
    await asyncio.to_thread(out.write_text, json.dumps(result))


if __name__ == "__main__":
    asyncio.run(listen(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
