"""A real Daphne on the test database, and a real browser; a missing one skips, or fails in CI."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from django.core.management import call_command
from django.db import connection, connections
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")


def empty_database() -> None:
    call_command("flush", verbosity=0, interactive=False)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE streams_rollup")


@pytest.fixture(scope="session")
def site(django_db_setup: None) -> Iterator[str]:
    """The address of a Daphne that serves the test database."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = connection.settings_dict
    address = f"postgresql://{quote(found.get('USER') or '')}@/{found['NAME']}?host={found['HOST']}"
    if found.get("PORT"):
        address += f"&port={found['PORT']}"
    if found.get("PASSWORD"):
        address = address.replace("@/", f":{quote(found['PASSWORD'])}@/")
    env = os.environ | {"DATABASE_URL": address, "DJANGO_SETTINGS_MODULE": "config.settings"}
    command = [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port),
               "config.asgi:application"]  # fmt: skip
    server = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def rows(site: str, transactional_db: None) -> Iterator[None]:
    """An empty database to fill, seen by the server as well."""
    empty_database()
    yield
    # Playwright's loop gives this thread connections of its own, which nobody else closes.
    connections.close_all()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. For a module only: Playwright keeps a loop running in this thread meanwhile, in
    which Django would refuse the database and asynchronous tests could not start."""
    path = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI needs an installed Chromium for the page tests.")
        pytest.skip("no Chromium is installed")
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if server.poll() is not None:
            pytest.fail(f"Daphne ended with {server.returncode}")
        try:
            with urlopen(url + "/login/", timeout=5):  # noqa: S310  (our own address)
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail("Daphne did not answer within 30 s")
