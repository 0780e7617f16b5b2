from __future__ import annotations

import numpy as np
import pytest

from detection.base import FloatArray
from detection.detectors.normal_rows import FARTHEST, SAMPLE, NormalRows, RobustScale, shares


def norm(rows: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt((rows**2).sum(axis=1)))


def test_scale_resists_outliers_and_columns_that_hardly_move() -> None:
    rng = np.random.default_rng(0)
    rows = np.zeros((4000, 4))
    rows[:, 0] = rng.normal(5, 2, 4000)
    rows[:100, 0] = 6.0
    rows[100, 0] = 30.0
    rows[:, 1] = rng.random(4000) < 0.1  # mostly 0: no interquartile range
    rows[:, 2] = 1e9  # never moves
    rows[:, 3] = 1e-7 * rng.normal(size=4000) + 1e3  # moves by rounding
    scale = RobustScale.fit(rows)
    assert scale.centre[0] == pytest.approx(5.0, abs=0.2)
    assert scale.scale[0] == pytest.approx(2.0, rel=0.1)
    assert scale.scale[1] == pytest.approx(0.3, rel=0.1)
    assert scale.scale[2:].tolist() == [np.inf, np.inf]
    assert scale.apply(rows + 5.0)[:, 2:].tolist() == np.zeros((4000, 2)).tolist()
    bounded = RobustScale.fit(rows, np.array([0.5, 0.5, 0.5, 0.5])).scale
    assert bounded.tolist() == [scale.scale[0], 0.5, np.inf, np.inf]


def test_standardised_values_end_somewhere_and_nan_stays() -> None:
    scale = RobustScale(np.zeros(2), np.ones(2))
    with np.errstate(over="ignore"):
        z = scale.apply(np.array([[1e300, -np.inf], [np.nan, 2.0]]))
    assert z[0].tolist() == [FARTHEST, -FARTHEST]
    assert np.isnan(z[1, 0])
    with pytest.raises(ValueError, match=r"\[n, 2\]"):
        scale.apply(np.zeros((3, 4)))


def test_the_sample_is_of_normal_rows_as_they_were() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(5000, 3))
    rows[::20] += 50.0
    scale = RobustScale.fit(rows)
    chosen = NormalRows.choose(rows, scale, norm, np.random.default_rng(2))
    assert chosen.rows.shape == (SAMPLE, 3)
    assert norm(chosen.rows).max() < 10
    assert {row.tobytes() for row in chosen.rows} <= {row.tobytes() for row in rows}
    again = NormalRows.choose(rows, scale, norm, np.random.default_rng(2))
    assert again.rows.tobytes() == chosen.rows.tobytes()


def test_nearest_is_the_nearest_of_all() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(200, 5)) * [1, 10, 100, 1, 1]
    normal = NormalRows(rows, RobustScale.fit(rows))
    asked = rng.normal(size=(50, 5)) * [3, 30, 300, 3, 3]
    z, stored = normal.scale.apply(asked), normal.scale.apply(rows)
    wanted = rows[((z[:, None] - stored) ** 2).sum(axis=2).argmin(axis=1)]
    np.testing.assert_array_equal(normal.nearest(asked), wanted)
    asked[3, 1] = np.nan
    found = normal.nearest(asked)
    assert np.isnan(found[3]).all()
    np.testing.assert_array_equal(found[4:], wanted[4:])


def test_shares_sum_to_one_where_there_is_something_odd() -> None:
    parts = np.array([[3.0, 1.0], [0.0, 0.0], [5.0, 5.0], [np.nan, 1.0]])
    found = shares(parts, np.array([True, True, False, True]))
    assert found.tolist() == [[0.75, 0.25], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
