"""The alarm level of a stored model: what is regular in its history is no alarm."""

from __future__ import annotations

import numpy as np
import pytest

from detection.base import FloatArray
from detection.detectors.calibration import TailCalibration, thinned


def raw(n: int = 4000, seed: int = 1) -> FloatArray:
    return np.random.default_rng(seed).exponential(1.0, n)


def test_independent_rows_keep_their_level() -> None:
    given = raw()
    fitted = TailCalibration.fit(given)
    assert fitted.levelled(given).level == 1.0
    assert fitted.levelled(np.zeros(0)) is fitted


def test_what_comes_back_all_the_time_is_no_alarm() -> None:
    given = raw()
    given[::200] = 60.0  # a reset: 1 row in 200, left out of the fit as contamination
    fitted = TailCalibration.fit(given, contamination=0.01)
    assert fitted.oddness(np.array([60.0]))[0] > 1.0
    levelled = fitted.levelled(given)
    assert levelled.oddness(np.array([60.0]))[0] == pytest.approx(1.0, rel=1e-6)
    assert levelled.oddness(np.array([60.0]))[0] < 1.0
    np.testing.assert_allclose(levelled.oddness(given) * levelled.level, fitted.oddness(given))


def test_an_incident_moves_nothing() -> None:
    """Three of eight blocks full of a fault that nobody labelled."""
    given = raw()
    fitted = TailCalibration.fit(given)
    poisoned = given.copy()
    poisoned[700:1900] += 60.0
    assert fitted.oddness(poisoned).max() > 1.5
    assert fitted.levelled(poisoned).level == 1.0


def test_the_level_is_stored() -> None:
    given = raw()
    given[::200] = 60.0
    levelled = TailCalibration.fit(given, 0.01).levelled(given)
    arrays = levelled.arrays()
    again = TailCalibration.from_arrays(arrays)
    assert again.oddness(given).tobytes() == levelled.oddness(given).tobytes()
    older = TailCalibration.from_arrays({**arrays, "calibration_tail": levelled.tail})
    assert older.level == 1.0


def test_long_histories_are_thinned_in_order() -> None:
    rows = np.arange(100_001.0).reshape(-1, 1)
    found = thinned(rows)
    assert len(found) <= 40_000
    assert np.ptp(np.diff(found[:, 0])) == 0
    assert len(thinned(rows[:40_000])) == 40_000
