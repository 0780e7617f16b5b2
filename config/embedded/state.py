"""What the running embedded servers leave in the data folder for other processes to find.

A lock says whether they run, since it goes with its holder; stack.json says where they are.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any

LOCK, STATE = "lock", "stack.json"


class DataFolderBusyError(Exception):
    """Another process runs the embedded servers on this data folder."""


class DataFolder:
    """A folder of the embedded servers' data: `.vigil/` in the project, or VIGIL_DATA_DIR."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def acquire(self) -> None:
        """Takes the folder for this process, until it ends or releases it."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # `running` of some other process holds the lock for an instant, hence more than one try.
        for _ in range(10):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.05)
            else:
                self._lock = lock
                return
        os.close(lock)
        raise DataFolderBusyError(str(self.path))

    def release(self) -> None:
        if self._lock is not None:
            (self.path / STATE).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def publish(self, state: dict[str, Any]) -> None:
        """Writes the state whole or not at all; it holds Valkey's password, hence 0600."""
        _write_private(self.path / STATE, json.dumps(state, indent=1))

    def running(self) -> dict[str, Any] | None:
        """The state of the servers that another process runs here now, else None."""
        try:
            lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._read()
        else:
            return None
        finally:
            os.close(lock)

    def secret(self, name: str) -> str:
        """A random secret that is made once and kept with the data, readable by its owner only."""
        path = self.path / name
        try:
            return path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            self.path.mkdir(parents=True, exist_ok=True)
            _write_private(path, secrets.token_urlsafe(48))
            return path.read_text(encoding="utf-8").strip()

    def _read(self) -> dict[str, Any] | None:
        try:
            state = json.loads((self.path / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return state if isinstance(state, dict) else None


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
