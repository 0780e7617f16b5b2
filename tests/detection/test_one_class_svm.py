from __future__ import annotations

import numpy as np
import pytest
from sklearn.svm import OneClassSVM

from detection.detectors.one_class_svm import OneClassSvmDetector, flatten
from detection.errors import ArtefactIncompatible, NotEnoughData
from tests.detection.rows import cloud, probes


@pytest.mark.parametrize(
    ("n", "k", "nu", "gamma"), [(3000, 10, 0.1, 0.1), (500, 1, 0.05, 1.0), (300, 7, 0.9, 30.0)]
)
def test_scores_equal_scikit_learn(n: int, k: int, nu: float, gamma: float) -> None:
    train = np.round(cloud(n, k), 1)  # equal rows among them
    model = OneClassSVM(nu=nu, gamma=gamma).fit(train)
    support = flatten(model)
    rows = np.concatenate([probes(k), train[:100]])
    found = np.exp(support.log_scores(rows))
    np.testing.assert_allclose(found, model.score_samples(rows), rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        found - support.offset, model.decision_function(rows), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_batches_change_no_bit(size: int) -> None:
    support = flatten(OneClassSVM(nu=0.2, gamma=0.2).fit(cloud(1500, 10)))
    rows = np.concatenate([probes(10), probes(10, 2)])
    whole = support.log_scores(rows)
    parts = [support.log_scores(rows[at : at + size]) for at in range(0, len(rows), size)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_far_off_the_log_goes_on_where_the_score_is_nothing() -> None:
    support = flatten(OneClassSVM(nu=0.1, gamma=0.5).fit(cloud(500, 2)))
    far = np.array([[r, 0.0] for r in (5, 10, 20, 30, 31, 32, 40, 100, 1e6)])
    log = support.log_scores(far)
    assert np.isfinite(log).all()
    assert (np.diff(log) < 0).all()
    # Over the border between the two ways of summing nothing jumps: −rate · r² leads it.
    fine = np.array([[r, 0.0] for r in np.linspace(15, 45, 3001)])
    slope = np.diff(support.log_scores(fine)) / 0.01
    assert np.abs(np.diff(slope)).max() < 0.02


def test_the_sample_is_capped_and_seeded() -> None:
    rows = cloud(6000, 4)
    one, again, other = (
        OneClassSvmDetector.fit(rows, seed=seed, max_samples=400).support.vectors
        for seed in (1, 1, 2)
    )
    assert one.tobytes() == again.tobytes() != other.tobytes()
    assert 20 <= len(one) <= 100


def test_support_vectors_stay_few_by_default() -> None:
    detector = OneClassSvmDetector.fit(cloud(20_000, 10), seed=0)
    assert 150 <= len(detector.support.vectors) <= 300


def test_a_constant_column_says_nothing() -> None:
    rows = cloud(1000, 2)
    rows[:, 1] = 3.0
    detector = OneClassSvmDetector.fit(rows, seed=0)
    same, other, odd = detector.oddness(np.array([[0.1, 3.0], [0.1, 9.0], [50.0, 3.0]]))
    assert same == other < 1.0 < odd
    nothing = OneClassSvmDetector.fit(np.full((1000, 2), 3.0), seed=0)
    assert (nothing.oddness(np.array([[3.0, 3.0], [9.0, 3.0]])) < 1.0).all()


def test_too_little_history_and_wrong_settings_are_refused() -> None:
    with pytest.raises(NotEnoughData, match="too few"):
        OneClassSvmDetector.fit(cloud(300, 4), seed=0)
    for wrong in ({"nu": 0.0}, {"nu": 1.5}, {"gamma": -1.0}, {"max_samples": 1}):
        with pytest.raises(ValueError, match="nu"):
            OneClassSvmDetector.fit(cloud(1000, 2), seed=0, **wrong)


def test_arrays_that_do_not_fit_are_refused() -> None:
    arrays = OneClassSvmDetector.fit(cloud(1000, 3), seed=0).arrays()
    for name, wrong in {
        "vectors": arrays["vectors"][:, :2],
        "weight": arrays["weight"][:-1],
        "rate": np.array([0.0]),
        "offset": np.array([1.0, 2.0]),
        "centre": arrays["centre"][:-1],
    }.items():
        with pytest.raises(ArtefactIncompatible, match="retrain"):
            OneClassSvmDetector.from_arrays({**arrays, name: wrong})


def test_contributions_are_the_columns_parts_of_a_soft_nearest_distance() -> None:
    detector = OneClassSvmDetector.fit(cloud(3000, 3), seed=0)
    support = detector.support
    rows = np.array([[5.0, 0.2, -0.1], [4.0, 4.0, 0.0]])
    z = detector.normal.scale.apply(rows)
    for row, found in zip(z, detector.contributions(rows), strict=True):
        gaps = (row - support.vectors) ** 2
        part = support.weight * np.exp(-support.rate * gaps.sum(axis=1))
        wanted = (part / part.sum() / gaps.sum(axis=1)) @ gaps
        np.testing.assert_allclose(found, wanted, rtol=1e-9)
