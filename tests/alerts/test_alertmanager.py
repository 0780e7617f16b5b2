"""Against Debian's own Alertmanager: an incident is one alert there, and ends when it ends."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from alerts.outgoing import Client, Guard
from alerts.receivers import KINDS
from tests.alerts.test_receivers import message

NAME = "prometheus-alertmanager"
CONFIG = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"


def _program(folder: Path) -> list[str]:
    """The installed one, or Debian's package unpacked beside the test.

    It wants its templates in /usr/share: where it is only unpacked, it sees its own share there,
    in a mount namespace that nobody else sees.
    """
    if found := shutil.which(NAME):
        return [found]
    if shutil.which("apt-get") and shutil.which("dpkg"):
        subprocess.run(["apt-get", "download", NAME], cwd=folder, check=False, timeout=60,
                       capture_output=True)  # fmt: skip
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package.name, "root"], cwd=folder, check=True)
        root = folder / "root/usr"
        inside = ["unshare", "-m", "sh", "-c", f'mount --bind {root}/share /usr/share && exec "$@"',
                  "sh"]  # fmt: skip
        if root.exists() and shutil.which("unshare"):
            tried = subprocess.run([*inside, "true"], check=False, capture_output=True)
            if tried.returncode == 0:
                return [*inside, str(root / "bin" / NAME)]
    pytest.skip(f"{NAME} is neither installed nor to be had by apt-get")


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("alertmanager")
    program = _program(folder)
    (folder / "config.yml").write_text(CONFIG)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [*program, f"--config.file={folder}/config.yml", f"--storage.path={folder}/data",
         f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urlopen(f"{url}/-/ready", timeout=2).close()  # noqa: S310  (our own address)
                break
            except URLError:
                assert server.poll() is None, "Alertmanager ended"
                assert time.monotonic() < deadline, "Alertmanager does not answer"
                time.sleep(0.05)
        yield url
    finally:
        server.terminate()
        server.wait(10)


def _alerts(url: str) -> list[dict[str, Any]]:
    with urlopen(f"{url}/api/v2/alerts", timeout=5) as answer:  # noqa: S310  (our own address)
        found: list[dict[str, Any]] = json.load(answer)
    return found


def test_an_incident_is_one_alert_until_it_is_over(alertmanager: str) -> None:
    kind, client = KINDS["alertmanager"], Client(Guard.of(["127.0.0.0/8"]))
    thread, settings = str(uuid.uuid4()), {"url": alertmanager, "labels": "team=payments"}
    for reason in ("opened", "worse", "reminder"):
        result = kind.send(message(thread=thread, reason=reason), settings, {}, client)
        assert result.outcome == "ok", result
    (alert,) = _alerts(alertmanager)
    assert alert["labels"] == {"alertname": "Checkout paging", "incident": thread,
                               "stream": "webshop", "job": "vigil", "team": "payments"}  # fmt: skip
    assert alert["status"]["state"] == "active"
    assert alert["generatorURL"] == "https://vigil.example/incidents/7"
    over = message(thread=thread, reason="resolved")
    assert kind.send(over, settings, {}, client).outcome == "ok"
    assert _alerts(alertmanager) == []
