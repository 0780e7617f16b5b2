"""Fixed bins for features and scores: equal for training and live events, whatever their series.

Narrow where normal events lie, wide towards the bounds, so that 20 counts show a shift of a part of
a deviation as well as a long tail. Another edge is another BINS_VERSION.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.base import FloatArray, IntArray
from detection.detectors.jit import kernel
from detection.features import FEATURE_NAMES

BINS_VERSION = 1
BINS = 20

MOST_METRICS = 50
"""Metrics that a model's manifest keeps counts of, those with the most rows first."""


def _both_sides(*positive: float) -> tuple[float, ...]:
    return (*(-x for x in reversed(positive)), 0.0, *positive)


_WIDE = _both_sides(0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8)
_SPREAD = _both_sides(0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3)
_LEVELS = (
    0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.25, 1.5, 2, 3, 5,
)  # fmt: skip

EDGES: Mapping[str, tuple[float, ...]] = {
    "residual": _WIDE,
    "change": _both_sides(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75),
    "level": tuple(float(x) for x in np.round(np.linspace(-0.9, 0.9, BINS - 1), 3)),
    "spread": _SPREAD,
    "seasonal": _WIDE,
    "novelty": _LEVELS,
    "pair": _LEVELS,
    "block": _LEVELS,
    "drift": _LEVELS,
    "gap": _both_sides(0.05, 0.1, 0.2, 0.4, 0.7, 1, 1.5, 2, 3),
}
"""Inner edges; a value on an edge belongs to the bin below it. Bins 0 and 19 are open."""

_SCORES = tuple(float(x) for x in np.round(np.arange(1, BINS) / BINS, 2))
"""Edges of a score; any name that has none of its own has those of `residual`."""

SCORE = "score"
VALUE = "value"
"""A value of wide events is counted as `value:<its number among the sorted names>`, told by name:
`value:flow`. Its deviations from its mean have the edges of `residual`."""


def value_keys(k: int) -> tuple[str, ...]:
    """Under what the k values of a schema are counted, whatever their names."""
    return tuple(f"{VALUE}:{j}" for j in range(k))


@cache
def edges_of(names: tuple[str, ...]) -> FloatArray:
    """float64 [len(names), BINS − 1]; names such as `score:12` have a score's."""
    rows = [_SCORES if n.partition(":")[0] == SCORE else EDGES.get(n, _WIDE) for n in names]
    return np.array(rows, dtype=np.float64)


def count(
    values: FloatArray, edges: FloatArray, group: IntArray | None = None, groups: int = 1
) -> NDArray[np.int64]:
    """int64 [groups, k, BINS] of values [n, k] by edges [k, BINS − 1]; nan is not counted."""
    if group is None:
        group = np.zeros(len(values), dtype=np.int64)
    counts = np.zeros((groups, values.shape[1], BINS), dtype=np.int64)
    _count(np.ascontiguousarray(values), edges, group, counts)
    return counts


def distributions(
    features: FloatArray,
    metric: NDArray[np.int32],
    names: Sequence[str],
    columns: tuple[str, ...] = FEATURE_NAMES,
) -> dict[str, Any]:
    """A manifest's counts of training rows [n, k]: of all of them ("") and of each metric.

    ``metric`` int32 [n] is an index into ``names``; ``columns`` are values' keys for wide events.
    """
    rows = np.bincount(metric, minlength=len(names))
    kept = [int(i) for i in np.argsort(-rows, kind="stable")[:MOST_METRICS] if rows[i]]
    counted = count(features, edges_of(columns), metric.astype(np.int64), len(names))
    groups = {"": counted.sum(axis=0), **{names[i]: counted[i] for i in sorted(kept)}}
    return {
        "bins": BINS_VERSION,
        "metrics": {
            name: dict(zip(columns, rows.tolist(), strict=True)) for name, rows in groups.items()
        },
    }


def score_counts(oddness: FloatArray) -> list[int]:
    """A manifest's counts of a model's own scores of held-out rows."""
    score = 1.0 - np.power(5.0, -oddness)
    counted: list[int] = count(score[:, None], edges_of((SCORE,)))[0, 0].tolist()
    return counted


@kernel
def _count(
    values: FloatArray, edges: FloatArray, group: IntArray, counts: NDArray[np.int64]
) -> None:
    n, k = values.shape
    last = edges.shape[1]
    for i in range(n):
        g = group[i]
        for j in range(k):
            x = values[i, j]
            if np.isnan(x):
                continue
            low, high = 0, last
            while low < high:
                middle = (low + high) // 2
                if edges[j, middle] < x:
                    low = middle + 1
                else:
                    high = middle
            counts[g, j, low] += 1


@kernel
def sampled(offset: IntArray, wanted: NDArray[np.bool_], out: IntArray) -> int:
    """Fills ``out`` with the indices of about every sixteenth wanted event; returns how many.

    The hash of the offset alone decides (the finaliser of splitmix64), so a replay, another batch
    size or another consumer picks the same events, and no rhythm of producers picks for them.
    """
    found = 0
    for i in range(len(offset)):
        if not wanted[i]:
            continue
        x = np.uint64(offset[i]) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
        if x & np.uint64(15) == np.uint64(0):
            out[found] = i
            found += 1
    return found
