from __future__ import annotations

import numpy as np
import pytest

from detection.detectors.zscore import ZScoreDetector
from tests.detection import series


def test_oddness_is_the_deviation_over_the_threshold() -> None:
    value = np.random.default_rng(1).normal(10, 2, 200)
    value[100] = 40.0
    oddness, _ = series.score_alone(ZScoreDetector(threshold=3.0), series.regular(200), value)
    before = value[:100]
    z = (40.0 - before.mean()) / before.std()
    assert np.isnan(oddness[:30]).all()
    np.testing.assert_allclose(oddness[100], z / 3.0, rtol=1e-9)


def test_a_constant_series_is_not_odd_until_it_moves() -> None:
    value = np.full(100, 1e9)
    value[80] += 1e5
    oddness, _ = series.score_alone(ZScoreDetector(), series.regular(100), value)
    assert (oddness[30:80] == 0.0).all()
    assert 1.0 < oddness[80] < np.inf


def test_a_spike_that_comes_back_is_bounded() -> None:
    value = np.random.default_rng(2).normal(0, 1, 3000)
    value[500::100] = 1e4
    forgotten = (1 - 0.002) ** (-100 / 2)
    oddness, _ = series.score_alone(ZScoreDetector(rate=0.002), series.regular(3000), value)
    assert np.nanmax(oddness[501:]) * 3.0 < 1 / np.sqrt(0.002) * forgotten


@pytest.mark.parametrize(
    "wrong", [{"method": "magic"}, {"threshold": 0.0}, {"rate": 1.0}, {"warm_up": 1}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"needed|none of"):
        ZScoreDetector(**wrong)
