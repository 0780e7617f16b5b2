"""Fixtures for every test: the real servers' addresses and fresh topics."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from typing import Protocol

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.db import connection

# A password's hash is slow by design, and tests sign in a lot; every process can still check it.
PBKDF2PasswordHasher.iterations = 1


@pytest.fixture(autouse=True)
def _rollups_go_as_well(request: pytest.FixtureRequest) -> Iterator[None]:
    """Behind a test whose rows are committed: the flush knows managed tables only."""
    marker = request.node.get_closest_marker("django_db")
    commits = marker is not None and marker.kwargs.get("transaction", False)
    if not commits and "transactional_db" not in request.fixturenames:
        yield
        return
    request.getfixturevalue("transactional_db")
    yield
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE streams_rollup")


LONG = ("integration", "embedded", "browser")  # the longest first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Folders of long tests first: short files fill up what is left of the processes' time."""

    def rank(item: pytest.Item) -> int:
        return next((i for i, part in enumerate(LONG) if part in item.path.parts), len(LONG))

    items.sort(key=rank)


class MakeTopic(Protocol):
    def __call__(self, partitions: int = 1, **settings: str) -> str:
        """A new topic's name. Settings such as `retention_ms="1000"` become `retention.ms`."""


@pytest.fixture(scope="session")
def kafka() -> str:
    """The broker's `host:port`."""
    return os.environ["KAFKA_BOOTSTRAP_SERVERS"]


@pytest.fixture(scope="session")
def redis_url() -> str:
    return os.environ["REDIS_URL"]


@pytest.fixture(scope="session")
def kafka_admin(kafka: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka})


def _is_led(admin: AdminClient, name: str, partitions: int) -> bool:
    found = admin.list_topics(name, timeout=10).topics[name].partitions
    return len(found) == partitions and all(p.leader >= 0 for p in found.values())


@pytest.fixture
def topic(kafka_admin: AdminClient) -> Iterator[MakeTopic]:
    """Makes topics with names of their own, and deletes them after the test."""
    made: list[str] = []

    def make(partitions: int = 1, **settings: str) -> str:
        name = f"test-{uuid.uuid4().hex[:12]}"
        config = {key.replace("_", "."): value for key, value in settings.items()}
        future = kafka_admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name]
        future.result(30)
        made.append(name)
        # Made is not led: asked too early, the broker refuses its own partitions.
        deadline = time.monotonic() + 30
        while not _is_led(kafka_admin, name, partitions):
            assert time.monotonic() < deadline, f"topic {name} got no leaders"
            time.sleep(0.02)
        return name

    yield make
    if made:
        for future in kafka_admin.delete_topics(made).values():
            future.result(30)
