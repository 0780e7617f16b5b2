"""A real HTTP server that answers as it is told: timeouts, resets, 429, 500, redirects, garbage."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Got:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[["Handler", Got], None]


@dataclass
class Server:
    """Where it listens, what it got, and how it answers (``answers`` first, then ``usual``)."""

    url: str
    port: int
    got: list[Got] = field(default_factory=list)
    keys: Counter[str] = field(default_factory=Counter)
    answers: list[Answer] = field(default_factory=list)
    usual: Answer | None = None
    release: threading.Event = field(default_factory=threading.Event)
    keep: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)


class Handler(BaseHTTPRequestHandler):
    server_of: Server
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        state = self.server_of
        length = int(self.headers.get("Content-Length") or 0)
        got = Got(self.command, self.path, dict(self.headers.items()), self.rfile.read(length))
        with state.lock:
            if state.keep:
                state.got.append(got)
            if key := self.headers.get("Idempotency-Key"):
                state.keys[key] += 1
            answer = state.answers.pop(0) if state.answers else state.usual or plain(200)
        answer(self, got)

    do_GET = do_POST = do_PUT = _any  # noqa: N815  (the base class' names)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def plain(status: int, body: bytes = b"ok", **headers: str) -> Answer:
    """An ordinary answer; ``retry_after="3"`` becomes ``Retry-After``."""

    def answer(handler: Handler, got: Got) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-").title(), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def silent(handler: Handler, got: Got) -> None:
    """No answer, until the test is over."""
    handler.server_of.release.wait(30)
    handler.close_connection = True


def dripping(handler: Handler, got: Got) -> None:
    """A byte now and then, for ever."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    try:
        while not handler.server_of.release.wait(0.05):
            handler.wfile.write(b".")
            handler.wfile.flush()
    except OSError:
        handler.close_connection = True


def reset(handler: Handler, got: Got) -> None:
    """The connection is torn."""
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()
    handler.close_connection = True


def garbage(handler: Handler, got: Got) -> None:
    """No HTTP at all."""
    handler.wfile.write(b"\x00\xff\x13 what is this\r\n\r\n")
    handler.close_connection = True


@contextmanager
def serving() -> Iterator[Server]:
    """The server on a free port of 127.0.0.1."""
    handler = type("Bound", (Handler,), {})

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Torn connections are meant."""

    http = Quiet(("127.0.0.1", 0), handler)
    port = http.server_address[1]
    state = Server(f"http://127.0.0.1:{port}", port)
    handler.server_of = state  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        state.release.set()
        http.shutdown()
        http.server_close()
        thread.join()
