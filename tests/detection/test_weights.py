"""Weights are learnt from faults and labels, not from who shouts most."""

from __future__ import annotations

import numpy as np
import pytest

from detection.errors import NotEnoughData
from detection.weights import Judged, Learnt, Rules, Sample, figures, learn

NAMES = ("good", "noisy", "blind")


def sample(seed: int, n: int = 6000, every: int = 600) -> Sample:
    """`good` sees each fault, `noisy` some, and both invent their share; `blind` sees nothing."""
    rng = np.random.default_rng(seed)
    faults = np.array([[at, at + 10] for at in range(800, n - 100, every)])
    votes = 0.3 * rng.random((n, 3))
    votes[rng.random(n) < 0.004, 1] = 3.0
    for start, end in faults:
        votes[start:end, 0] = 1.6
        votes[start:end, 1] = 1.2 if rng.random() < 0.5 else 0.2
    return Sample(votes, np.arange(n) * 60_000_000, faults, start=500)


@pytest.mark.parametrize("method", ["max", "weighted"])
def test_the_noisy_detector_loses_its_weight(method: str) -> None:
    rules = Rules(method=method)
    samples = [sample(seed) for seed in range(3)]
    found = learn(NAMES, samples, None, rules, (1.0, 1.0, 1.0))
    before = figures(NAMES, (1.0, 1.0, 1.0), 0.8, samples, None, rules)
    assert found.f1 > before.f1
    assert found.f1 > 0.95
    assert found.false_per_10000 <= rules.most_false
    # so much that its inventions no longer reach the threshold by themselves
    assert found.weights["noisy"] < 0.5 * found.weights["good"]
    held_out = figures(
        NAMES, list(found.weights.values()), found.threshold, [sample(9)], None, rules
    )
    assert held_out.f1 > 0.9


def test_a_mean_gets_the_threshold_that_keeps_the_rate() -> None:
    samples = [sample(seed) for seed in range(3)]
    strict = learn(NAMES, samples, None, Rules(most_false=0.0), (1.0, 1.0, 1.0))
    loose = learn(NAMES, samples, None, Rules(most_false=100.0), (1.0, 1.0, 1.0))
    assert strict.false_per_10000 == 0.0
    assert 0.0 < loose.threshold <= strict.threshold < 1.0
    assert max(strict.weights.values()) == 1.0


def test_learning_is_deterministic() -> None:
    def once() -> Learnt:
        return learn(NAMES, [sample(1)], None, Rules(method="max"), (1.0, 0.5, 0.5))

    assert once() == once()


def test_labels_alone_teach_too() -> None:
    """People call what only `noisy` saw a false alarm, and what `good` saw real."""
    real = np.array([True] * 10 + [False] * 10)
    votes = np.full((20, 3), 0.1)
    votes[real, 0] = 1.5
    votes[~real, 1] = 2.0
    judged = Judged(votes, real)
    found = learn(NAMES, [], judged, Rules(method="max"), (1.0, 1.0, 1.0))
    assert found.f1 == 1.0
    assert 2.0 * found.weights["noisy"] < 1.0 <= 1.5 * found.weights["good"]


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="not for 'vote'"):
        learn(NAMES, [sample(1)], None, Rules(method="vote"), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="3 weights"):
        learn(NAMES, [sample(1)], None, Rules(), (1.0, 1.0))
    with pytest.raises(NotEnoughData, match="at least one fault"):
        learn(NAMES, [], None, Rules(), (1.0, 1.0, 1.0))
