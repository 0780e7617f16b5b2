"""The statistical detectors together: their formulas, what they find, where they are quiet.

What each promises as a detector is in the conformance suite.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from config.schema import STATISTICAL_METHODS
from detection import shapes
from detection.base import FloatArray, IntArray
from detection.ensemble import DEFAULT_WEIGHTS
from detection.registry import SERIES_DETECTORS, create_series_detector
from tests.detection import reference_series as reference
from tests.detection import series

NAMES = ("zscore", "mad", "ewma", "iqr", "seasonal", "change_point")
PERIOD = 1200  # 72 events a day
EVENTS = 72 * 28


def oddness(name: str, value: FloatArray, epoch_s: IntArray | None = None) -> FloatArray:
    epoch_s = series.regular(len(value), PERIOD) if epoch_s is None else epoch_s
    found, _ = series.score_alone(create_series_detector(name), epoch_s, value)
    return found


def noise(n: int = EVENTS, seed: int = 4) -> FloatArray:
    return np.random.default_rng(seed).normal(0.0, 1.0, n)


def walk(n: int) -> FloatArray:
    return np.cumsum(noise(n))


def tied(n: int) -> FloatArray:
    return np.random.default_rng(2).poisson(0.4, n).astype(np.float64)


def eventful(n: int) -> FloatArray:
    """Spikes, a shift, a change of spread, and values that can't be learnt."""
    value = noise(n) + 100.0
    value[n // 3 :: 97] += 40.0
    value[n // 2 :] += 12.0
    value[3 * n // 4 :] = 100.0 + 5.0 * (value[3 * n // 4 :] - 112.0)
    value[70], value[900], value[901] = np.nan, 1e200, -np.inf
    return value


def course(n: int) -> FloatArray:
    return series.hourly_week(n, 6)


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize("make", [noise, walk, tied, eventful, course])
def test_the_kernel_is_the_formula(name: str, make: Callable[[int], FloatArray]) -> None:
    value = make(2400)
    epoch_s = series.regular(len(value), 3600)
    epoch_s[1300:] += 3 * 86_400  # a gap
    epoch_s[700] -= 20_000  # a late one
    epoch_s[701] += 400 * 86_400  # a clock that was wrong
    given = (epoch_s.tolist(),) if name == "seasonal" else ()
    wanted = np.array(getattr(reference, name)(*given, value.tolist()))
    found = oddness(name, value, epoch_s)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
    assert np.isfinite(found).sum() > len(value) / 2


Fault = Callable[[FloatArray], tuple[FloatArray, slice]]


def _daily() -> FloatArray:
    return series.daily(EVENTS, 3, PERIOD)


def spike(value: FloatArray) -> tuple[FloatArray, slice]:
    value[1800] += 60.0
    return value, slice(1800, 1801)


def third_spike(value: FloatArray) -> tuple[FloatArray, slice]:
    """The same height a third time within thirty events: nothing was learnt of the first two."""
    value[[1785, 1795, 1800]] += 60.0
    return value, slice(1800, 1801)


def small_shift(value: FloatArray) -> tuple[FloatArray, slice]:
    value[1800:] += 1.5
    return value, slice(1805, 1880)


def shift(value: FloatArray) -> tuple[FloatArray, slice]:
    value[1800:] += 8.0
    return value, slice(1801, 1880)


def wider(value: FloatArray) -> tuple[FloatArray, slice]:
    value[1800:] *= 4.0
    return value, slice(1800, 1880)


def drift(value: FloatArray) -> tuple[FloatArray, slice]:
    value[1800:] += 0.03 * np.arange(len(value) - 1800)
    return value, slice(1800, 1960)


def at_night(value: FloatArray) -> tuple[FloatArray, slice]:
    """Noon's level at night: no unusual value."""
    low = 1728 + int(np.argmin(value[1728:1800]))
    value[low] = value[1728:1800].max() - 2.0
    return value, slice(low, low + 1)


FINDS = [
    # fault, on a daily season?, who must find it, who need not and does not
    (spike, False, {"zscore", "mad", "iqr", "seasonal"}, {"ewma", "change_point"}),
    (third_spike, False, {"zscore", "mad", "iqr", "seasonal"}, {"ewma", "change_point"}),
    (small_shift, False, {"ewma", "change_point"}, set()),
    (shift, False, {"zscore", "mad", "ewma", "iqr", "seasonal", "change_point"}, set()),
    (wider, False, {"zscore", "mad", "iqr", "seasonal", "change_point"}, set()),
    (drift, False, {"ewma", "change_point"}, set()),
    (at_night, True, {"seasonal"}, {"zscore", "mad", "ewma", "iqr", "change_point"}),
]


def margin(name: str) -> float:
    """Oddness at which a detector alarms on its own in the default ensemble."""
    return 1.0 / DEFAULT_WEIGHTS[name]


@pytest.mark.parametrize(("fault", "seasonal", "must", "not_its_business"), FINDS)
def test_each_finds_what_it_is_for(
    fault: Fault, seasonal: bool, must: set[str], not_its_business: set[str]
) -> None:
    healthy = _daily() if seasonal else noise()
    value, where = fault(healthy.copy())
    for name in sorted(must):
        assert np.nanmax(oddness(name, value)[where]) >= 1.0, name
    for name in sorted(not_its_business):
        assert np.nanmax(oddness(name, value)[where]) < 1.0, name


@pytest.mark.parametrize("name", NAMES)
def test_alone_it_does_not_alarm_on_healthy_data(name: str) -> None:
    wandering = np.convolve(noise(), 0.9 ** np.arange(60))[:EVENTS]
    for value in (noise(), _daily(), np.round(noise()), wandering):
        assert np.nanmax(oddness(name, value)[500:]) < margin(name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [0.0, 5.0, -1e12, 1e100])
def test_a_constant_series_is_never_odd(name: str, level: float) -> None:
    found = oddness(name, np.full(EVENTS, level))
    assert (found[~np.isnan(found)] == 0.0).all()
    rounding = np.full(EVENTS, level) + np.spacing(level) * (np.arange(EVENTS) % 3)
    found = oddness(name, rounding)
    assert (found[~np.isnan(found)] < 1.0).all()


@pytest.mark.parametrize("name", NAMES)
def test_tied_values_are_no_alarm(name: str) -> None:
    rng = np.random.default_rng(8)
    for value in (rng.poisson(0.3, EVENTS), rng.integers(0, 2, EVENTS), rng.integers(0, 4, EVENTS)):
        found = oddness(name, value.astype(np.float64))
        assert np.nanmax(found) < margin(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_series_that_moves_is_odd(name: str) -> None:
    value = np.full(EVENTS, 7.0)
    value[1500:] = 8.0
    found = oddness(name, value)
    assert np.nanmax(found[:1500]) == 0.0
    assert np.nanmax(found[1500:1520]) >= 1.0


@pytest.mark.parametrize("name", NAMES)
def test_scale_shift_and_sign_change_nothing(name: str) -> None:
    value = eventful(EVENTS)
    wanted = oddness(name, value)
    for other in (1e3 * value, value - 100.0, -value):
        np.testing.assert_allclose(oddness(name, other), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_learnt_leaves_no_trace(name: str) -> None:
    value = noise()
    epoch_s = series.regular(len(value), PERIOD)
    wrong = np.array([np.nan, np.inf, -np.inf, 1e151, -1e300])
    at = np.array([5, 40, 1000, 1001, 1500])
    with_wrong, times = np.insert(value, at, wrong), np.insert(epoch_s, at, epoch_s[at])
    found = oddness(name, with_wrong, times)
    is_wrong = np.isnan(with_wrong) | (np.abs(with_wrong) > 1e150)
    assert np.isnan(found[is_wrong]).all()
    np.testing.assert_array_equal(found[~is_wrong], oddness(name, value))


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_values_stay_numbers(name: str) -> None:
    value = noise()
    value[600:900:7] = 1e150
    value[1200:] = -1e150
    found = oddness(name, value)
    assert not np.isinf(found).any()
    assert np.isnan(found).sum() == np.isnan(oddness(name, noise())).sum()


@pytest.mark.parametrize("name", NAMES)
def test_oddness_rises_with_the_deviation_and_falls_with_the_threshold(name: str) -> None:
    start = noise(1500)
    last = []
    for deviation in (0.0, 2.0, 4.0, 8.0, 16.0, 1e9):
        last.append(oddness(name, np.append(start, deviation))[-1])
    assert last == sorted(last)
    stricter = create_series_detector(
        name, threshold=1.5 * vars(create_series_detector(name))["threshold"]
    )
    epoch_s = series.regular(1500, PERIOD)
    found, _ = series.score_alone(stricter, epoch_s, start)
    np.testing.assert_allclose(found * 1.5, oddness(name, start), rtol=1e-12)


def test_states_are_small() -> None:
    sizes = {name: 8 * SERIES_DETECTORS[name].component.width for name in NAMES}
    assert sizes == {
        "zscore": 24, "mad": 1184, "ewma": 48, "iqr": 1184, "seasonal": 2280, "change_point": 272,
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_wrong_thresholds_are_refused(name: str) -> None:
    for wrong in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="threshold > 0"):
            create_series_detector(name, threshold=wrong)


def test_the_configuration_knows_every_method() -> None:
    assert {*STATISTICAL_METHODS, "change_point", "shift", "online"} == set(SERIES_DETECTORS)
    assert set(SERIES_DETECTORS) <= set(DEFAULT_WEIGHTS)


def episodes(alarm: NDArray[np.bool_]) -> int:
    """Alarms after event 2,000 with 80 quiet events before them."""
    at = np.flatnonzero(alarm)
    first = np.diff(at, prepend=-1000) > 80
    return int((first & (at >= 2000)).sum())


@pytest.mark.parametrize("name", NAMES)
def test_alone_it_is_quiet_on_twenty_shapes_of_normal_data(name: str) -> None:
    """What its gain in the default ensemble was chosen for."""
    found = {}
    for shape in shapes.SHAPES:
        made = shapes.make(shape, seed=1, events=12_000)
        found[shape] = episodes(oddness(name, made.value, made.time_s) >= margin(name))
    assert max(found.values()) <= 8, found
    assert sum(found.values()) <= 20, found
