"""The kernel against a slow reference that shares no code with it, and its edges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from detection.base import FloatArray, IntArray
from detection.detectors import online_kernel
from detection.detectors.online import REASONS, OnlineDetector
from detection.features import FEATURE_NAMES
from tests.detection import series
from tests.detection.reference_online import ReferenceOnline

CASES: dict[str, tuple[Callable[[int, int], FloatArray], int, int]] = {
    "daily": (series.daily, 3000, 300),
    "returning_fault": (series.returning_fault, 5000, 300),
    "on_off": (series.on_off, 3000, 300),
    "level_that_stays": (series.level_that_stays, 3000, 60),
    "walk": (series.walk, 3000, 300),
    "constant": (series.constant, 1200, 300),
    "hourly_week": (series.hourly_week, 1500, 3600),
}


def reference(epoch_s: IntArray, value: FloatArray) -> FloatArray:
    """[n, 3]: oddness, reason, onset."""
    detector = ReferenceOnline()
    steps = zip(epoch_s.tolist(), value.tolist(), strict=True)
    return np.array([detector.step(epoch, x) for epoch, x in steps], dtype=np.float64)


@pytest.mark.parametrize("case", CASES)
def test_kernel_equals_the_reference(case: str) -> None:
    make, n, period_s = CASES[case]
    epoch_s, value = series.regular(n, period_s), make(n, 7)
    oddness, out = series.score_alone(OnlineDetector(warm_up=0), epoch_s, value)
    wanted = reference(epoch_s, value)
    np.testing.assert_allclose(oddness, wanted[:, 0], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(out.reason, wanted[:, 1])
    np.testing.assert_array_equal(out.onset, wanted[:, 2])


def test_kernel_equals_the_reference_with_gaps_and_late_events() -> None:
    rng = np.random.default_rng(3)
    epoch_s = series.START + np.cumsum(rng.choice([-60, 60, 300, 7200, 10**6], 2500)).astype(
        np.int64
    )
    value = rng.lognormal(0, 1, 2500)
    oddness, _ = series.score_alone(OnlineDetector(warm_up=0), epoch_s, value)
    np.testing.assert_allclose(oddness, reference(epoch_s, value)[:, 0], rtol=1e-9, atol=1e-9)


def test_cases_reach_every_reason_and_onsets() -> None:
    reasons: set[int] = set()
    onsets = 0
    for make, n, period_s in CASES.values():
        oddness, out = series.score_alone(OnlineDetector(), series.regular(n, period_s), make(n, 7))
        reasons |= set(out.reason[(oddness >= 1.0) | out.onset].tolist())
        onsets += int(out.onset.sum())
    assert reasons == set(range(len(REASONS)))
    assert onsets > 10


def test_warming_up_is_no_score() -> None:
    oddness, out = series.score_alone(OnlineDetector(), series.regular(180), series.daily(180, 1))
    assert np.isnan(oddness[:150]).all()
    assert np.isfinite(oddness[150:]).all()
    # The band is worth drawing before the score is worth having.
    assert np.isnan(out.expected[:30]).all()
    assert np.isfinite(out.expected[30:]).all()
    np.testing.assert_array_equal(out.seen, np.arange(180))


def test_what_is_no_number_is_left_out_and_learns_nothing() -> None:
    epoch_s, value = series.regular(400), series.daily(400, 2)
    clean, _ = series.score_alone(OnlineDetector(), epoch_s, value)
    dirty = np.insert(value, [100, 200, 300], [np.nan, np.inf, -1e308])
    times = np.insert(epoch_s, [100, 200, 300], epoch_s[[99, 199, 299]])
    oddness, out = series.score_alone(OnlineDetector(), times, dirty)
    broken = [100, 201, 302]
    assert np.isnan(oddness[broken]).all()
    np.testing.assert_array_equal(np.delete(oddness, broken), clean)
    assert np.isfinite(out.features).all()


@pytest.mark.parametrize("height", [1e-300, 1e9, 1e200, -1e299])
def test_features_stay_finite_and_bounded_whatever_comes(height: float) -> None:
    value = np.zeros(600)
    value[100::50] = height
    value[300:400] = np.random.default_rng(0).normal(0, 1, 100)
    oddness, out = series.score_alone(OnlineDetector(), series.regular(600), value)
    assert np.isfinite(out.features).all()
    assert np.abs(out.features).max() <= 10.0
    assert np.isfinite(oddness[150:]).all()


def test_kernel_fills_every_named_feature() -> None:
    assert len(FEATURE_NAMES) == online_kernel.FEATURES


def test_features_are_free_of_the_scale() -> None:
    epoch_s, value = series.regular(2000), series.daily(2000, 5)
    _, small = series.score_alone(OnlineDetector(), epoch_s, value)
    _, large = series.score_alone(OnlineDetector(), epoch_s, value * 1024.0)
    assert small.features.shape == (2000, len(FEATURE_NAMES))
    np.testing.assert_allclose(small.features, large.features, atol=2e-3)


def test_expected_band_holds_normal_values_and_not_a_spike() -> None:
    value = series.daily(3000, 4)
    value[2500] = 150.0
    _, out = series.score_alone(OnlineDetector(), series.regular(3000), value)
    inside = (out.expected[:, 0] <= value) & (value <= out.expected[:, 2])
    assert inside[300:2500].mean() > 0.97
    assert not inside[2500]
    assert (out.expected[30:, 0] < out.expected[30:, 1]).all()
