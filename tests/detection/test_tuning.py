"""The search itself: pure, on small synthetic history."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest

from detection import injection, training, tuning
from detection.errors import NotEnoughData
from detection.features import FEATURE_NAMES, FEATURE_SETS
from detection.registry import MODEL_DETECTORS
from detection.tuning import Budget, Ground, Labels, Past, Result, StudyCancelled, TimeUp, Trial
from tests.detection.series import daily, regular


def histories(n: int = 3_000, series: int = 3) -> list[Past]:
    time_us = regular(n) * 1_000_000
    return [Past("web", f"m{i}", time_us, daily(n, seed=i)) for i in range(series)]


@cache
def ground(labels: bool = False) -> Ground:
    if not labels:
        return tuning.prepare(histories(), seed=1)
    rng = np.random.default_rng(0)
    wild, calm = rng.normal(0, 5, (20, len(FEATURE_NAMES))), np.zeros((20, len(FEATURE_NAMES)))
    given = Labels(np.vstack([wild, calm]), np.arange(40) < 20)
    return tuning.prepare(histories(), seed=1, labels=given)


def search(trials: int, seed: int = 3, **more: Any) -> Result:
    return tuning.search(ground(), Budget(trials), seed=seed, **more)


def without_time(result: Result) -> list[dict[str, object]]:
    return [trial.as_dict() | {"seconds": 0} for trial in result.trials]


def test_equal_seed_history_and_trials_give_equal_trials_and_models() -> None:
    again = tuning.prepare(histories(), seed=1)
    np.testing.assert_array_equal(again.faulty, ground().faulty)
    one = search(5)
    other = tuning.search(again, Budget(5), seed=3)
    assert without_time(one) == without_time(other)
    assert one.best.metrics["sha256"] == other.best.metrics["sha256"]
    assert one.importance == other.importance
    assert without_time(search(5, seed=4)) != without_time(one)


def test_the_first_trials_are_the_settings_of_now_and_their_other_settings_are_kept() -> None:
    defaults = {"isolation_forest": {"n_estimators": 60, "max_samples": 128, "contamination": 0.02}}
    found = search(3, defaults=defaults)
    assert found.baseline.algorithm == "isolation_forest"
    assert found.baseline.params == {"n_estimators": 60, "max_samples": 128, "features": "all"}
    value, figures = tuning.measure(
        ground(), "isolation_forest", defaults["isolation_forest"], seed=3
    )
    assert (found.baseline.value, found.baseline.metrics) == (value, figures)
    assert [trial.algorithm for trial in found.trials] == list(tuning.RANGES)
    assert (found.best.value or 0) >= value


def test_the_defaults_are_those_of_the_detectors() -> None:
    assert set(tuning.RANGES) == set(MODEL_DETECTORS)
    for name, params in tuning._DEFAULTS.items():
        given = inspect.signature(MODEL_DETECTORS[name].fit).parameters
        usual = params | {"features": "all"}
        assert set(usual) == set(tuning.RANGES[name])
        assert params == {key: given[key].default for key in params}
        assert {f"{name}.{k}": v for k, v in usual.items()} == tuning._preset(name, {})


def test_the_budget_of_seconds_ends_the_search_after_the_baseline_at_the_earliest() -> None:
    ticks = iter(float(10 * i) for i in range(1_000))
    found = tuning.search(ground(), Budget(50, 15.0), seed=1, clock=lambda: next(ticks))
    assert (len(found.trials), found.stopped) == (1, "time")
    ticks = iter(float(10 * i) for i in range(1_000))
    with pytest.raises(TimeUp, match="before the first trial had ended"):
        tuning.search(ground(), Budget(50, 5.0), seed=1, clock=lambda: next(ticks))


@pytest.mark.parametrize("end", [TimeUp, StudyCancelled])
def test_a_trial_that_is_cut_short_counts_as_never_begun(end: type[Exception]) -> None:
    def measured(algorithm: str, params: Mapping[str, Any]) -> tuning.Measured:
        if len(heard) == 2:
            raise end("now")
        return tuning.measure(ground(), algorithm, params, seed=3)

    heard: list[Trial] = []
    if end is TimeUp:
        found = search(9, told=heard.append, measured=measured)
        assert (len(found.trials), found.stopped) == (2, "time")
        assert without_time(found) == without_time(search(2))
    else:
        with pytest.raises(StudyCancelled, match="cancelled after 2 trials"):
            search(9, told=heard.append, measured=measured)


def test_a_set_of_features_is_what_a_trial_trains_on_and_importance_tells_of_it() -> None:
    value, figures = tuning.measure(ground(), "isolation_forest", {"features": "novelty"}, seed=3)
    narrow, whole = (
        training.train("isolation_forest", ground().rows, seed=3, params=params)
        for params in ({"features": "novelty"}, {})
    )
    assert figures["sha256"] == narrow.sha256 != whole.sha256
    assert narrow.manifest["feature_names"] == list(FEATURE_SETS["novelty"])
    assert value != tuning.measure(ground(), "isolation_forest", {}, seed=3)[0]
    sets = list(FEATURE_SETS)
    trials = [
        Trial(i, "isolation_forest",
              {"n_estimators": 100, "max_samples": 256, "features": sets[i % len(sets)]},
              0.9 if sets[i % len(sets)] == "event" else 0.5, {}, 0.1)
        for i in range(24)
    ]  # fmt: skip
    shares = tuning.importance(trials, seed=0)
    assert next(iter(shares)) == "isolation_forest.features"
    assert shares["isolation_forest.features"] > 0.9


def test_it_can_be_cancelled_between_trials() -> None:
    heard: list[Trial] = []
    with pytest.raises(StudyCancelled, match="cancelled after 2 trials"):
        search(9, told=heard.append, cancelled=lambda: len(heard) == 2)
    assert [trial.number for trial in heard] == [0, 1]


def test_every_trial_keeps_to_the_rate_of_false_onsets_and_finds_what_is_there() -> None:
    for trial in search(3).trials:
        assert trial.metrics["false_onsets_per_10000"] <= 3.0
        assert trial.metrics["recall"]["spike"] > 0.5
        assert set(trial.metrics["recall"]) <= set(injection.KINDS)
        assert trial.value == pytest.approx(np.mean(list(trial.metrics["recall"].values())))


def test_labels_count_as_much_as_faults_once_there_are_enough() -> None:
    value, figures = tuning.measure(ground(labels=True), "isolation_forest", {}, seed=1)
    alone, plain = tuning.measure(ground(), "isolation_forest", {}, seed=1)
    assert figures["label_weight"] == 0.5
    assert figures["injected"] == plain["injected"] == alone
    assert value == pytest.approx(0.5 * alone + 0.5 * figures["labelled"])
    assert figures["labelled"] != plain["injected"]
    assert "40 labels" in ground(labels=True).objective


def test_labels_that_no_model_can_tell_apart_are_worth_half() -> None:
    same = np.zeros((10, len(FEATURE_NAMES)))
    given = tuning.prepare(histories(), seed=1, labels=Labels(same, np.arange(10) < 5))
    _, figures = tuning.measure(given, "isolation_forest", {}, seed=1)
    assert (figures["labelled"], figures["label_weight"]) == (0.5, 0.125)


def test_the_threshold_lets_through_what_is_allowed() -> None:
    score = np.random.default_rng(2).random(20_000)
    time_us = regular(20_000) * 1_000_000
    for allowed in (0.0, 1.0, 6.0):
        threshold, onsets = tuning.threshold_at(score, time_us, allowed)
        assert onsets == len(tuning._onsets(score >= threshold, time_us)) <= allowed
    assert onsets >= 4


def test_importance_tells_the_parameter_that_moves_the_value() -> None:
    rng = np.random.default_rng(1)
    trials = [
        Trial(i, "isolation_forest",
              {"n_estimators": int(n), "max_samples": int(m), "features": "all"},
              float(n) / 300, {}, 0.1)
        for i, (n, m) in enumerate(zip(rng.integers(25, 300, 30), rng.integers(64, 4_096, 30),
                                       strict=True))
    ]  # fmt: skip
    shares = tuning.importance(trials, seed=0)
    assert shares["isolation_forest.n_estimators"] > 0.8
    assert sum(shares.values()) == pytest.approx(1.0)
    given: dict[str, tuning.Value] = {
        "nu": 0.1, "gamma": "scale", "max_samples": 300, "features": "all",
    }  # fmt: skip
    svm = [Trial(30 + i, "one_class_svm", given, 5.0, {}, 0.1) for i in range(3)]
    assert next(iter(tuning.importance(trials + svm, seed=0))) == "algorithm"
    assert tuning.importance(svm, seed=0) == {}


def test_what_is_too_little_or_unknown_is_said_in_a_sentence() -> None:
    with pytest.raises(NotEnoughData, match="no series has the 600 events"):
        tuning.prepare([], seed=1)
    with pytest.raises(NotEnoughData, match="more rows to train on are needed"):
        tuning.prepare(histories(700, 1), seed=1)
    with pytest.raises(ValueError, match="trials is 0: from 1 to 1,000"):
        Budget(0)
    with pytest.raises(ValueError, match="seconds is 0: from 1 to 86,400"):
        Budget(5, 0.0)
    with pytest.raises(ValueError, match="'forest' is none of isolation_forest"):
        search(1, algorithms=("forest",))
