"""Synthetic series that lead a detector through all its branches."""

from __future__ import annotations

import numpy as np

from detection.base import FloatArray, IntArray, ScoringInput, SeriesDetector, SeriesOutput
from detection.state import StateStore

START = 1_700_000_000


def regular(n: int, period_s: int = 300, start: int = START) -> IntArray:
    """Event times, int64[n]."""
    return start + period_s * np.arange(n, dtype=np.int64)


def daily(n: int, seed: int, period_s: int = 300) -> FloatArray:
    """A season of the day with noise."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * np.arange(n) * period_s / 86400
    return np.asarray(50 + 20 * np.sin(angle) + rng.normal(0, 1.0, n))


def returning_fault(n: int, seed: int) -> FloatArray:
    """A spike to the same height, at the same time of every second day, after a quiet start."""
    value = daily(n, seed)
    value[900::576] = 140.0
    value[901::576] = 141.0
    return value


def on_off(n: int, seed: int) -> FloatArray:
    """Runs of equal values, of usual and then of unusual length."""
    rng = np.random.default_rng(seed)
    value = np.repeat(rng.integers(0, 2, n // 3 + 1), 3)[:n].astype(np.float64)
    value[1500:1700] = 1.0
    value[2500:2502] = 7.0
    return value


def level_that_stays(n: int, seed: int) -> FloatArray:
    """A shift to where every event is odd, long enough to become the regime."""
    rng = np.random.default_rng(seed)
    value = rng.normal(10, 0.5, n)
    value[1200:] += np.cumsum(rng.normal(0, 2.0, n - 1200))
    return value


def walk(n: int, seed: int) -> FloatArray:
    """Never the same place twice: books overflow."""
    return np.cumsum(np.random.default_rng(seed).standard_t(2, n))


def constant(n: int, seed: int) -> FloatArray:
    """No variance at all, then a jump."""
    value = np.full(n, 3.0)
    value[n - n // 4 :] = 1e6
    return value


def hourly_week(n: int, seed: int) -> FloatArray:
    """A season of the week, for events an hour apart: quiet weekends."""
    rng = np.random.default_rng(seed)
    hour = np.arange(n)
    busy = ((hour // 24) % 7 < 5) & (hour % 24 > 7) & (hour % 24 < 19)
    value = 10 + 30 * busy + rng.normal(0, 1.0, n)
    value[900:920] += 35
    return value


def score_alone(
    detector: SeriesDetector, epoch_s: IntArray, value: FloatArray
) -> tuple[FloatArray, SeriesOutput]:
    """(oddness, the rest) of one new series in one batch."""
    store = StateStore([detector.component], capacity=1)
    inputs = ScoringInput(np.repeat(store.allocate(1), len(value)), epoch_s, value)
    out = SeriesOutput.empty(len(value))
    return detector.score(store.rows(detector.component.name), inputs, out), out
