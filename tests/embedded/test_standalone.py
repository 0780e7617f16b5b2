"""`manage.py standalone` from an empty folder to the page, the login and the orderly end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SERVERS = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "REDIS_URL")


class Standalone:
    """The running command and what it said so far."""

    def __init__(self, data: Path) -> None:
        env = {key: value for key, value in os.environ.items() if key not in SERVERS}
        self.said = ""
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "standalone", "--source", "none"],
            cwd=PROJECT,
            env=env | {"VIGIL_DATA_DIR": str(data), "VIGIL_DASHBOARD__PORT": "18200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def until(self, words: str, within_s: float = 60.0) -> str:
        deadline = time.monotonic() + within_s
        while words not in self.said:
            assert time.monotonic() < deadline, f"{words!r} was not said:\n{self.said}"
            time.sleep(0.1)
        return self.said

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(30)
        self._reader.join(20)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
        self.process.stdout.close()


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    deadline = time.monotonic() + 20
    while _running_on(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _running_on(tmp_path) == []


@pytest.mark.slow
def test_from_an_empty_folder_to_the_page_and_back_then_again_and_killed(data: Path) -> None:
    vigil = Standalone(data)
    try:
        said = vigil.until("Stop           Ctrl-C")
        address = re.search(r"Vigil runs at  (http://\S+)", said)
        assert address is not None
        assert re.search(r"Log in as      admin / \S{12,}", said)
        with urllib.request.urlopen(f"{address[1]}/admin/login/", timeout=10) as page:  # noqa: S310
            assert page.status == 200
            assert "script-src" not in page.headers["Content-Security-Policy"]
            assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        second = subprocess.run(
            [sys.executable, "manage.py", "standalone"],
            cwd=PROJECT,
            env=os.environ | {"VIGIL_DATA_DIR": str(data)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 1
        assert f"Vigil already runs at {address[1]}" in second.stderr
        began = time.monotonic()
        assert vigil.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < 25
        assert "stopped; the data stays in" in vigil.said
        assert (data / "secret_key").stat().st_mode & 0o077 == 0
    finally:
        vigil.process.kill()
    again = Standalone(data)
    try:
        assert "Log in as      as before" in again.until("Stop           Ctrl-C")
        assert len(_running_on(data)) >= 6
    finally:
        again.end(signal.SIGKILL)  # the fixture sees that all of them end


def _running_on(data: Path) -> list[str]:
    """Processes that have the folder in their command or environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            state = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except OSError:
            continue
        if str(data).encode() in text and state != "Z":
            found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found
