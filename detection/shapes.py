"""Twenty shapes of normal data, seeded: an alarm on any of them is a false one.

They are the yardstick of `manage.py evaluate normal` and the ground of `evaluate injected`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from detection.base import FloatArray, IntArray

EVENTS = 20_000
START_S = 1_704_067_200  # Monday, 2024-01-01 00:00 UTC
DAY_S = 86_400

Maker = Callable[[np.random.Generator, IntArray], FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One normal series: `time_s` int64[n], seconds since 1970, rising; `value` float64[n]."""

    name: str
    time_s: IntArray
    value: FloatArray


def make(name: str, seed: int, events: int = EVENTS) -> Shape:
    """A series of this shape; equal arguments give equal bits.

    Raises:
        ValueError: no such shape.
    """
    if name not in SHAPES:
        raise ValueError(f"shape {name!r} is none of {', '.join(SHAPES)}")
    interval_s, maker = SHAPES[name]
    rng = np.random.default_rng([seed, list(SHAPES).index(name)])
    time_s = START_S + interval_s * np.arange(events, dtype=np.int64)
    if name == "gaps":
        time_s = _with_gaps(rng, time_s, interval_s)
    return Shape(name, time_s, maker(rng, time_s))


def daily_level(time_s: IntArray) -> FloatArray:
    """A day's course in [−1, 1] with a second harmonic."""
    angle = 2.0 * np.pi * (time_s % DAY_S) / DAY_S
    return np.asarray((np.sin(angle - 2.0) + 0.3 * np.sin(2.0 * angle)) / 1.2)


def autoregressive(rng: np.random.Generator, n: int, share: float) -> FloatArray:
    """AR(1) with unit variance, begun in equilibrium."""
    from scipy.signal import lfilter

    noise = rng.standard_normal(n) * np.sqrt(1.0 - share * share)
    noise[0] = rng.standard_normal()
    return np.asarray(lfilter([1.0], [1.0, -share], noise))


# -- the shapes ----------------------------------------------------------------------------------


def _normal(rng: np.random.Generator, t: IntArray) -> FloatArray:
    return rng.normal(50.0, 5.0, len(t))


def _heavy_tails(rng: np.random.Generator, t: IntArray) -> FloatArray:
    return 100.0 + 5.0 * rng.standard_t(3, len(t))


def _lognormal(rng: np.random.Generator, t: IntArray) -> FloatArray:
    return 20.0 * rng.lognormal(0.0, 0.6, len(t))


def _exponential(rng: np.random.Generator, t: IntArray) -> FloatArray:
    return rng.exponential(120.0, len(t))


def _poisson(rng: np.random.Generator, t: IntArray) -> FloatArray:
    return rng.poisson(4.0, len(t)).astype(np.float64)


def _binary(rng: np.random.Generator, t: IntArray) -> FloatArray:
    return (rng.random(len(t)) < 0.15).astype(np.float64)


def _few_values(rng: np.random.Generator, t: IntArray) -> FloatArray:
    return rng.choice([0.0, 10.0, 20.0, 50.0, 100.0], len(t), p=[0.3, 0.3, 0.2, 0.15, 0.05])


def _ties(rng: np.random.Generator, t: IntArray) -> FloatArray:
    """Mostly nothing, else a rounded amount."""
    some = np.round(rng.exponential(3.0, len(t)), 1)
    return np.where(rng.random(len(t)) < 0.6, 0.0, some)


def _daily(rng: np.random.Generator, t: IntArray) -> FloatArray:
    return 50.0 + 20.0 * daily_level(t) + rng.normal(0.0, 2.0, len(t))


def _weekly(rng: np.random.Generator, t: IntArray) -> FloatArray:
    weekend = (t - START_S) // DAY_S % 7 >= 5
    return 200.0 + np.where(weekend, 30.0, 100.0) * daily_level(t) + rng.normal(0.0, 8.0, len(t))


def _growing_noise(rng: np.random.Generator, t: IntArray) -> FloatArray:
    """A season of the day whose noise grows with its level."""
    level = 60.0 + 40.0 * daily_level(t)
    return level * (1.0 + 0.08 * rng.standard_normal(len(t)))


def _trend(rng: np.random.Generator, t: IntArray) -> FloatArray:
    return 100.0 + np.linspace(0.0, 400.0, len(t)) + rng.normal(0.0, 5.0, len(t))


def _random_walk(rng: np.random.Generator, t: IntArray) -> FloatArray:
    return 1000.0 + np.cumsum(rng.standard_normal(len(t)))


def _ar_50(rng: np.random.Generator, t: IntArray) -> FloatArray:
    return 30.0 + 4.0 * autoregressive(rng, len(t), 0.5)


def _ar_95(rng: np.random.Generator, t: IntArray) -> FloatArray:
    return 30.0 + 4.0 * autoregressive(rng, len(t), 0.95)


def _bursts(rng: np.random.Generator, t: IntArray) -> FloatArray:
    """Counts with bursts: each begins at random and dies away within some ten events."""
    from scipy.signal import lfilter

    started = (rng.random(len(t)) < 0.01) * rng.exponential(20.0, len(t))
    rate: FloatArray = 2.0 + lfilter([1.0], [1.0, -0.8], started)
    return rng.poisson(rate).astype(np.float64)


def _on_off(rng: np.random.Generator, t: IntArray) -> FloatArray:
    """Two regimes, each for 60 events in the mean."""
    runs = rng.geometric(1.0 / 60.0, len(t))
    regime = np.repeat(np.arange(len(t)) % 2, runs)[: len(t)]
    return np.where(regime == 1, 80.0, 10.0) + rng.normal(0.0, 2.0, len(t))


def _gaps(rng: np.random.Generator, t: IntArray) -> FloatArray:
    """The daily season again; what is missing is in the times."""
    return 50.0 + 20.0 * daily_level(t) + rng.normal(0.0, 2.0, len(t))


def _sawtooth(rng: np.random.Generator, t: IntArray) -> FloatArray:
    """A disk that fills and is emptied every 200 events or so."""
    lengths = rng.integers(180, 221, len(t) // 180 + 1)
    ramp = np.concatenate([np.linspace(0.0, 1.0, n, endpoint=False) for n in lengths])
    return 20.0 + 60.0 * ramp[: len(t)] + rng.normal(0.0, 1.0, len(t))


def _mixture(rng: np.random.Generator, t: IntArray) -> FloatArray:
    """Two kinds of requests: most are quick, some slow."""
    slow = rng.random(len(t)) < 0.2
    return np.where(slow, rng.normal(300.0, 40.0, len(t)), rng.normal(60.0, 8.0, len(t)))


def _with_gaps(rng: np.random.Generator, time_s: IntArray, interval_s: int) -> IntArray:
    """A tenth of the points is missing one by one, and every few hundred some hours of them."""
    step = np.where(rng.random(len(time_s)) < 0.1, 2, 1)
    step = np.where(rng.random(len(time_s)) < 0.003, rng.integers(12, 72, len(time_s)), step)
    return np.asarray(time_s[0] + interval_s * np.cumsum(step))


SHAPES: Mapping[str, tuple[int, Maker]] = {
    "normal": (60, _normal),
    "heavy_tails": (60, _heavy_tails),
    "lognormal": (60, _lognormal),
    "exponential": (60, _exponential),
    "poisson": (60, _poisson),
    "binary": (60, _binary),
    "few_values": (60, _few_values),
    "ties": (60, _ties),
    "daily": (300, _daily),
    "weekly": (300, _weekly),
    "growing_noise": (300, _growing_noise),
    "trend": (60, _trend),
    "random_walk": (60, _random_walk),
    "ar_50": (60, _ar_50),
    "ar_95": (60, _ar_95),
    "bursts": (60, _bursts),
    "on_off": (60, _on_off),
    "gaps": (300, _gaps),
    "sawtooth": (60, _sawtooth),
    "mixture": (60, _mixture),
}
"""Name → (seconds between events, values)."""
