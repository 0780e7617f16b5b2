from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import LocalOutlierFactor

from detection.base import FloatArray
from detection.detectors.local_outlier_factor import (
    LocalOutlierFactorDetector,
    Neighbourhood,
    flatten,
)
from detection.errors import ArtefactIncompatible, NotEnoughData
from tests.detection.rows import cloud, probes


def fitted(reference: FloatArray, count: int, leaf: int | None = None) -> LocalOutlierFactor:
    return LocalOutlierFactor(
        n_neighbors=count,
        novelty=True,
        algorithm="kd_tree",
        leaf_size=len(reference) if leaf is None else leaf,
    ).fit(reference)


@pytest.mark.parametrize(
    ("m", "k", "count"), [(1000, 10, 20), (150, 1, 5), (129, 7, 128), (7, 3, 1)]
)
def test_scores_equal_scikit_learn(m: int, k: int, count: int) -> None:
    model = fitted(cloud(m, k), min(count, m - 1), leaf=30)
    rows = probes(k)
    found = flatten(model).factors(rows)
    np.testing.assert_allclose(found, -model.score_samples(rows), rtol=1e-9, atol=0)


@pytest.mark.parametrize("step", [1.0, 0.5, 0.25])
def test_scores_equal_scikit_learn_with_ties_and_duplicates(step: float) -> None:
    """On a grid many rows are equally far, and some stored rows are the same."""
    reference = np.round(cloud(600, 2) / step) * step
    rows = np.concatenate([np.round(probes(2) / step) * step, reference[:200]])
    for count in (3, 20, 60):
        model = fitted(reference, count)
        found = flatten(model).factors(rows)
        np.testing.assert_allclose(found, -model.score_samples(rows), rtol=1e-9, atol=0)


def test_more_neighbours_than_groups_equal_scikit_learn() -> None:
    model = fitted(cloud(400, 4), 200)
    rows = probes(4)
    found = flatten(model).factors(rows)
    np.testing.assert_allclose(found, -model.score_samples(rows), rtol=1e-9, atol=0)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_batches_change_no_bit(size: int) -> None:
    around = flatten(fitted(np.round(cloud(500, 10), 1), 20))
    rows = np.concatenate([probes(10), np.round(probes(10, 2), 1)])
    whole = around.factors(rows)
    parts = [around.factors(rows[at : at + size]) for at in range(0, len(rows), size)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_the_reference_is_capped_distinct_and_seeded() -> None:
    rows = cloud(5000, 3)
    rows[::2] = rows[0]  # half of the history is one state
    detector = LocalOutlierFactorDetector.fit(rows, seed=1, max_reference=300)
    reference = detector.around.reference
    assert reference.shape == (300, 3)
    assert len(np.unique(np.round(reference, 2), axis=0)) == 300
    again = LocalOutlierFactorDetector.fit(rows, seed=1, max_reference=300)
    other = LocalOutlierFactorDetector.fit(rows, seed=2, max_reference=300)
    assert again.around.reference.tobytes() == reference.tobytes()
    assert other.around.reference.tobytes() != reference.tobytes()
    assert detector.oddness(rows[:1])[0] < 1.0


def test_history_of_one_state_is_refused_with_the_way_out() -> None:
    with pytest.raises(NotEnoughData, match="n_neighbors"):
        LocalOutlierFactorDetector.fit(np.ones((2000, 4)), seed=0)
    with pytest.raises(NotEnoughData, match="too few"):
        LocalOutlierFactorDetector.fit(cloud(300, 4), seed=0)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="n_neighbors"):
        LocalOutlierFactorDetector.fit(cloud(1000, 2), seed=0, n_neighbors=50, max_reference=50)


def test_arrays_that_do_not_fit_are_refused() -> None:
    detector = LocalOutlierFactorDetector.fit(cloud(1000, 3), seed=0, max_reference=100)
    arrays = detector.arrays()
    for name, wrong in {
        "reach": arrays["reach"][:-1],
        "density": arrays["density"][:, None],
        "reference": arrays["reference"][:, :2],
        "neighbours": np.array([101]),
        "normal": arrays["normal"][:, :1],
        "scale": -arrays["scale"],
    }.items():
        with pytest.raises(ArtefactIncompatible, match="retrain"):
            LocalOutlierFactorDetector.from_arrays({**arrays, name: wrong})


def test_a_row_in_sparse_surroundings_is_less_odd_than_one_beside_a_dense_group() -> None:
    """What LOF adds to a distance: the same gap counts by how dense the neighbours lie."""
    rng = np.random.default_rng(3)
    dense, sparse = rng.normal(0, 0.1, (300, 2)), rng.normal(20, 2.0, (300, 2))
    around = flatten(fitted(np.concatenate([dense, sparse]), 20))
    beside_dense, inside_sparse = np.array([[1.5, 0.0]]), np.array([[21.5, 20.0]])
    assert around.factors(beside_dense)[0] > 3 * around.factors(inside_sparse)[0]


def test_contributions_are_the_columns_parts_of_the_distances_to_the_neighbours() -> None:
    detector = LocalOutlierFactorDetector.fit(cloud(3000, 3), seed=0)
    rows = np.array([[9.0, 0.2, -0.1], [6.0, 6.0, 0.0]])
    z = detector.normal.scale.apply(rows)
    reference = detector.around.reference
    for row, found in zip(z, detector.contributions(rows), strict=True):
        gaps = (row - reference) ** 2
        nearest = gaps[np.argsort(gaps.sum(axis=1))[:20]].sum(axis=0)
        np.testing.assert_allclose(found, nearest / nearest.sum(), rtol=1e-12)


def test_a_neighbourhood_scores_rows_in_any_memory_order() -> None:
    around = flatten(fitted(cloud(200, 3), 5))
    assert isinstance(around, Neighbourhood)
    rows = probes(3)
    assert around.factors(np.asfortranarray(rows)).tobytes() == around.factors(rows).tobytes()
