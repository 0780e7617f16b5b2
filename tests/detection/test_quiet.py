"""Quiet by default: what a budget of onsets a day does to one series, and what it never does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from numpy.typing import NDArray

from config.wiring import load_model, scoring_base
from detection import episodes
from detection.episodes import EXTEND, NONE, ONSET, Limits, Outcome
from detection.scoring import ScoringEngine
from detection.state import StateStore
from detection.thresholds import HELD_BACK, WOULD_OPEN, Policy, PolicyTable
from detection.versions import compile_version
from streams.batch import EventBatch
from streams.series import SeriesIndex
from tests.detection.series import walk

START = 1_704_067_200_000_000
MINUTE_US, DAY_US = 60_000_000, 86_400_000_000
A_DAY = 1_440  # events, one a minute
QUIET = Policy(max_onsets_per_day=1.0)
LOUD = Policy()
LIMITS = Limits(quiet_events=5)

Floats = NDArray[np.float64]


def new_state() -> Floats:
    store = StateStore([episodes.component()], capacity=1)
    store.allocate(1)
    return store.rows("episodes")


def run(
    score: Floats, policy: Policy = QUIET, state: Floats | None = None, first: int = 0, **more: Any
) -> Outcome:
    """One series' events, a minute apart, from the ``first`` on; values are the direction."""
    n = len(score)
    number = np.arange(first, first + n, dtype=np.int64)
    value = more.pop("value", np.ones(n))
    return episodes.advance(
        new_state() if state is None else state, np.zeros(n, dtype=np.int64),
        START + number * MINUTE_US, number, value, score,
        np.zeros((n, 3)), np.zeros(n, dtype=np.int32), PolicyTable([policy]).rows, LIMITS, **more,
    )  # fmt: skip


def noise(days: int, a_day: float, seed: int) -> Floats:
    """Scores of lone odd events, at random times and more rarely the odder they are."""
    rng = np.random.default_rng(seed)
    oddness = rng.uniform(0, 0.3, days * A_DAY)
    odd = np.flatnonzero(rng.random(days * A_DAY) < a_day / A_DAY)
    oddness[odd] = 1 + rng.exponential(0.3, len(odd))
    return np.asarray(1 - 5.0**-oddness)


def spikes(score: Floats, at: list[int], oddness: float = 8.0) -> Floats:
    out = score.copy()
    out[at] = 1 - 5.0**-oddness
    return out


def onsets(out: Outcome) -> list[int]:
    at: list[int] = np.flatnonzero(out.change == ONSET).tolist()
    return at


def per_day(out: Outcome, days: int) -> NDArray[np.intp]:
    return np.bincount(np.array(onsets(out), dtype=np.int64) // A_DAY, minlength=days)


@pytest.mark.parametrize("a_day", [3.0, 12.0, 40.0])
def test_noise_keeps_to_its_budget_after_the_first_day(a_day: float) -> None:
    days, every = 15, 20
    told = np.stack([per_day(run(noise(days, a_day, seed)), days) for seed in range(every)])
    loud = np.stack([per_day(run(noise(days, a_day, seed), LOUD), days) for seed in range(every)])
    assert loud.mean() > 0.75 * a_day
    assert 0.5 <= told[:, 1:].mean() <= 1.0
    assert told[:, 1:].mean(axis=1).max() <= 1.4, "by chance, of twenty"
    assert told[:, 0].max() <= 4


def test_what_would_have_been_is_what_is_without_a_limit() -> None:
    rng = np.random.default_rng(5)
    for policy in (
        QUIET,
        replace(QUIET, threshold=0.83),
        replace(QUIET, direction="up", min_absolute_deviation=0.5),
    ):
        score = noise(6, 30, 11)
        value = rng.normal(size=len(score))
        quiet = run(score, policy, value=value)
        loud = run(score, replace(policy, max_onsets_per_day=0.0), value=value)
        assert np.flatnonzero(quiet.levels & WOULD_OPEN).tolist() == onsets(loud)
        held = np.flatnonzero(quiet.levels & HELD_BACK).tolist()
        assert len(held) > 20
        assert set(held) == set(onsets(loud)) - set(onsets(quiet))


def test_a_series_within_its_budget_is_as_without_a_limit() -> None:
    calm = np.full(30 * A_DAY, 0.1)
    for at in (
        [100],
        [100, 400, 500],  # three in the first hours of its life
        [20 * A_DAY + 60 * i for i in range(7)],  # seven in a morning, after quiet weeks
        list(range(200, 30 * A_DAY, A_DAY)),  # one a day, for a month
    ):
        score = spikes(calm, at, 1.05)
        assert onsets(run(score)) == at
        assert onsets(run(score, LOUD)) == at


def test_what_is_odder_than_the_noise_is_told_at_once() -> None:
    for seed in range(10):
        score = noise(12, 40, seed)
        at = [5 * A_DAY + 700, 7 * A_DAY + 700, 9 * A_DAY + 700, 11 * A_DAY + 700]
        for i in at:
            score[i - 10 : i] = 0.1  # no episode is open
        out = run(spikes(score, at))
        assert set(at) <= set(onsets(out))
        assert (out.severity[at] == 4).all()
    # and in the first hour, after noise that used the first days' share up
    for seed in range(10):
        score = noise(1, 400, seed)
        score[290:300] = 0.1
        assert 300 in onsets(run(spikes(score, [300])))


def test_a_held_one_that_grows_worse_is_told_then() -> None:
    score = noise(6, 40, 3)
    at = 5 * A_DAY
    score[at - 100 : at + 100] = 0.1
    score[at : at + 5] = [0.81, 0.9, 0.999, 0.9999, 0.9]
    out = run(score)
    assert out.levels[at] & HELD_BACK
    assert out.change[at : at + 4].tolist() == [NONE, NONE, ONSET, EXTEND]
    assert 0.9 < out.threshold[at + 2] <= 0.999


def test_a_flood_of_the_same_great_fault_is_told_once_a_day() -> None:
    every_hour = spikes(np.full(30 * A_DAY, 0.1), list(range(500, 30 * A_DAY, 60)))
    told = per_day(run(every_hour), 30)
    assert told[0] <= 3
    assert told[2:].max() <= 1
    assert told[2:].sum() >= 25


def test_what_is_below_three_times_the_threshold_has_an_upper_bound() -> None:
    """Each odder than the last: the worst that can happen to a ladder of thresholds."""
    score = np.full(7 * A_DAY, 0.1)
    at = np.arange(200, 7 * A_DAY, 60)
    score[at] = 1 - 5.0 ** -np.linspace(1.0, 2.99, len(at))
    told = per_day(run(score), 7)
    assert told[:2].sum() <= 5
    assert told.sum() <= 14


def test_another_budget_has_another_measure() -> None:
    score = noise(30, 40, 2)
    told = {b: len(onsets(run(score, replace(QUIET, max_onsets_per_day=b)))) for b in (0.2, 1, 5)}
    assert told[0.2] <= 0.2 * 30 + 4
    assert told[0.2] < told[1] < told[5] <= 5 * 30


def test_switching_it_off_and_on_counts_at_once() -> None:
    score = noise(9, 40, 8)
    loud = onsets(run(score, LOUD))
    state = new_state()
    parts = [
        run(score[a * A_DAY : b * A_DAY], policy, state, a * A_DAY)
        for a, b, policy in ((0, 3, QUIET), (3, 6, LOUD), (6, 9, QUIET))
    ]
    first, off, on = (len(onsets(part)) for part in parts)
    assert first <= 10
    assert off == sum(3 * A_DAY <= i < 6 * A_DAY for i in loud)
    assert on <= 4, "what was counted while it was off is known"


def test_a_threshold_that_is_lowered_knows_the_past_below_it() -> None:
    score = np.minimum(noise(9, 40, 8), 0.9)
    state = new_state()
    run(score[: 6 * A_DAY], replace(QUIET, threshold=0.95), state)
    out = run(score[6 * A_DAY :], QUIET, state, 6 * A_DAY)
    assert len(onsets(out)) <= 8
    assert (out.levels & WOULD_OPEN > 0).sum() > 80


def test_the_threshold_in_effect_comes_down_when_the_noise_ends() -> None:
    state = new_state()
    run(noise(20, 40, 1), QUIET, state)
    assert 0.8 < state[0, episodes.QUIET_NOW] <= 1
    run(np.full(3 * A_DAY, 0.1), QUIET, state, 20 * A_DAY)
    assert 0.8 < state[0, episodes.QUIET_NOW] <= 1
    run(np.full(2 * A_DAY, 0.1), QUIET, state, 23 * A_DAY)
    assert state[0, episodes.QUIET_NOW] == 0


def test_each_event_may_have_its_own_quiet_events() -> None:
    score = np.full(40, 0.1)
    score[[0, 4, 20]] = 0.9
    assert onsets(run(score, LOUD)) == [0, 20]
    assert onsets(run(score, LOUD, quiet_events=np.full(40, 3.0))) == [0, 4, 20]
    assert onsets(run(score, LOUD, quiet_events=np.full(40, 30.0))) == [0]


# -- through the engine --------------------------------------------------------------------------


def payload(**more: Any) -> dict[str, Any]:
    base = scoring_base(settings.VIGIL)
    policy = {**Policy("p", version=1, threshold=0.6).as_dict(), **more}
    return {**base, "time_zone": "UTC", "models": [], "policies": [policy]}


def batch(made: ScoringEngine, start: int, end: int) -> EventBatch:
    code = made.index.code("a", "b")
    offset = np.arange(start, end, dtype=np.int64)
    return EventBatch(
        START + offset * 20_000_000, np.full(len(offset), code, dtype=np.int32),
        walk(6_000, 3)[start:end].reshape(-1, 1), np.zeros(len(offset), dtype=np.int32), offset,
        committable={0: end},
    )  # fmt: skip


def engine() -> ScoringEngine:
    made = ScoringEngine(SeriesIndex())
    made.attach(0)
    return made


def test_a_restart_from_a_snapshot_changes_nothing() -> None:
    version = compile_version(0, payload(max_onsets_per_day=1.0), load_model)
    one, other = engine(), engine()
    first = one.process(batch(one, 0, 3_000), version, {})
    assert (first.outcome.levels & HELD_BACK).any()
    other.restore(
        0, np.array([other.index.code("a", "b")], dtype=np.int32), one.layouts(one.slots_of(0))[0],
        one.pack(one.slots_of(0)),
    )  # fmt: skip
    a = one.process(batch(one, 3_000, 6_000), version, {}).outcome
    parts = [
        other.process(batch(other, at, at + 100), version, {}).outcome
        for at in range(3_000, 6_000, 100)
    ]
    for name in ("change", "levels", "threshold", "severity"):
        assert np.array_equal(getattr(a, name), np.concatenate([getattr(p, name) for p in parts]))
    assert one.pack(one.slots_of(0)) == other.pack(other.slots_of(0))


def test_a_version_from_before_there_were_budgets_has_none() -> None:
    old = payload()
    del old["policies"][0]["max_onsets_per_day"], old["max_onsets_per_day"]
    version = compile_version(0, old, load_model)
    made = engine()
    out = made.process(batch(made, 0, 6_000), version, {}).outcome
    assert not (out.levels & HELD_BACK).any()
    assert (out.change == ONSET).sum() > 5


def test_out_of_the_box_one_a_day_is_the_limit() -> None:
    assert scoring_base(settings.VIGIL)["max_onsets_per_day"] == 1.0
