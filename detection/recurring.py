"""Faults that come back: twelve kinds of normal data × five kinds of faults, seeded.

A detector that learns from what it sees takes a repeated fault for normal; this set shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from detection import shapes
from detection.base import FloatArray, IntArray
from detection.injection import Fault, longest_run

EVENTS = 12_000
BASES: tuple[str, ...] = (
    "normal",
    "heavy_tails",
    "lognormal",
    "poisson",
    "few_values",
    "daily",
    "weekly",
    "trend",
    "ar_95",
    "bursts",
    "on_off",
    "gaps",
)
FIRST = (1_500, 2_500)
"""Where the first occurrence may lie; a fault of the first days is part of what is learnt."""
APART = (500, 1_300)
"""Events from one occurrence to the next: at no fixed time of day."""


@dataclass(frozen=True, slots=True, eq=False)
class Recurring:
    """One series: `time_s` int64[n], `value` float64[n], and each occurrence of its one fault."""

    base: str
    fault: str
    time_s: IntArray
    value: FloatArray
    faults: tuple[Fault, ...]


def make(base: str, fault: str, seed: int, events: int = EVENTS) -> Recurring:
    """A series of normal data with one fault that comes back some ten times, much the same.

    Size and length are drawn once for the series; each time the values differ by a little noise.
    Sizes count in widths of the usual range, 0.1 % to 99.9 % of the normal values around their
    linear trend: spikes and error values lie 0.5–1 beyond it, plateaus half as far.

    Raises:
        ValueError: no such base or fault.
    """
    if base not in BASES:
        raise ValueError(f"base {base!r} is none of {', '.join(BASES)}")
    if fault not in FAULTS:
        raise ValueError(f"fault {fault!r} is none of {', '.join(FAULTS)}")
    shape = shapes.make(base, 1_000 + seed, events)
    rng = np.random.default_rng([seed, BASES.index(base), list(FAULTS).index(fault)])
    place = np.arange(events)
    level: FloatArray = np.polyval(np.polyfit(place, shape.value, 1), place).astype(np.float64)
    low, high = (float(q) for q in np.quantile(shape.value - level, (0.001, 0.999)))
    (shortest, longest), maker = FAULTS[fault]
    length = int(rng.integers(shortest, longest + 1))
    if fault == "stuck":
        length = max(length, 3 * longest_run(shape.value))
    size = float(rng.uniform(0.5, 1.0))
    out = shape.value.copy()
    found: list[Fault] = []
    at = int(rng.integers(*FIRST))
    while at + length + 100 < events:
        here = slice(at, at + length)
        out[here] = maker(rng, _Around(out[here].copy(), level[here], low, high, size))
        found.append(Fault(fault, at, at + length, len(found) + 1))
        at += length + int(rng.integers(*APART))
    return Recurring(base, fault, shape.time_s, out, tuple(found))


# -- private -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Around:
    """What a fault is measured by."""

    normal: FloatArray  # the values in its place
    level: FloatArray  # the trend there
    low: float  # of the usual range around the trend: 1 in 1,000 lies beyond either end
    high: float
    size: float  # 0.5 … 1, the series' own

    @property
    def width(self) -> float:
        return self.high - self.low


def _spike(rng: np.random.Generator, a: _Around) -> FloatArray:
    noise = 0.02 * a.width * rng.standard_normal(len(a.normal))
    return a.level + a.high + a.size * a.width + noise


def _error_value(rng: np.random.Generator, a: _Around) -> FloatArray:
    """What a sensor says when it can't measure: the same low value each time."""
    return a.level + a.low - a.size * a.width


def _plateau(rng: np.random.Generator, a: _Around) -> FloatArray:
    noise = 0.05 * a.width * rng.standard_normal(len(a.normal))
    return a.level + a.high + 0.5 * a.size * a.width + noise


def _stuck(rng: np.random.Generator, a: _Around) -> FloatArray:
    return np.full(len(a.normal), a.normal[0])


def _noise(rng: np.random.Generator, a: _Around) -> FloatArray:
    return np.asarray(a.normal + a.size * a.width * rng.standard_normal(len(a.normal)))


_Maker = Callable[[np.random.Generator, _Around], FloatArray]
FAULTS: Mapping[str, tuple[tuple[int, int], _Maker]] = {
    "spike": ((1, 3), _spike),
    "error_value": ((1, 3), _error_value),
    "plateau": ((20, 40), _plateau),
    "stuck": ((80, 160), _stuck),
    "noise": ((30, 60), _noise),
}
"""Name → (fewest and most events of one occurrence, values)."""
