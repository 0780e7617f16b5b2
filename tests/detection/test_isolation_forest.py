from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from detection.detectors.calibration import TailCalibration
from detection.detectors.isolation_forest import (
    IsolationForestDetector,
    _average_path,
    flatten,
)
from detection.errors import ArtefactIncompatible, NotEnoughData


@pytest.mark.parametrize(("trees", "samples"), [(100, 256), (7, 1000), (3, 2)])
def test_scores_equal_scikit_learn(trees: int, samples: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, 9))
    rows[:, 3] = np.round(rows[:, 3])  # ties, and values that equal thresholds
    rows[::7, 4] = 0.0
    forest = IsolationForest(n_estimators=trees, max_samples=samples, random_state=3)
    forest.fit(rows[:2000].astype(np.float32))
    wanted = -forest.score_samples(rows.astype(np.float32))
    np.testing.assert_allclose(flatten(forest).raw(rows), wanted, rtol=0, atol=1e-9)


def test_decisions_at_the_very_threshold_equal_scikit_learn() -> None:
    rows = np.random.default_rng(1).normal(size=(600, 2))
    forest = IsolationForest(n_estimators=50, random_state=1).fit(rows.astype(np.float32))
    limits = np.concatenate([e.tree_.threshold for e in forest.estimators_]).astype(np.float32)
    steps = [np.nextafter(limits, np.float32(side)) for side in (-np.inf, np.inf)]
    near = np.concatenate([limits, *steps])
    probes = np.stack([near, near[::-1]], axis=1)
    wanted = -forest.score_samples(probes)
    np.testing.assert_allclose(flatten(forest).raw(probes.astype(np.float64)), wanted, atol=1e-9)


def test_oddness_rises_with_the_raw_score_and_knows_how_rare_it_is() -> None:
    rng = np.random.default_rng(2)
    raw = rng.exponential(1.0, 20_000)
    calibration = TailCalibration.fit(raw)
    grid = np.linspace(-1, 60, 5000)
    oddness = calibration.oddness(grid)
    assert (np.diff(oddness) >= 0).all()
    assert oddness[0] == 0.0
    for p in (0.5, 0.01, 1e-4):
        expected = -np.log10(p) / 4
        assert calibration.oddness(np.array([-np.log(p)]))[0] == pytest.approx(expected, rel=0.12)


def test_equal_scores_everywhere_can_be_calibrated() -> None:
    calibration = TailCalibration.fit(np.full(500, 0.5))
    oddness = calibration.oddness(np.array([0.4, 0.5, 0.6]))
    assert np.isfinite(oddness).all()
    assert oddness[1] < 1.0 < oddness[2]


def test_a_tail_of_rows_much_alike_has_a_least_scale() -> None:
    raw = np.random.default_rng(2).normal(1.0, 1e-4, 500)
    beyond = np.array([1.1])
    assert TailCalibration.fit(raw).oddness(beyond)[0] > 10
    assert TailCalibration.fit(raw, least_scale=0.1).oddness(beyond)[0] < 1


def test_too_little_history_is_refused() -> None:
    with pytest.raises(NotEnoughData):
        IsolationForestDetector.fit(np.zeros((300, 3)), seed=0)


def test_rows_of_another_width_are_refused() -> None:
    rows = np.random.default_rng(3).normal(size=(1000, 3))
    detector = IsolationForestDetector.fit(rows, seed=0, n_estimators=5)
    with pytest.raises(ValueError, match="needs"):
        detector.oddness(rows[:, :2])


def test_arrays_that_do_not_fit_are_refused() -> None:
    rows = np.random.default_rng(3).normal(size=(1000, 3))
    arrays = IsolationForestDetector.fit(rows, seed=0, n_estimators=5).arrays()
    with pytest.raises(ArtefactIncompatible, match="retrain"):
        IsolationForestDetector.from_arrays({**arrays, "feature": arrays["feature"] + 3})
    with pytest.raises(ArtefactIncompatible, match="retrain"):
        IsolationForestDetector.from_arrays({k: v for k, v in arrays.items() if k != "leaf"})


def test_shortenings_add_up_to_the_path_that_is_missing() -> None:
    """Split by split they lead from the mean path of all to the row's own."""
    rng = np.random.default_rng(5)
    train = rng.normal(size=(2000, 4)).astype(np.float32)
    grown = IsolationForest(n_estimators=40, random_state=2).fit(train)
    forest = flatten(grown)
    rows = np.concatenate([rng.normal(size=(50, 4)), rng.normal(size=(20, 4)) * 6])
    own = -np.log2(forest.raw(rows)) * forest.normaliser
    usual = 0.0
    for tree in (e.tree_ for e in grown.estimators_):
        leaf = tree.children_left < 0
        ends = tree.n_node_samples[leaf].astype(float)
        depths = _depths(tree)[leaf]
        path = depths + np.array([_average_path(int(n)) for n in ends])
        usual += float((path * ends).sum() / ends.sum())
    np.testing.assert_allclose(forest.shortenings(rows).sum(axis=1), usual - own, atol=1e-9)


def test_a_model_of_an_earlier_vigil_scores_and_explains_nothing() -> None:
    rows = np.random.default_rng(3).normal(size=(1000, 3))
    detector = IsolationForestDetector.fit(rows, seed=0, n_estimators=5)
    new = ("leaf_rows", "normal", "centre", "scale")
    old = IsolationForestDetector.from_arrays(
        {name: array for name, array in detector.arrays().items() if name not in new}
    )
    assert old.oddness(rows).tobytes() == detector.oddness(rows).tobytes()
    assert not old.contributions(rows).any()
    assert np.isnan(old.nearest(rows)).all()
    assert set(old.arrays()).isdisjoint(new)


def _depths(tree: Any) -> NDArray[np.float64]:
    depth = np.zeros(tree.node_count)
    for node in range(tree.node_count):  # parents come first
        for child in (tree.children_left[node], tree.children_right[node]):
            if child >= 0:
                depth[child] = depth[node] + 1
    return depth
