"""Runs Vigil's processes together: one log with prefixes, restarts, and an orderly end.

Single-threaded: the loop reads what the children print, looks who died and hears signals.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from types import FrameType
from typing import TextIO

from config.embedded.processes import Child, Nursery

BACKOFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)
# Having lived so long, a child's next death counts as its first.
SETTLED_S = 60.0
_COLOURS = {
    "web": 36,
    "consumer": 32,
    "worker": 35,
    "beat": 34,
    "demo": 33,
    "alerts": 31,
    "vigil": 1,
}


@dataclass(slots=True)
class Service:
    """A process to keep running. `stage` orders the end: lower ones stop first."""

    name: str
    command: Sequence[str]
    stage: int = 1
    # Its work is done when it ends well: it is not started again.
    may_finish: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    child: Child | None = None
    deaths: int = 0
    started_at: float = 0.0
    restart_at: float | None = 0.0


class Console:
    """Lines on one stream, each with its process' name; colours only on a terminal."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        self._stream = stream
        self._colour = stream.isatty() and not environ.get("NO_COLOR")

    def line(self, name: str, text: str) -> None:
        prefix = f"{name:<8} │"
        if self._colour:
            prefix = f"\033[{_COLOURS.get(name, 37)}m{prefix}\033[0m"
        # The terminal may be gone, and the processes still have to be stopped in order.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(f"{prefix} {text}\n")
            self._stream.flush()


class Supervisor:
    def __init__(
        self,
        nursery: Nursery,
        services: Sequence[Service],
        *,
        env: Mapping[str, str],
        cwd: Path,
        console: Console | None = None,
        backoff_s: Sequence[float] = BACKOFF_S,
        each_round: Callable[[], None] = lambda: None,
    ) -> None:
        self.services = list(services)
        self.console = console or Console(sys.stdout)
        self._nursery = nursery
        self._env = dict(env)
        self._cwd = cwd
        self._backoff_s = backoff_s
        self._each_round = each_round
        self._stopping = False
        self._pipes = selectors.DefaultSelector()
        self._unfinished: dict[int, bytes] = {}

    def run(self) -> None:
        """Until a signal or `request_stop`; then stops the services, in their order."""
        with self._signals():
            try:
                while not self._stopping:
                    for service in self.services:
                        self._keep(service)
                    self._pump(0.2)
                    self._each_round()
            finally:
                self._stop_services()

    def request_stop(self) -> None:
        self._stopping = True

    def _keep(self, service: Service) -> None:
        now = time.monotonic()
        if service.child is not None and service.child.returncode() is not None:
            self._buried(service, now)
        if service.child is None and service.restart_at is not None and now >= service.restart_at:
            self._start(service)

    def _start(self, service: Service) -> None:
        child = self._nursery.start(
            service.name,
            service.command,
            env=self._env | dict(service.env),
            cwd=self._cwd,
            output=PIPE,
        )
        service.child, service.started_at = child, time.monotonic()
        if child.process.stdout is not None:
            os.set_blocking(child.process.stdout.fileno(), False)
            self._pipes.register(child.process.stdout, selectors.EVENT_READ, service.name)

    def _buried(self, service: Service, now: float) -> None:
        child = service.child
        if child is None:
            return
        code = child.returncode()
        self._nursery.forget(child)
        self._drain(child)
        service.child = None
        if service.may_finish and code == 0:
            service.restart_at = None
            return
        service.deaths = 1 if now - service.started_at > SETTLED_S else service.deaths + 1
        wait_s = self._backoff_s[min(service.deaths, len(self._backoff_s)) - 1]
        service.restart_at = now + wait_s
        self.console.line(
            "vigil", f"{service.name} ended ({_reason(code)}); it starts again in {wait_s:g} s"
        )

    def _pump(self, timeout_s: float) -> None:
        for key, _ in self._pipes.select(timeout_s):
            try:
                data = os.read(key.fd, 65536)
            except BlockingIOError:
                continue
            if not data:
                self._pipes.unregister(key.fileobj)
                continue
            *lines, rest = (self._unfinished.pop(key.fd, b"") + data).split(b"\n")
            if rest:
                self._unfinished[key.fd] = rest
            for line in lines:
                self.console.line(key.data, line.decode("utf-8", errors="replace").rstrip("\r"))

    def _drain(self, child: Child) -> None:
        """Shows a dead child's last words, then lets go of its pipe."""
        self._pump(0)
        pipe = child.process.stdout
        if pipe is None:
            return
        rest = self._unfinished.pop(pipe.fileno(), b"")
        if rest:
            self.console.line(child.name, rest.decode("utf-8", errors="replace"))
        with contextlib.suppress(KeyError):
            self._pipes.unregister(pipe)
        pipe.close()

    def _stop_services(self) -> None:
        running = [service for service in self.services if service.child is not None]
        for stage in sorted({service.stage for service in running}):
            children = [s.child for s in running if s.stage == stage and s.child is not None]
            names = ", ".join(child.name for child in children)
            self.console.line("vigil", f"stopping {names} …")
            within_s = 2.0 if stage == 0 else 8.0
            killed = self._nursery.stop(children, within_s=within_s, meanwhile=self._pump)
            for child in children:
                self._drain(child)
            for name in killed:
                self.console.line("vigil", f"{name} did not end within {within_s:g} s: killed")
        self._pipes.close()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        # Also while stopping, when it changes nothing: a second Ctrl-C leaves nothing half done.
        def hear(number: int, frame: FrameType | None) -> None:
            self._stopping = True

        before = {n: signal.signal(n, hear) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _reason(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
