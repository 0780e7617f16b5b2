"""Minute rollups: whole rows, safe to write again, in day partitions."""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest
from django.db import connection

from streams import arrays, rollups
from streams.models import Rollup
from streams.rollups import DAY_US, DayPartitions, RollupRows

NOW = dt.datetime(2026, 5, 20, 12, tzinfo=dt.UTC)
MINUTE_US = round(NOW.timestamp()) * 1_000_000


def rows(n: int = 6, **columns: Any) -> RollupRows:
    rng = np.random.default_rng(n)
    whole = RollupRows(
        series_id=np.arange(n, dtype=np.int64) % 3 + 1,
        minute_us=np.full(n, MINUTE_US, dtype=np.int64),
        incarnation_id=np.ones(n, dtype=np.int64),
        partition=np.zeros(n, dtype=np.int32),
        first_offset=np.arange(n, dtype=np.int64) * 10,
        count=np.full(n, 6, dtype=np.int32),
        scored=np.full(n, 5, dtype=np.int32),
        **{name: rng.normal(0, 1, n) for name in ("min", "max", "mean", "last", "max_score",
                                                  "low", "mid", "high")},
        score_counts=rng.integers(1, 9, (n, 20)).astype(np.int32),
        onset_counts=rng.integers(1, 9, (n, 20)).astype(np.int32),
    )  # fmt: skip
    return replace(whole, **columns)


def raw() -> psycopg.Connection:
    connection.ensure_connection()
    raw: psycopg.Connection = connection.connection
    return raw


def write(some: RollupRows) -> list[tuple[Any, ...]]:
    with arrays.cursor() as cursor:
        rollups.write(cursor, some)
    return sorted(Rollup.objects.values_list())


@pytest.mark.django_db
def test_writing_again_changes_nothing_and_a_fuller_row_replaces_the_old_one() -> None:
    some = rows()
    once = write(some)
    assert len(once) == 6
    assert write(some) == once
    fuller = replace(some, count=some.count + 1, last=some.last + 1)
    after = write(fuller)
    assert len(after) == 6
    assert after != once
    assert sorted(Rollup.objects.values_list("count", flat=True)) == [7] * 6


@pytest.mark.django_db
def test_nothing_scored_and_nothing_counted_are_null() -> None:
    nan, zeros = np.full(1, np.nan), np.zeros((1, 20), dtype=np.int32)
    write(
        rows(1, max_score=nan, low=nan, mid=nan, high=nan, score_counts=zeros, onset_counts=zeros)
    )
    row = Rollup.objects.get()
    assert (row.max_score, row.expected_low, row.expected_mid, row.expected_high) == (None,) * 4
    assert (row.score_counts, row.onset_counts) == (None, None)
    assert row.minute == NOW


@pytest.mark.django_db
def test_counts_belong_to_their_rows_where_only_some_have_any() -> None:
    some = rows(6)
    scores, onsets = some.score_counts.copy(), some.onset_counts.copy()
    scores[[0, 3]] = 0
    onsets[[1, 2, 5]] = 0
    write(replace(some, score_counts=scores, onset_counts=onsets))
    for i, (series, first) in enumerate(zip(some.series_id, some.first_offset, strict=True)):
        row = Rollup.objects.get(series_id=series, first_offset=first)
        assert row.score_counts == (None if i in (0, 3) else scores[i].tolist())
        assert row.onset_counts == (None if i in (1, 2, 5) else onsets[i].tolist())


@pytest.mark.django_db
def test_no_rows_are_no_statement() -> None:
    with arrays.cursor() as cursor:
        rollups.write(cursor, rows(0))
        assert cursor.statusmessage is None


def partitions() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits"
            " WHERE inhparent = 'streams_rollup'::regclass"
        )
        return {name for (name,) in cursor.fetchall()}


def day(n: int) -> np.ndarray:
    return np.array([MINUTE_US + n * DAY_US], dtype=np.int64)


@pytest.mark.django_db
def test_near_days_get_a_partition_and_far_ones_the_default() -> None:
    days = DayPartitions()
    near, far = np.concatenate([day(-60), day(0), day(3)]), np.concatenate([day(-61), day(4)])
    before = partitions()
    days.ensure(raw(), np.concatenate([near, far]), NOW)
    made = partitions() - before
    assert made == {"streams_rollup_20260321", "streams_rollup_20260520", "streams_rollup_20260523"}
    days.ensure(raw(), near, NOW)
    DayPartitions().ensure(raw(), near, NOW)
    assert partitions() - before == made
    write(rows(5, minute_us=np.concatenate([near, far])))
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM streams_rollup_20260520")
        assert cursor.fetchone() == (1,)
        cursor.execute("SELECT count(*) FROM streams_rollup_default")
        assert cursor.fetchone() == (2,)


@pytest.mark.django_db
def test_a_day_whose_rows_lie_in_the_default_partition_stays_there() -> None:
    write(rows(2))
    DayPartitions().ensure(raw(), day(0), NOW)
    assert "streams_rollup_20260520" not in partitions()
    assert len(write(rows(2))) == 2


@pytest.mark.django_db(transaction=True)
def test_many_consumers_may_make_the_same_day_at_once() -> None:
    failed: list[BaseException] = []
    start = threading.Barrier(6)

    def make() -> None:
        try:
            one = raw()
            start.wait(10)
            DayPartitions().ensure(one, np.concatenate([day(1), day(2)]), NOW)
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    try:
        assert failed == []
        assert {"streams_rollup_20260521", "streams_rollup_20260522"} <= partitions()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE streams_rollup_20260521, streams_rollup_20260522")
