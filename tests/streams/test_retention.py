"""Retention of streams: whole day partitions go, recorded data read in late stays."""

from __future__ import annotations

import datetime as dt
import threading

import numpy as np
import pytest
from django.db import connection

from streams import retention
from streams.models import (
    ConsumerStatus,
    DeadLetter,
    PipelineStat,
    Rollup,
    Series,
    StateSnapshot,
    Stream,
    TopicIncarnation,
)
from streams.rollups import DayPartitions

NOW = dt.datetime(2026, 5, 20, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.fixture(autouse=True)
def _no_days_of_other_tests(db: None) -> None:
    """Tests whose rows are committed leave the days that these lay in."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = 'streams_rollup'::regclass AND c.relname LIKE '%\\_2%'"
        )
        for (name,) in cursor.fetchall():
            cursor.execute(f'DROP TABLE "{name}"')


@pytest.fixture
def incarnation(db: None) -> TopicIncarnation:
    stream = Stream.objects.create(name="raw", topic="raw")
    return TopicIncarnation.objects.create(stream=stream, topic_id="id-1")


def rollup(life: TopicIncarnation, series: Series, minute: dt.datetime) -> None:
    Rollup.objects.create(
        series=series, minute=minute, incarnation=life, partition=0, first_offset=0,
        count=1, scored=0, min=1, max=1, mean=1, last=1,
    )  # fmt: skip


def series_of(life: TopicIncarnation, name: str, last: dt.datetime) -> Series:
    return Series.objects.create(stream=life.stream, source=name, metric="cpu", last_event_at=last)


def partition(*days: dt.datetime) -> None:
    connection.ensure_connection()
    minutes = np.array([round(day.timestamp() * 1e6) for day in days], dtype=np.int64)
    DayPartitions().ensure(connection.connection, minutes, NOW)


def apply(rollups_days: float = 10, dead_letters_days: float = 5) -> retention.Dropped:
    return retention.apply(
        NOW, rollups_days=rollups_days, hours_days=365, dead_letters_days=dead_letters_days
    )


def test_old_day_partitions_are_dropped_whole(incarnation: TopicIncarnation) -> None:
    series = series_of(incarnation, "a", NOW)
    days = [NOW - n * DAY for n in (12, 11, 10, 9, 0)]
    partition(*days)
    for day in days:
        rollup(incarnation, series, day)
    dropped = apply()
    assert dropped.partitions == ["streams_rollup_20260508", "streams_rollup_20260509"]
    left = Rollup.objects.order_by("minute").values_list("minute", flat=True)
    assert list(left) == days[2:]
    assert apply().partitions == []


def test_in_the_default_partition_age_counts_from_the_series_newest_event(
    incarnation: TopicIncarnation,
) -> None:
    recorded = dt.datetime(2014, 2, 14, tzinfo=dt.UTC)
    old, live = series_of(incarnation, "nab", recorded), series_of(incarnation, "live", NOW)
    for minute in (recorded, recorded - 9 * DAY, recorded - 11 * DAY):
        rollup(incarnation, old, minute)
    rollup(incarnation, live, recorded)
    assert apply().rollups == 2
    assert Rollup.objects.filter(series=old).count() == 2
    assert not Rollup.objects.filter(series=live).exists()


def test_dead_letters_and_minutes_go_by_age_and_snapshots_stay(
    incarnation: TopicIncarnation,
) -> None:
    for offset, age in enumerate((1, 4, 6, 400)):
        letter = DeadLetter.objects.create(
            incarnation=incarnation, partition=0, offset=offset, reason="json", detail="x"
        )
        DeadLetter.objects.filter(pk=letter.pk).update(created_at=NOW - age * DAY)
        PipelineStat.objects.create(instance="c", minute=NOW - age * 2 * DAY)
        ConsumerStatus.objects.create(
            instance=str(age), started_at=NOW, beat_at=NOW - age * 2 * DAY
        )
    gone = series_of(incarnation, "gone", NOW - 4_000 * DAY)
    StateSnapshot.objects.create(
        incarnation=incarnation, partition=0, series=gone, last_offset=1, layout="x", state=b"1"
    )
    dropped = apply()
    assert (dropped.dead_letters, dropped.minutes, dropped.statuses) == (2, 2, 3)
    assert StateSnapshot.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_partition_in_use_is_left_for_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "LOCK_TIMEOUT_MS", 100)
    partition(NOW - 20 * DAY)
    held, done = threading.Event(), threading.Event()

    def read() -> None:
        connection.set_autocommit(False)
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM streams_rollup")
            held.set()
            done.wait(20)
        connection.rollback()
        connection.close()

    reader = threading.Thread(target=read)
    reader.start()
    held.wait(10)
    dropped = apply()
    done.set()
    reader.join(10)
    assert dropped.busy == ["streams_rollup_20260430"]
    assert apply().partitions == ["streams_rollup_20260430"]
