"""Debian's own Alertmanager, started for a test."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

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


@contextmanager
def serving(folder: Path, config: str = CONFIG) -> Iterator[str]:
    """Its address, once it is ready."""
    program = _program(folder)
    (folder / "config.yml").write_text(config)
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


def alerts(url: str) -> list[dict[str, Any]]:
    with urlopen(f"{url}/api/v2/alerts", timeout=5) as answer:  # noqa: S310  (our own address)
        found: list[dict[str, Any]] = json.load(answer)
    return found


def fire(url: str, **alert: Any) -> None:
    """Post one alert to it."""
    body = json.dumps([alert]).encode()
    request = Request(f"{url}/api/v2/alerts", body, {"Content-Type": "application/json"})  # noqa: S310
    urlopen(request, timeout=5).close()  # noqa: S310  (our own address)
