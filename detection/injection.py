"""Known faults put into normal history: what a detector should find when nobody gave labels.

Seeded and pure: equal values, settings and seed give an equal result; the input stays intact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.base import FloatArray

KINDS: tuple[str, ...] = (
    "spike",
    "recurring_spike",
    "level_shift",
    "drift",
    "variance",
    "flat_line",
    "pattern",
    "contextual",
)
RECURRENCES = 5  # times that a recurring spike comes

_BLOCK = 256  # events over which the spread counts: a trend or a walk must not widen it
_NEAR = 1024  # events to either side that say which values are usual at a place
_TRIES = 20  # places looked at before a kind is given up for a series
_LEAST = 0.5  # root mean square of a change, in spreads, below which it is none

_SPIKE = (1, 3)
_LENGTHS = {
    "level_shift": (100, 300),
    "drift": (200, 500),
    "variance": (60, 200),
    "flat_line": (40, 120),
    "pattern": (60, 150),
    "contextual": (12, 48),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Events start … end − 1 are not normal; `occurrence` counts a fault's returns from 1."""

    kind: str
    start: int
    end: int
    occurrence: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Injected:
    """The changed values float64[n], and where they are no longer normal, in order of start."""

    value: FloatArray
    faults: tuple[Fault, ...]

    @property
    def label(self) -> NDArray[np.bool_]:
        """bool[n]: events inside a fault."""
        inside = np.zeros(len(self.value), dtype=np.bool_)
        for fault in self.faults:
            inside[fault.start : fault.end] = True
        return inside


def inject(
    value: FloatArray,
    *,
    seed: int,
    kinds: Sequence[str] = KINDS,
    each: int = 1,
    start: int = 0,
    apart: int = 200,
    size: float = 1.0,
) -> Injected:
    """Put `each` faults of every kind into `value` float64[n], from event `start` on.

    Between two faults lie at least `apart` untouched events. Sizes are in units of
    `spread(value)`: spikes 6–12, level shifts 4–8, drifts end at 5–10, added noise 2–4, all times
    `size`. Whole numbers stay whole, and values that are never negative stay so.

    A round holds each kind once, in a random order; where the room ends, so does the list. A
    kind that can't be told from this series' normal (a contextual fault where the level never
    moves) is left out: `faults` says what there is.

    Raises:
        ValueError: an unknown kind, or not one fault has room.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"kind {unknown[0]!r} is none of {', '.join(KINDS)}")
    if not np.isfinite(value).all():
        raise ValueError("values must be finite")
    rng = np.random.default_rng(seed)
    series = Normal.of(value, size)
    plan = _plan(rng, kinds, each, series, room=len(value) - start - apart, apart=apart)
    if not plan:
        raise ValueError(
            f"{len(value) - start} events are too few for one fault between {apart} normal ones"
        )
    spare = len(value) - start - apart - sum(item.room(apart) for item in plan)
    shares = np.sort(rng.integers(0, spare + 1, len(plan)))
    limits = [*shares.tolist(), spare]
    out = value.astype(np.float64, copy=True)
    faults: list[Fault] = []
    base = start + apart
    for index, item in enumerate(plan):
        faults += _apply(rng, series, out, item, base + limits[index], base + limits[index + 1])
        base += item.room(apart)
    return Injected(out, tuple(sorted(faults, key=lambda fault: fault.start)))


def spread(value: FloatArray) -> float:
    """The robust spread of a series' own values within 256 events, > 0.

    Median over blocks of 1.4826 · MAD, which is the standard deviation for normal noise; where
    more than half of the values are equal, the mean deviation from the block's median instead
    (times 1.2533), and for a constant 1 % of the level, at least 1e-9.
    """
    blocks = _blocks(value)
    centre = np.median(blocks, axis=1, keepdims=True)
    gap = np.abs(blocks - centre)
    for candidate in (
        1.4826 * float(np.median(np.median(gap, axis=1))),
        1.2533 * float(np.median(gap.mean(axis=1))),
        1.2533 * float(gap.mean()),
        0.01 * float(np.median(np.abs(value))),
    ):
        if candidate > 1e-9:
            return candidate
    return 1e-9


def length_of(rng: np.random.Generator, kind: str) -> int:
    """Events that a fault of this kind lasts."""
    low, high = _LENGTHS.get(kind, _SPIKE)
    return int(rng.integers(low, high + 1))


def changed(
    rng: np.random.Generator, series: Normal, kind: str, at: int, length: int
) -> FloatArray | None:
    """`length` values from `at` on with a fault; None where it can't be told from what is normal.

    A value that stands still is odd however near it is.
    """
    normal = series.value[at : at + length]
    part = series.keep(_MAKERS[kind](rng, series, at, length))
    change = float(np.sqrt(np.mean((part - normal) ** 2)))
    if kind == "flat_line" or change >= _LEAST * series.unit * min(1.0, series.size):
        return part
    return None


def longest_run(value: FloatArray) -> int:
    """Events in the longest run of equal values."""
    changes = np.flatnonzero(np.diff(value) != 0)
    edges = np.concatenate([[-1], changes, [len(value) - 1]])
    return int(np.diff(edges).max())


@dataclass(frozen=True, slots=True, eq=False)
class Normal:
    """A series as it was, and what faults in it are measured by."""

    value: FloatArray
    unit: float  # the spread
    size: float
    whole: bool
    positive: bool
    longest_run: int

    @classmethod
    def of(cls, value: FloatArray, size: float) -> Normal:
        return cls(
            value,
            spread(value),
            size,
            whole=bool((value == np.round(value)).all()),
            positive=bool((value >= 0).all()),
            longest_run=longest_run(value),
        )

    def usual(self, at: int) -> tuple[float, float]:
        """Lowest and highest value around an event, but for a twentieth at either end."""
        near = self.value[max(0, at - _NEAR) : at + _NEAR]
        low, high = np.quantile(near, (0.05, 0.95))
        return float(low), float(high)

    def keep(self, part: FloatArray) -> FloatArray:
        """As this series could have been measured."""
        part = np.round(part) if self.whole else part
        return np.maximum(part, 0.0) if self.positive else part

    def sign(self, rng: np.random.Generator, lowest: float) -> float:
        """Up or down; not down to a `lowest` that a floor of 0 would hide."""
        down = rng.random() < 0.5
        return -1.0 if down and not (self.positive and lowest < 0) else 1.0


# -- private -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Item:
    kind: str
    length: int  # of one occurrence
    gap: int = 0  # between two starts of a recurring one

    @property
    def span(self) -> int:
        return self.length if not self.gap else self.length + (RECURRENCES - 1) * self.gap

    def room(self, apart: int) -> int:
        return self.span + apart


def _plan(
    rng: np.random.Generator,
    kinds: Sequence[str],
    each: int,
    series: Normal,
    room: int,
    apart: int,
) -> list[_Item]:
    plan: list[_Item] = []
    for _ in range(each):
        for at in rng.permutation(len(kinds)):
            kind = kinds[at]
            length = length_of(rng, kind)
            if kind == "flat_line":
                length = max(length, 3 * series.longest_run)
            gap = apart + int(rng.integers(0, apart // 2 + 1)) if kind == "recurring_spike" else 0
            item = _Item(kind, length, gap)
            if item.room(apart) <= room:
                room -= item.room(apart)
                plan.append(item)
    return plan


def _apply(
    rng: np.random.Generator,
    series: Normal,
    out: FloatArray,
    item: _Item,
    first: int,
    last: int,
) -> list[Fault]:
    """Change `out` at `first`, or at another place up to `last` where the fault shows there."""
    for attempt in range(_TRIES):
        at = first if attempt == 0 else int(rng.integers(first, last + 1))
        part = changed(rng, series, item.kind, at, item.length)
        if part is not None:
            break
    else:
        return []
    if not item.gap:
        out[at : at + item.length] = part
        return [Fault(item.kind, at, at + item.length)]
    faults = []
    for turn in range(RECURRENCES):
        begin = at + turn * item.gap
        # the same fault: the same values each time, as near as noise lets them
        noise = 0.1 * series.unit * rng.standard_normal(item.length)
        out[begin : begin + item.length] = series.keep(part + noise)
        faults.append(Fault(item.kind, begin, begin + item.length, turn + 1))
    return faults


def _spike(rng: np.random.Generator, s: Normal, at: int, n: int) -> FloatArray:
    """Beyond what is usual here, not only beyond its neighbours."""
    level = float(np.median(s.value[at : at + n]))
    low, high = s.usual(at)
    height = rng.uniform(6.0, 12.0) * s.unit * s.size
    if s.sign(rng, min(level - height, low - 0.5 * height)) > 0:
        return np.full(n, max(level + height, high + 0.5 * height))
    return np.full(n, min(level - height, low - 0.5 * height))


def _level_shift(rng: np.random.Generator, s: Normal, at: int, n: int) -> FloatArray:
    normal = s.value[at : at + n]
    height = rng.uniform(4.0, 8.0) * s.unit * s.size
    return normal + s.sign(rng, float(normal.mean()) - height) * height


def _drift(rng: np.random.Generator, s: Normal, at: int, n: int) -> FloatArray:
    normal = s.value[at : at + n]
    height = rng.uniform(5.0, 10.0) * s.unit * s.size
    return normal + s.sign(rng, float(normal.mean()) - height) * np.linspace(0.0, height, n)


def _variance(rng: np.random.Generator, s: Normal, at: int, n: int) -> FloatArray:
    size = rng.uniform(2.0, 4.0) * s.unit * s.size
    return s.value[at : at + n] + size * rng.standard_normal(n)


def _flat_line(rng: np.random.Generator, s: Normal, at: int, n: int) -> FloatArray:
    return np.full(n, s.value[at])


def _pattern(rng: np.random.Generator, s: Normal, at: int, n: int) -> FloatArray:
    """An oscillation over the usual range: each value is normal, their course is not."""
    low, high = s.usual(at)
    angle = 2.0 * np.pi * (np.arange(n) / rng.uniform(8.0, 24.0) + rng.random())
    return np.asarray(0.5 * (low + high) + max(0.5 * (high - low), s.unit) * np.sin(angle))


def _contextual(rng: np.random.Generator, s: Normal, at: int, n: int) -> FloatArray:
    """Mirrored at the median: the night's level by day, each value inside the known range."""
    normal, middle = s.value[at : at + n], float(np.median(s.value))
    if abs(float(normal.mean()) - middle) < 0.75 * s.unit:
        return normal
    return np.clip(2.0 * middle - normal, float(s.value.min()), float(s.value.max()))


_MAKERS: dict[str, Callable[[np.random.Generator, Normal, int, int], FloatArray]] = {
    "spike": _spike,
    "recurring_spike": _spike,
    "level_shift": _level_shift,
    "drift": _drift,
    "variance": _variance,
    "flat_line": _flat_line,
    "pattern": _pattern,
    "contextual": _contextual,
}


def _blocks(value: FloatArray) -> FloatArray:
    """[blocks, at most 256] whole blocks; a shorter series is one block."""
    size = min(_BLOCK, len(value))
    whole = len(value) // size
    return value[: whole * size].reshape(whole, size)
