"""Worse, or unlucky: what the gate's statistics say of models whose worth is known."""

from __future__ import annotations

import numpy as np
import pytest

from detection.gate_faults import RECALL_TOLERANCE
from detection.paired import SURE, chance_of_more, loss


def draws(lost: float, differ: float, rng: np.random.Generator, groups: int = 83) -> float:
    """The least loss of one that truly loses ``lost`` of its faults, twelve of a group."""
    only_champion, only_challenger = (differ + lost) / 2, (differ - lost) / 2
    # Faults of a group stand and fall together: half of them are the same draw.
    kind = rng.choice(3, p=[only_champion, only_challenger, 1 - differ], size=(groups, 7))
    weight = np.array([6, 1, 1, 1, 1, 1, 1])
    fewer = ((kind == 0) * weight).sum(axis=1) - ((kind == 1) * weight).sum(axis=1)
    return loss(fewer, np.full(groups, 12)).least


@pytest.mark.parametrize(
    ("lost", "differ", "refused"),
    [
        (0.0, 0.1, (0, 0.005)),
        (0.03, 0.1, (0, 0.04)),
        (0.1, 0.12, (0.93, 1)),
        (0.15, 0.2, (0.98, 1)),
    ],
)
def test_the_just_tolerable_is_seldom_refused_and_the_worse_nearly_always(
    lost: float, differ: float, refused: tuple[float, float]
) -> None:
    rng = np.random.default_rng(1)
    found = np.mean([draws(lost, differ, rng) > RECALL_TOLERANCE for _ in range(1_000)])
    assert refused[0] <= found <= refused[1]


def test_a_loss_is_a_share_of_the_faults_and_its_sign_says_which_way() -> None:
    faults = np.array([10, 10, 20])
    assert loss(np.array([1, 1, 2]), faults).share == pytest.approx(0.1)
    assert loss(np.array([1, 1, 2]), faults).least == pytest.approx(0.1)  # no group differs
    better = loss(np.array([-1, 0, -3]), faults)
    assert better.share == pytest.approx(-0.1)
    assert better.least < better.share
    assert loss(np.array([5]), np.array([10])).least <= 0, "one group says nothing of chance"
    assert loss(np.zeros(0, np.int64), np.zeros(0, np.int64)).share == 0


def test_more_alarms_by_chance() -> None:
    rng = np.random.default_rng(2)
    for both, tolerated in ((0.3, 0.5), (3, 1), (30, 3)):
        mine, others = rng.poisson(both + tolerated, 2_000), rng.poisson(both, 2_000)
        refused = np.mean(
            [
                chance_of_more(a, b, tolerated) < SURE
                for a, b in zip(mine.tolist(), others.tolist(), strict=True)
            ]
        )
        assert refused < 0.045, "one that has just what is tolerated"
    assert chance_of_more(0, 0, 0.5) > 0.5
    assert chance_of_more(2, 0, 0.5) > SURE
    assert chance_of_more(6, 0, 0.5) < SURE
    assert chance_of_more(40, 10, 3) < 0.001
    assert chance_of_more(10, 40, 3) > 0.99
    values = [chance_of_more(n, 5, 1.0) for n in range(30)]
    assert values == sorted(values, reverse=True)
