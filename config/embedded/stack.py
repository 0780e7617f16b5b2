"""The embedded servers together: starts those that nobody named, and gives their addresses.

with EmbeddedStack(folder) as stack:
    subprocess.run([...], env=os.environ | stack.env)
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from config.embedded.errors import not_ready
from config.embedded.jars import kafka_jars
from config.embedded.kafka import Kafka
from config.embedded.ports import free_port
from config.embedded.postgres import Postgres
from config.embedded.processes import Nursery
from config.embedded.state import DataFolder
from config.embedded.valkey import Valkey

Server = Kafka | Postgres | Valkey
# The environment variable that names each part.
PARTS = {
    "KAFKA_BOOTSTRAP_SERVERS": "kafka",
    "DATABASE_URL": "postgres",
    "REDIS_URL": "valkey",
}
# For tests: nothing has to survive the machine.
THROWAWAY: dict[str, dict[str, str]] = {
    "kafka": {"group.consumer.session.timeout.ms": "3000",
              "group.consumer.heartbeat.interval.ms": "500"},
    "postgres": {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
                 "autovacuum": "on"},
    "valkey": {"appendonly": "no"},
}  # fmt: skip
START_WITHIN_S = 60.0


def unnamed_parts(named: Iterable[str]) -> tuple[str, ...]:
    """The parts to embed, given the short names of the servers that somebody named."""
    return tuple(part for name, part in PARTS.items() if name not in set(named))


class EmbeddedStack:
    """Real servers on `data`, for as long as this process lives or until `stop`.

    Raises `DataFolderBusyError` when another process runs them there.
    """

    def __init__(
        self,
        data: Path,
        *,
        parts: Iterable[str] = tuple(PARTS.values()),
        throwaway: bool = False,
        jars: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder = DataFolder(data.resolve())
        self.parts = tuple(parts)
        self.env: dict[str, str] = {}
        self.servers: list[Server] = []
        self.nursery = Nursery()
        self._settings = THROWAWAY if throwaway else {}
        self._jars = jars or default_jars_folder()
        self._say = say

    def start(self) -> Self:
        self.folder.acquire()
        try:
            self.servers = self._build()
            # Kafka formats its folder in the background while PostgreSQL makes its own.
            for server in self.servers:
                server.prepare()
            for server in reversed(self.servers):
                server.start(self.nursery)
            for server in self.servers:
                _wait_for(server)
        except BaseException:
            self.stop()
            raise
        names = {part: name for name, part in PARTS.items()}
        self.env = {names[_part(server)]: server.address for server in self.servers}
        self.publish({})
        return self

    def publish(self, more: Mapping[str, object]) -> None:
        """Tells other processes on this machine where the servers are."""
        self.folder.publish({"pid": os.getpid(), "env": self.env, **more})

    def revive(self) -> list[str]:
        """Starts servers that died again, on their old ports, and returns their names."""
        dead = [s for s in self.servers if s.child and s.child.returncode() is not None]
        for server in dead:
            if server.child is not None:
                self.nursery.forget(server.child)
            server.start(self.nursery)
        return [server.name for server in dead]

    def stop(self) -> None:
        """Stops the servers, within about ten seconds; the data stays."""
        self.nursery.close()
        self.folder.release()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _build(self) -> list[Server]:
        path, ports = self.folder.path, self._ports()
        servers: list[Server] = []
        if "kafka" in self.parts:
            jars = kafka_jars(self._jars, self._say)
            pair = (ports["kafka"], ports["controller"])
            servers.append(Kafka(path / "kafka", jars, pair, self._settings.get("kafka", {})))
        if "postgres" in self.parts:
            servers.append(Postgres(path / "postgres", self._settings.get("postgres", {})))
        if "valkey" in self.parts:
            servers.append(
                Valkey(path / "valkey", ports["valkey"], self.folder.secret("valkey_password"),
                       self._settings.get("valkey", {}))
            )  # fmt: skip
        return servers

    def _ports(self) -> dict[str, int]:
        """Last time's ports where they are free, so that other programs' settings stay true."""
        file = self.folder.path / "ports.json"
        try:
            last = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            last = {}
        ports: dict[str, int] = {}
        for name in ("kafka", "controller", "valkey"):
            port = free_port(last.get(name))
            while port in ports.values():
                port = free_port()
            ports[name] = port
        file.write_text(json.dumps(ports), encoding="utf-8")
        return ports


def default_jars_folder() -> Path:
    named = os.environ.get("VIGIL_JARS_DIR")
    return Path(named) if named else Path(__file__).resolve().parents[2] / ".vigil" / "jars"


def _part(server: Server) -> str:
    return type(server).__name__.lower()


def _wait_for(server: Server) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while not server.ready():
        ended = server.child is None or server.child.returncode() is not None
        if ended or time.monotonic() > deadline:
            raise not_ready(server.name, str(server.log), _tail(server.log))
        time.sleep(0.03)


def _tail(log: Path, lines: int = 12) -> str:
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
