"""Two charts that agree: what lasts is a shift, what one of them alone sees is none."""

from __future__ import annotations

import numpy as np

from detection import shapes
from detection.detectors.change_point import ChangePointDetector
from detection.detectors.ewma import EwmaDetector
from detection.detectors.shift import ShiftDetector
from tests.detection import series


def test_it_is_the_lower_of_the_two() -> None:
    value = series.daily(3000, 1)
    value[2000:2040] += 30.0
    times = series.regular(3000)
    chart, _ = series.score_alone(EwmaDetector(), times, value)
    sums, _ = series.score_alone(ChangePointDetector(), times, value)
    both, _ = series.score_alone(ShiftDetector(), times, value)
    known = ~np.isnan(both)
    np.testing.assert_array_equal(both[known], np.minimum(0.8 * chart, 1.25 * sums)[known])
    assert np.isnan(both[:60]).all()
    assert known[60:].all()


def test_a_level_is_found_the_tenth_time_as_well() -> None:
    rng = np.random.default_rng(3)
    value = rng.standard_t(3, 12_000)
    starts = np.arange(2000, 11_000, 900)
    for start in starts:
        value[start : start + 30] += 15.0
    odd, _ = series.score_alone(ShiftDetector(), series.regular(12_000, 60), value)
    assert all((odd[start : start + 30] >= 1).any() for start in starts)


def test_bursts_that_alarm_the_chart_are_no_shift() -> None:
    alone = together = 0
    for seed in range(3):
        made = shapes.make("bursts", seed, 12_000)
        chart, _ = series.score_alone(EwmaDetector(), made.time_s, made.value)
        both, _ = series.score_alone(ShiftDetector(), made.time_s, made.value)
        alone += int((0.8 * chart[2000:] >= 1).sum())
        together += int((both[2000:] >= 1).sum())
    assert alone > 50
    assert together <= 0.1 * alone
