"""Starts the embedded servers before Django reads its settings, once for each test process.

Servers named in the environment (KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL, REDIS_URL) are used as
they are. A pytest plugin (`-p tests.servers`), since a conftest comes after pytest-django.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from config.embedded.errors import EmbeddedError
from config.embedded.stack import PARTS, EmbeddedStack, unnamed_parts

_stack: EmbeddedStack | None = None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-servers",
        action="store_true",
        help="start no embedded servers: for tests that need none",
    )


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, None, None]:
    options = early_config.known_args_namespace
    idle = options.no_servers or options.collectonly or options.help or options.version
    # Of several processes each has servers of its own; the one that deals out tests needs none.
    idle = idle or (options.numprocesses and "PYTEST_XDIST_WORKER" not in os.environ)
    data = Path(tempfile.mkdtemp(prefix="vigil-test-"))
    # A data folder of its own also keeps a developer's running Vigil out of the tests.
    os.environ["VIGIL_DATA_DIR"] = str(data)
    # Pages show what a test has just stored.
    os.environ.setdefault("VIGIL_DASHBOARD__KEEP_S", "0")
    early_config.add_cleanup(lambda: shutil.rmtree(data, ignore_errors=True))
    if not idle:
        _start(early_config, data)
    return (yield)


def pytest_report_header() -> list[str]:
    return [f"servers: {', '.join(_stack.parts)} embedded"] if _stack else []


def _start(config: pytest.Config, data: Path) -> None:
    global _stack
    named = {name for name in PARTS if os.environ.get(name)}
    try:
        _stack = EmbeddedStack(data, parts=unnamed_parts(named), throwaway=True, say=print).start()
    except EmbeddedError as error:
        pytest.exit(str(error), returncode=3)
    # Cleanups run last in, first out: the servers stop before their folder goes.
    config.add_cleanup(_stack.stop)
    os.environ.update(_stack.env)
