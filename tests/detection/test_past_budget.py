"""The budget's rule over stored onsets says what the consumer's own rule says over all events."""

from __future__ import annotations

import numpy as np

from detection import episodes
from detection.past_budget import Near, told
from detection.thresholds import LEVELS, Policy

DAY_S = 86_400.0
AT_80 = LEVELS.tolist().index(0.8)


def near(day: float, score: float) -> Near:
    levels = sum(1 << i for i, level in enumerate(LEVELS.tolist()) if score >= level)
    return Near(day * DAY_S, score, levels)


def test_without_a_limit_every_onset_is_told() -> None:
    found = [near(0.01 * i, 0.7 + 0.02 * (i % 10)) for i in range(50)]
    assert told(found, AT_80, 0, 0.0) == [one.score >= 0.8 for one in found]


def test_noise_keeps_to_the_budget_and_what_is_odder_is_told() -> None:
    noise = [near(0.1 * i, 0.82) for i in range(300)]
    answers = told([*noise, near(30.01, 0.985)], AT_80, 1, 0.0)
    assert 3 <= sum(answers[:-1]) <= 60
    assert answers[-1], "above all that the noise has shown"
    assert sum(answers[200:300]) <= 20


def test_it_agrees_with_the_engine_on_events_that_are_all_onsets() -> None:
    """Events so far apart in number that each is an onset: both rules see the same."""
    dice = np.random.default_rng(5)
    n = 400
    score = np.round(0.6 + 0.39 * dice.random(n) ** 1.5, 3)
    time_us = (np.cumsum(dice.uniform(0.01, 0.2, n)) * DAY_S * 1e6).astype(np.int64)
    state = np.tile(episodes.component().initial, (1, 1))
    policy = Policy(threshold=0.8, max_onsets_per_day=1.0)
    out = episodes.advance(
        state, np.zeros(n, dtype=np.int64), time_us, np.arange(n, dtype=np.int64), np.ones(n),
        score, np.full((n, 3), np.nan), np.zeros(n, dtype=np.int32), np.array([policy.row()]),
        episodes.Limits(quiet_events=0, max_gap_us=10**18), np.zeros(n),
    )  # fmt: skip
    found = [Near(t / 1e6, float(s), int(m) & 0xFFFFF)
             for t, s, m in zip(time_us, score, out.levels, strict=True)]  # fmt: skip
    answers = told(found, AT_80, 1.0, float(time_us[0]) / 1e6)
    opened = (out.change == episodes.ONSET).tolist()
    assert sum(opened) > 20
    agree = sum(a == b for a, b in zip(answers, opened, strict=True))
    assert agree >= 0.97 * n, (sum(answers), sum(opened), agree)
