"""A database that is away, SIGTERM, live settings: the consumer waits, leaves and obeys in time."""

from __future__ import annotations

import json
import signal
import time
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from django.db import connection

from anomalies.models import Anomaly
from detection.models import ThresholdPolicy, VersionLog
from streams.models import PartitionOffset, StateSnapshot
from tests.conftest import MakeTopic
from tests.integration.harness import (
    Consumer,
    Message,
    assert_same,
    await_until,
    database_url,
    events,
    produce,
    stored,
    stored_events,
)

EVENTS = 60_000
PARTITIONS = 3

pytestmark = pytest.mark.django_db(transaction=True)


def name() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"


def allow_connections(allowed: bool) -> None:
    database = connection.ops.quote_name(connection.settings_dict["NAME"])
    statement = f"ALTER DATABASE {database} ALLOW_CONNECTIONS {str(allowed).lower()}"
    # PostgreSQL lets nobody lock the door of the room he is in.
    elsewhere = urlunsplit(urlsplit(database_url())._replace(path="/postgres"))
    with psycopg.connect(elsewhere, autocommit=True) as other:
        other.execute(statement.encode())


def database_goes_away() -> None:
    """For everyone but this test."""
    allow_connections(False)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.fixture(autouse=True)
def open_in_the_end(transactional_db: None) -> Iterator[None]:
    yield
    allow_connections(True)


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return events(EVENTS, PARTITIONS, 12, faults=0.002)


def stored_beyond(place: str, count: float) -> bool:
    return stored_events(place) > count


def complained_beyond(consumer: Consumer, count: int) -> bool:
    return consumer.output().count("database.unreachable") > count


def rows_of(place: str) -> list[PartitionOffset]:
    return list(PartitionOffset.objects.filter(incarnation__stream__topic=place))


def test_the_consumer_waits_for_the_database_and_loses_no_place(
    messages: list[Message], topic: MakeTopic, kafka: str
) -> None:
    calm, place = topic(PARTITIONS), topic(PARTITIONS)
    produce(kafka, calm, messages)
    Consumer(name(), calm, name(), "--exit-at-end").wait()
    expected = stored(calm)

    stream, group = name(), name()
    small = {"VIGIL_KAFKA__BATCH_SIZE": "500", "VIGIL_KAFKA__GROUP_INSTANCE_ID": "one"}
    produce(kafka, place, messages[: EVENTS // 2])
    first = Consumer(stream, place, group, **small)
    for part in (0.1, 0.3):  # while it works, twice: a second outage finds other states
        await_until(partial(stored_beyond, place, part * EVENTS))
        seen = first.output().count("database.unreachable")
        database_goes_away()
        before = stored_events(place)
        await_until(partial(complained_beyond, first, seen), every_s=0.05)
        assert first.process.poll() is None, first.output()[-3000:]
        assert stored_events(place) == before
        allow_connections(True)
    produce(kafka, place, messages[EVENTS // 2 :])
    await_until(lambda: stored_events(place) > 0.6 * EVENTS)
    assert "Traceback" not in first.output()

    # Asked to stop while the database is away, it leaves in time, and the next one goes on.
    database_goes_away()
    seen = first.output().count("database.unreachable")
    await_until(lambda: first.output().count("database.unreachable") > seen, every_s=0.05)
    asked = time.monotonic()
    first.signal(signal.SIGTERM)
    first.process.wait(30)
    took = time.monotonic() - asked
    assert took < 10, f"{took:.1f} s:\n{first.output()[-3000:]}"
    allow_connections(True)
    Consumer(stream, place, group, "--exit-at-end", **small).wait()
    assert_same(expected, stored(place))


def test_one_frozen_inside_a_transaction_does_not_hold_up_its_successor(
    messages: list[Message], topic: MakeTopic, kafka: str
) -> None:
    """Its locks go while it sleeps; awake, it finds itself fenced and stores nothing."""
    place, stream, group = topic(PARTITIONS), name(), name()
    produce(kafka, place, messages)
    small = {"VIGIL_KAFKA__BATCH_SIZE": "500"}
    slow = Consumer(stream, place, group, **small)
    await_until(lambda: stored_events(place) > EVENTS // 20)
    with psycopg.connect(database_url()) as holder:
        # The offsets are moved first: now it waits for the rollups with their rows locked.
        holder.execute("LOCK TABLE streams_rollup IN SHARE MODE")
        await_until(lambda: sessions()["locked"] > 0)
        slow.signal(signal.SIGSTOP)
    await_until(lambda: sessions()["idle in transaction"] > 0)
    epochs = {row.pk: row.owner_epoch for row in rows_of(place)}
    other = Consumer(stream, place, group, **small)
    await_until(lambda: all(row.owner_epoch > epochs[row.pk] for row in rows_of(place)), 40)
    slow.signal(signal.SIGCONT)
    await_until(lambda: sum(row.next_offset for row in rows_of(place)) == len(messages))
    other.stop()
    slow.stop()
    calm = topic(PARTITIONS)
    produce(kafka, calm, messages)
    Consumer(name(), calm, name(), "--exit-at-end").wait()
    assert_same(stored(calm), stored(place))


def sessions() -> dict[str, int]:
    """Other sessions of this database: how many wait for a lock, or hold locks and rest."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FILTER (WHERE wait_event_type = 'Lock'),"
            " count(*) FILTER (WHERE state = 'idle in transaction') FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        locked, idle = cursor.fetchone()
        return {"locked": locked, "idle in transaction": idle}


def test_sigterm_finishes_the_batch_and_leaves_a_snapshot_within_ten_seconds(
    messages: list[Message], topic: MakeTopic, kafka: str
) -> None:
    place, stream, group = topic(PARTITIONS), name(), name()
    produce(kafka, place, messages)
    options = {
        "VIGIL_KAFKA__BATCH_SIZE": "200",
        "VIGIL_CONSUMER__SNAPSHOT_INTERVAL_S": "1000",
        "VIGIL_KAFKA__GROUP_INSTANCE_ID": "one",
    }
    consumer = Consumer(stream, place, group, **options)
    await_until(lambda: stored_events(place) > EVENTS // 10)
    snapshots = StateSnapshot.objects.filter(incarnation__stream__topic=place)
    assert not snapshots.exists()
    asked = time.monotonic()
    consumer.signal(signal.SIGTERM)
    consumer.wait(30)
    took = time.monotonic() - asked
    assert took < 10
    assert stored_events(place) < EVENTS - 10_000  # it was in the middle of the work
    rows = rows_of(place)
    assert all(row.snapshot_offset == row.next_offset for row in rows)
    assert snapshots.exists()
    # The next one starts exactly there: nothing to run again.
    where = {row.partition: row.next_offset for row in rows}
    output = Consumer(stream, place, group, "--exit-at-end", **options).wait()
    for partition, offset in where.items():
        assert f"partition={partition} epoch=2 from={offset} stored={offset}" in output


def test_a_saved_policy_counts_within_five_seconds(topic: MakeTopic, kafka: str) -> None:
    place, stream = topic(2), name()
    consumer = Consumer(stream, place, name())
    log = VersionLog.objects.filter(incarnation__stream__topic=place)
    await_until(lambda: log.count() == 2)
    usual = [(p, event(p, i, 50 + i % 7)) for i in range(400) for p in range(2)]
    produce(kafka, place, usual)
    await_until(lambda: stored_events(place) == len(usual))

    policy = ThresholdPolicy.objects.create(name="live", threshold=0.6, source_pattern="s1")
    saved = time.monotonic()
    await_until(lambda: log.count() == 4, timeout_s=10)
    assert time.monotonic() - saved < 5
    for entry in log.filter(from_offset=400):
        assert entry.scoring_version.payload["policies"][0]["name"] == "live"
    assert log.filter(from_offset=400).count() == 2

    produce(kafka, place, [(p, event(p, 400 + i, 9_000)) for i in range(3) for p in range(2)])
    found = Anomaly.objects.filter(incarnation__stream__topic=place, offset=400)
    await_until(lambda: found.count() == 2)
    named = dict(found.values_list("partition", "policy"))
    assert named == {0: "configuration", 1: "live v1"}

    # Switched off, it stops counting as fast.
    policy.enabled = False
    policy.save()
    await_until(lambda: log.count() == 6, timeout_s=5)
    consumer.stop()


def event(partition: int, i: int, value: float) -> bytes:
    body: dict[str, Any] = {
        "source": f"s{partition}", "metric": "cpu", "value": value,
        "timestamp": 1_704_067_200 + 10 * i,
    }  # fmt: skip
    return json.dumps(body).encode()
