"""The seasonal detector: which hour a value is compared with, and what is learnt when."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from detection.base import FloatArray, IntArray
from detection.detectors.seasonal import SeasonalDetector
from detection.zone_clock import ZoneClock
from tests.detection import series

BERLIN = ZoneInfo("Europe/Berlin")


def oddness(epoch_s: IntArray, value: FloatArray) -> FloatArray:
    found, _ = series.score_alone(SeasonalDetector(), epoch_s, value)
    return found


def utc_hours(start: dt.datetime, days: int, step_s: int = 900) -> IntArray:
    first = int(start.timestamp())
    return np.arange(first, first + days * 86_400, step_s, dtype=np.int64)


def busy_by_the_clock(utc_s: IntArray, seed: int = 1) -> FloatArray:
    """30 more from 8 to 18 h on Berlin's clock, with noise of 1."""
    hour = np.array([dt.datetime.fromtimestamp(int(s), BERLIN).hour for s in utc_s])
    noise = np.random.default_rng(seed).normal(0, 1.0, len(utc_s))
    return np.asarray(10.0 + 30.0 * ((hour >= 8) & (hour < 18)) + noise)


@pytest.mark.parametrize("change", [dt.datetime(2024, 3, 31), dt.datetime(2024, 10, 27)])
def test_a_season_keeps_its_clock_time_over_daylight_saving(change: dt.datetime) -> None:
    start = (change - dt.timedelta(days=14)).replace(tzinfo=BERLIN)
    utc = utc_hours(start, 21)
    value = busy_by_the_clock(utc)
    after = utc >= int(change.replace(tzinfo=BERLIN).timestamp())
    local = ZoneClock("Europe/Berlin").local_s(utc * 1_000_000)
    settled = np.arange(len(utc)) > 96 * 5
    assert np.nanmax(oddness(local, value)[settled]) < 2.0
    # The same without the zone: the first days after the change are wrong at the edges.
    assert np.nanmax(oddness(utc, value)[after][:96]) > 3.0


def test_it_abstains_until_the_hour_was_seen_twice() -> None:
    found = oddness(series.regular(24 * 5, 3600, 0), np.random.default_rng(1).normal(0, 1, 120))
    assert np.isnan(found[:48]).all()
    assert np.isfinite(found[48:]).all()


def test_the_week_takes_over_where_it_is_better() -> None:
    """Quiet weekends are odd by the hour of the day alone, and usual by the week."""
    hours = 168 * 8
    value = series.hourly_week(hours, 2)
    value[900:920] -= 35  # that fault is of another test
    epoch_s = series.regular(hours, 3600, 1_704_067_200 + 4 * 86_400)  # a Friday
    value[168 * 6 + 30] = 40.0  # busy on a Saturday morning: usual on other days
    found = oddness(epoch_s, value)
    assert found[168 * 6 + 30] > 5.0
    usual = np.delete(found[168 * 4 :], 168 * 2 + 30)
    assert np.quantile(usual, 0.99) < 1.0


def test_an_hour_is_learnt_when_it_is_over() -> None:
    epoch_s = series.regular(96 * 10, 900, 0)
    value = np.random.default_rng(3).normal(0, 1, len(epoch_s))
    value[96 * 8 : 96 * 8 + 4] += 50.0  # one whole hour
    found = oddness(epoch_s, value)[96 * 8 : 96 * 8 + 4]
    assert (found > 10.0).all()
    assert found.min() > 0.9 * found.max()  # the first of them did not excuse the others


def test_an_outage_is_odd_again_on_the_next_day() -> None:
    epoch_s = series.regular(96 * 12, 900, 0)
    value = series.daily(len(epoch_s), 5, 900)
    noon = slice(96 * 9 + 48, 96 * 9 + 52)
    next_noon = slice(96 * 10 + 48, 96 * 10 + 52)
    value[noon] -= 30.0
    value[next_noon] -= 30.0
    found = oddness(epoch_s, value)
    assert found[noon].min() > 3.0
    assert found[next_noon].min() > 1.5
    assert found[next_noon.stop + 4 :].max() < 1.5


def test_a_level_that_stays_is_usual_within_days() -> None:
    epoch_s = series.regular(96 * 16, 900, 0)
    value = series.daily(len(epoch_s), 5, 900)
    value[96 * 8 :] += 15.0
    found = oddness(epoch_s, value)
    assert found[96 * 8 : 96 * 8 + 8].min() > 1.0
    assert np.quantile(found[96 * 12 :], 0.95) < 1.0


def test_late_events_are_judged_and_not_learnt() -> None:
    epoch_s = series.regular(96 * 8, 900, 0)
    value = series.daily(len(epoch_s), 5, 900)
    at = np.arange(300, 700, 10)
    late = epoch_s[at] - 7200
    wanted = oddness(epoch_s, value)
    found = oddness(np.insert(epoch_s, at, late), np.insert(value, at, 500.0))
    is_late = np.zeros(len(found), dtype=np.bool_)
    is_late[at + np.arange(len(at))] = True
    np.testing.assert_array_equal(found[~is_late], wanted)
    assert (found[is_late] > 5.0).all()


def test_one_time_far_ahead_does_not_stop_the_learning() -> None:
    epoch_s = series.regular(96 * 12, 900, 0)
    value = series.daily(len(epoch_s), 5, 900)
    epoch_s[200] += 40 * 365 * 86_400
    found = oddness(epoch_s, value)
    assert np.isfinite(found[96 * 3 :]).all()
    assert np.quantile(found[96 * 4 :], 0.99) < 1.2
