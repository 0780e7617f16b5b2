"""Known faults put into wide events: in one value or several, and between values that go together.

Seeded and pure like `detection.injection`, whose faults these are, value by value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detection import injection
from detection.base import FloatArray
from detection.injection import Fault, Normal

APART = "apart"
"""Values take the course they had at another time: each is usual, all together are not."""

KINDS: tuple[str, ...] = ("spike", "level_shift", "drift", "variance", "flat_line", APART)

_TRIES = 20
_LENGTH_APART = (100, 300)
_FAR = 500  # events between a course and the time it is taken from


@dataclass(frozen=True, slots=True, eq=False)
class InjectedWide:
    """The changed values float64[n, k], and where they are no longer normal, in order of start.

    ``touched`` has the columns that each fault changed.
    """

    values: FloatArray
    faults: tuple[Fault, ...]
    touched: tuple[tuple[int, ...], ...]


def inject(
    values: FloatArray,
    *,
    seed: int,
    kinds: Sequence[str] = KINDS,
    each: int = 1,
    start: int = 0,
    apart: int = 200,
    size: float = 1.0,
) -> InjectedWide:
    """Put `each` faults of every kind into wide events float64[n, k], from event `start` on.

    A fault changes one to half of the values at once, each by its own spread. A missing value (nan)
    stays missing; one that is missing in more than half of the events or never moves is left alone.
    Between two faults lie at least `apart` untouched events; where the room ends, so does the list.

    Raises:
        ValueError: an unknown kind, fewer than two values that move, or no room for one fault.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"kind {unknown[0]!r} is none of {', '.join(KINDS)}")
    columns = _moving(values, size)
    if len(columns) < 2:
        raise ValueError("fewer than two values move: faults between them can't be")
    rng = np.random.default_rng(seed)
    plan: list[tuple[str, int]] = []
    room = len(values) - start - apart
    for _ in range(each):
        for at in rng.permutation(len(kinds)):
            kind = kinds[at]
            length = (
                int(rng.integers(_LENGTH_APART[0], _LENGTH_APART[1] + 1))
                if kind == APART
                else injection.length_of(rng, kind)
            )
            if length + apart <= room:
                room -= length + apart
                plan.append((kind, length))
    if not plan:
        raise ValueError(
            f"{len(values) - start} events are too few for one fault between {apart} normal ones"
        )
    limits = [*np.sort(rng.integers(0, room + 1, len(plan))).tolist(), room]
    out = values.astype(np.float64, copy=True)
    made: list[tuple[Fault, tuple[int, ...]]] = []
    base = start + apart
    for index, (kind, length) in enumerate(plan):
        count = int(rng.integers(1, len(columns) // 2 + 1))
        chosen = sorted(rng.permutation(sorted(columns))[:count].tolist())
        series = {j: columns[j] for j in chosen}
        at = _apply(rng, series, out, kind, length, base + limits[index], base + limits[index + 1])
        if at is not None:
            made.append((Fault(kind, at, at + length), tuple(chosen)))
        base += length + apart
    made.sort(key=lambda pair: pair[0].start)
    return InjectedWide(out, tuple(f for f, _ in made), tuple(c for _, c in made))


# -- private -------------------------------------------------------------------------------------


def _moving(values: FloatArray, size: float) -> dict[int, Normal]:
    """The columns that faults can be put into, without gaps."""
    found = {}
    for j in range(values.shape[1]):
        column = values[:, j]
        known = np.isfinite(column)
        if 2 * known.sum() < len(column) or not np.ptp(column[known]) > 0:
            continue
        # the last known value stands in for a missing one, the first before that
        at = np.maximum.accumulate(np.where(known, np.arange(len(column)), -1))
        at[at < 0] = int(np.argmax(known))
        found[j] = Normal.of(column[at], size)
    return found


def _apply(
    rng: np.random.Generator,
    series: dict[int, Normal],
    out: FloatArray,
    kind: str,
    length: int,
    first: int,
    last: int,
) -> int | None:
    """Change `out` at `first`, or at another place up to `last` where the fault shows there."""
    for attempt in range(_TRIES):
        at = first if attempt == 0 else int(rng.integers(first, last + 1))
        parts = {}
        shift = _elsewhere(rng, at, length, len(out)) if kind == APART else 0
        for j, normal in series.items():
            if kind == APART:
                part = normal.value[at + shift : at + shift + length] if shift else None
                here = normal.value[at : at + length]
                if part is not None and np.sqrt(np.mean((part - here) ** 2)) < normal.unit:
                    part = None
            else:
                part = injection.changed(rng, normal, kind, at, length)
            if part is not None:
                parts[j] = part
        if len(parts) == len(series):
            break
    else:
        return None
    for j, part in parts.items():
        here = out[at : at + length, j]
        out[at : at + length, j] = np.where(np.isfinite(here), part, here)
    return at


def _elsewhere(rng: np.random.Generator, at: int, length: int, n: int) -> int:
    """How far away another course of this length begins; 0 where there is none."""
    before, after = at - _FAR, n - length - (at + _FAR)
    places = max(before, 0) + max(after, 0)
    if places <= 0:
        return 0
    pick = int(rng.integers(0, places))
    return (pick if pick < max(before, 0) else at + _FAR + pick - max(before, 0)) - at
