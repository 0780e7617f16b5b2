from __future__ import annotations

import numpy as np
import pytest

from detection import ensemble

NAN = np.nan
ODDNESS = np.array(
    [[1.0, 2.0, 4.0], [NAN, 2.0, 4.0], [NAN, NAN, NAN], [0.0, 0.0, 0.0], [3.0, NAN, NAN]]
)
WEIGHTS = np.array([1.0, 0.5, 0.25])


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("max", [1.0, 1.0, NAN, 0.0, 3.0]),
        ("mean", [7 / 3, 3.0, NAN, 0.0, 3.0]),
        ("weighted", [3 / 1.75, 2 / 0.75, NAN, 0.0, 3.0]),
        ("vote", [1.0, 2.0, NAN, 0.0, 3.0]),
    ],
)
def test_methods_by_hand(method: str, wanted: list[float]) -> None:
    np.testing.assert_allclose(ensemble.combine(ODDNESS, method, WEIGHTS), wanted)


def test_vote_alarms_exactly_when_the_majority_does() -> None:
    oddness = np.random.default_rng(0).exponential(1.0, (500, 5))
    alarmed = ensemble.combine(oddness, "vote") >= 1.0
    np.testing.assert_array_equal(alarmed, (oddness >= 1.0).sum(axis=1) >= 3)


@pytest.mark.parametrize("method", ensemble.METHODS)
def test_each_row_is_combined_on_its_own(method: str) -> None:
    oddness = np.random.default_rng(1).exponential(1.0, (300, 3))
    oddness[oddness < 0.2] = NAN
    whole = ensemble.combine(oddness, method, WEIGHTS)
    for size in (1, 7):
        parts = [
            ensemble.combine(oddness[at : at + size], method, WEIGHTS) for at in range(0, 300, size)
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_second_opinions_alarm_alone_only_when_extreme() -> None:
    weights = ensemble.weights_for(["online", "zscore", "isolation_forest"])
    quiet = ensemble.combine(np.array([[0.2, 2.0, 1.2]]), "max", weights)
    loud = ensemble.combine(np.array([[0.2, 12.0, 0.1]]), "max", weights)
    assert quiet[0] < 1.0 <= loud[0]


def test_given_weights_win_and_new_detectors_have_one() -> None:
    found = ensemble.weights_for(["online", "lof"], {"online": 0.7})
    assert found.tolist() == [0.7, ensemble.OTHER_WEIGHT]


def test_score_is_at_the_threshold_at_the_alarm_level() -> None:
    score = ensemble.score_from_oddness(np.array([0.0, 1.0, 2.0, NAN]))
    np.testing.assert_allclose(score, [0.0, 0.8, 0.96, NAN])
    assert score[1] >= 0.8
    back = ensemble.oddness_from_score(score)
    np.testing.assert_allclose(back, [0.0, 1.0, 2.0, NAN])


@pytest.mark.parametrize("wrong", [np.ones(2), np.array([1.0, -1.0, 1.0]), np.full(3, np.nan)])
def test_wrong_weights_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="weights"):
        ensemble.combine(ODDNESS, "max", wrong)


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="none of"):
        ensemble.combine(ODDNESS, "magic")
