"""The shapes of normal data: repeatable, and as their names say."""

from __future__ import annotations

import numpy as np
import pytest

from detection import shapes
from detection.base import FloatArray


def made(name: str) -> FloatArray:
    return shapes.make(name, 1).value


def correlation(value: FloatArray, lag: int) -> float:
    return float(np.corrcoef(value[:-lag], value[lag:])[0, 1])


def test_there_are_twenty() -> None:
    assert len(shapes.SHAPES) == 20


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_a_shape_is_seeded_finite_and_in_order_of_time(name: str) -> None:
    one, two = shapes.make(name, 3, 12_000), shapes.make(name, 3, 12_000)
    assert one.value.tobytes() == two.value.tobytes()
    assert one.time_s.tobytes() == two.time_s.tobytes()
    assert shapes.make(name, 4, 12_000).value.tobytes() != one.value.tobytes()
    assert one.value.shape == one.time_s.shape == (12_000,)
    assert np.isfinite(one.value).all()
    assert (np.diff(one.time_s) > 0).all()


def test_shapes_are_what_they_are_called() -> None:
    from scipy.stats import kurtosis, skew

    assert abs(kurtosis(made("normal"))) < 0.3
    assert kurtosis(made("heavy_tails")) > 3
    assert skew(made("lognormal")) > 1.5
    assert skew(made("exponential")) == pytest.approx(2.0, abs=0.4)
    assert set(made("binary")) == {0.0, 1.0}
    assert len(set(made("few_values"))) == 5
    assert 0.55 < (made("ties") == 0).mean() < 0.65
    assert correlation(made("daily"), 288) > 0.9 > correlation(made("daily"), 200)
    assert correlation(made("weekly"), 7 * 288) > correlation(made("weekly"), 2 * 288) + 0.05
    assert correlation(made("ar_50"), 1) == pytest.approx(0.5, abs=0.05)
    assert correlation(made("ar_95"), 1) == pytest.approx(0.95, abs=0.02)
    assert correlation(np.diff(made("random_walk")), 1) == pytest.approx(0.0, abs=0.05)
    assert np.ptp(made("trend")) > 50 * np.std(np.diff(made("trend"))) / np.sqrt(2)
    bursts, counts = made("bursts"), made("poisson")
    assert bursts.var() / bursts.mean() > 2 > counts.var() / counts.mean()
    assert ((made("on_off") > 20) & (made("on_off") < 70)).sum() == 0
    assert np.diff(shapes.make("gaps", 1).time_s).max() > 12 * 300 - 1
    grows = made("growing_noise")
    change = np.abs(np.diff(grows))
    assert change[grows[1:] > 80].mean() > 2 * change[grows[1:] < 40].mean()
    assert 60 < np.ptp(made("sawtooth")) < 75
    mixture = made("mixture")
    assert 0.15 < (mixture > 160).mean() < 0.25


def test_an_unknown_shape_is_named() -> None:
    with pytest.raises(ValueError, match="'round' is none of normal, heavy_tails"):
        shapes.make("round", 1)
