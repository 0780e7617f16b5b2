"""Hours of series: the same as their minutes, also with late events, and after those are gone."""

from __future__ import annotations

import datetime as dt
import threading
import time
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from django.db import connection, transaction

from streams import arrays, history, hours, retention, rollups
from streams.models import HourDue, Rollup, RollupHour, Series
from streams.rollups import DayPartitions, RollupRows
from tests import builders

NOW = dt.datetime(2026, 5, 20, 12, 30, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
START, END = NOW - 3 * DAY, NOW


def written(of: Series, minutes: list[dt.datetime], offset: int = 0, value: float = 0.0) -> None:
    """Minutes of six events as a consumer stores them; the same arguments give the same rows."""
    n = len(minutes)
    rng = np.random.default_rng([offset, n])
    mean = rng.normal(50 + value, 2, n)
    none = np.arange(n) % 4 == 0
    rows = RollupRows(
        series_id=np.full(n, of.pk, dtype=np.int64),
        minute_us=np.array([round(m.timestamp() * 1e6) for m in minutes], dtype=np.int64),
        incarnation_id=np.full(n, builders.incarnation(of.stream).pk, dtype=np.int64),
        partition=np.zeros(n, dtype=np.int32),
        first_offset=np.arange(n, dtype=np.int64) * 6 + offset,
        count=rng.integers(1, 9, n).astype(np.int32),
        scored=np.full(n, 5, dtype=np.int32),
        min=mean - 3, max=mean + 3, mean=mean, last=mean + 1,
        max_score=np.where(none, np.nan, rng.random(n)),
        low=np.where(none, np.nan, 40.0), mid=np.where(none, np.nan, mean),
        high=np.where(none, np.nan, 60.0),
        score_counts=(rng.integers(0, 3, (n, 20)) * (np.arange(n) % 3 == 0)[:, None])
        .astype(np.int32),
        onset_counts=np.zeros((n, 20), dtype=np.int32),
    )  # fmt: skip
    connection.ensure_connection()
    DayPartitions().ensure(connection.connection, rows.minute_us, NOW)
    with transaction.atomic(), arrays.cursor() as cursor:
        rollups.write(cursor, rows)


def seen(of: Series, step: int = 10_800, start: dt.datetime = START) -> list[Any]:
    """The buckets up to the last digits, which depend on the order of adding."""
    found = history.buckets([of.pk], start, start + 9 * DAY, step).get(of.pk, [])
    return [[None if v is None else float(f"{v:.9g}") for v in astuple(b)] for b in found]


def rest() -> int:
    """Roll up as if everything had come to rest."""
    HourDue.objects.update(touched_at=NOW - DAY, since=NOW - DAY)
    return hours.roll_up(NOW)


def apply(rollups_days: float) -> retention.Dropped:
    return retention.apply(NOW, rollups_days=rollups_days, hours_days=365, dead_letters_days=365)


@pytest.fixture
def series(db: None) -> Series:
    one = builders.series(last_event_at=NOW)
    minutes = [END - dt.timedelta(minutes=7 * i + 1) for i in range(600)]
    written(one, [m.replace(second=0) for m in minutes])
    return one


def test_long_ranges_read_the_same_from_hours_as_from_minutes(series: Series) -> None:
    before, day = seen(series), seen(series, 86_400)
    assert len(before) == 25
    assert rest() > 60
    assert HourDue.objects.count() == 1  # the hour that runs
    assert RollupHour.objects.count() > 60
    assert (seen(series), seen(series, 86_400)) == (before, day)
    counted = np.sum([r.score_counts for r in Rollup.objects.exclude(score_counts=None)
                      if r.minute < NOW.replace(minute=0)], axis=0)  # fmt: skip
    kept = np.sum([h.score_counts for h in RollupHour.objects.exclude(score_counts=None)], axis=0)
    assert kept.tolist() == counted.tolist()


def test_late_events_are_in_at_once_and_a_replay_changes_nothing(series: Series) -> None:
    rest()
    before = seen(series)
    late = [NOW - DAY, NOW - DAY + dt.timedelta(minutes=1)]
    written(series, late, offset=100_000, value=500)
    with_late = seen(series)
    assert with_late != before
    assert rest() == 1
    written(series, late, offset=100_000, value=500)
    assert seen(series) == with_late
    rest()
    assert seen(series) == with_late


def test_hours_stay_when_their_minutes_go_and_late_events_add_to_them(series: Series) -> None:
    before = seen(series)
    dropped = apply(rollups_days=1)
    # other tests' days may be left and go as well
    assert {"streams_rollup_20260517", "streams_rollup_20260518"} <= set(dropped.partitions)
    assert max(dropped.partitions) == "streams_rollup_20260518"
    assert not Rollup.objects.filter(minute__lt=NOW - 2 * DAY).exists()
    assert seen(series) == before
    # Of the days whose minutes are gone a short step shows the hours.
    fine = history.buckets([series.pk], START, END, 60)[series.pk]
    assert sum(b.count for b in fine) >= sum(b.count for b in
               history.buckets([series.pk], START, END, 3_600)[series.pk][1:])  # fmt: skip
    late = [START + dt.timedelta(hours=3)]
    written(series, late, offset=100_000, value=500)
    with_late = seen(series)
    assert with_late != before
    rest()
    assert seen(series) == with_late
    apply(rollups_days=1)
    assert not Rollup.objects.filter(minute__in=late).exists()
    assert seen(series) == with_late


def test_recorded_data_is_sealed_out_of_the_default_partition(db: None) -> None:
    recorded = dt.datetime(2014, 2, 14, 12, tzinfo=dt.UTC)
    one = builders.series(last_event_at=recorded)
    written(one, [recorded - dt.timedelta(minutes=30 * i) for i in range(200)])
    first = recorded - 7 * DAY
    before = seen(one, 86_400, first)
    assert len(before) == 5
    assert apply(rollups_days=2).rollups > 90
    assert seen(one, 86_400, first) == before
    rest()
    assert seen(one, 86_400, first) == before
    assert apply(rollups_days=2).rollups == 0


@pytest.mark.django_db(transaction=True)
def test_what_is_written_while_an_hour_is_made_is_made_once_more() -> None:
    one = builders.series(last_event_at=NOW)
    hour = NOW.replace(minute=0) - DAY
    written(one, [hour])
    began, done = threading.Event(), threading.Event()

    def write() -> None:
        with transaction.atomic():
            written(one, [hour + dt.timedelta(minutes=5)], offset=900)
            began.set()
            done.wait(20)
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    assert began.wait(20)

    def make() -> None:
        hours.roll_up(dt.datetime.now(dt.UTC) + DAY)
        connection.close()

    made = threading.Thread(target=make)
    made.start()
    deadline = time.monotonic() + 20
    with connection.cursor() as cursor:
        waits = 0
        while not waits:  # for the mark that the writer holds
            assert time.monotonic() < deadline
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            (waits,) = cursor.fetchone()
    done.set()
    writer.join(20)
    made.join(20)
    assert HourDue.objects.get().changes == 2
    rest()
    assert RollupHour.objects.get().count == sum(r.count for r in Rollup.objects.all())
