"""The vector detector: how far the values of a wide event together lie from their usual pattern.

Causal, without labels, one configuration for all sources. Each value is smoothed to a level that
lets jumps through; the levels' distance (Hotelling's T², Hotelling 1947) is judged against its own
cross-validated spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from detection.base import FloatArray, IntArray
from detection.detectors.vector_kernel import FILL, SHARES_FROM, run
from detection.vectors import NAME, VectorPool


@dataclass(frozen=True, slots=True, eq=False)
class VectorOutput:
    """What the detector says of n events; nan while it still learns.

    `distance` float64[n] is √T², T² a mean over the values that take part; `band` float64[n, 2]
    the usual distance (median) and the alarm level; `oddness` float64[n]; `standard`
    float64[n, k] the levels in deviations from their means; `seen` int64[n] events of this series
    before. Of odd events `share` float64[n, k] is the part of each value in T², `level` its
    smoothed value, `usual` the mean of that, and `expected` the level that goes with all the other
    values.
    """

    distance: FloatArray
    band: FloatArray
    oddness: FloatArray
    standard: FloatArray
    share: FloatArray
    usual: FloatArray
    level: FloatArray
    expected: FloatArray
    seen: IntArray

    @classmethod
    def empty(cls, n: int, k: int) -> Self:
        return cls(
            np.full(n, np.nan),
            np.full((n, 2), np.nan),
            np.full(n, np.nan),
            np.full((n, k), np.nan),
            np.full((n, k), np.nan),
            np.full((n, k), np.nan),
            np.full((n, k), np.nan),
            np.full((n, k), np.nan),
            np.zeros(n, dtype=np.int64),
        )

    def take(self, chosen: IntArray) -> VectorOutput:
        """The chosen events."""
        return VectorOutput(
            self.distance[chosen],
            self.band[chosen],
            self.oddness[chosen],
            self.standard[chosen],
            self.share[chosen],
            self.usual[chosen],
            self.level[chosen],
            self.expected[chosen],
            self.seen[chosen],
        )


class VectorDetector:
    """o = (ln T² − ½ ln q) / 3, from the 401st event of a series on.

    Trained on its first 400 events: noise s = min(std of the differences / √2, std) of each value;
    level y += e − 0.97 · clip(e, ±3.5 s), e = x − y; mean, deviation and correlation (2 % shrunk to
    none) of the levels 20…399; T² = |R^(−1/2) (y − μ)/σ|² / k; q its 90 % quantile, each fifth
    judged by the other four. The symmetric root R^(−1/2) makes T² a sum with one term a value, each
    the one most like that value: the terms are the values' shares (Garthwaite & Koch 2016,
    "Evaluating the contributions of individual variables to a quadratic form", corr-max).

    A value that is missing (nan) keeps its level. One that never moved in training, or was missing
    in more than half of it, takes no part; fewer than two that do: the next 400 events are tried.
    After `relearn_events` inside one episode, or with a value that takes no part moving, the next
    400 events are learnt anew. `drift`: rate at which the mean follows, outside of episodes.
    """

    name = NAME

    def __init__(
        self, quiet_events: int = 10, relearn_events: int = 2_000, drift: float = 0.001
    ) -> None:
        if not (quiet_events >= 1 and relearn_events >= 1 and 0 <= drift < 1):
            raise ValueError("quiet_events >= 1, relearn_events >= 1, 0 <= drift < 1 are needed")
        self.quiet_events, self.relearn_events = quiet_events, relearn_events
        self.drift = drift

    def score(
        self,
        pool: VectorPool,
        rows: IntArray,
        values: FloatArray,
        explain_from: float = SHARES_FROM,
    ) -> VectorOutput:
        """Advance `rows` int64[n] of the pool by events `values` float64[n, k], nan: missing.

        Events of an oddness of `explain_from` or more are explained value by value.
        """
        n, k = values.shape
        if k != pool.k:
            raise ValueError(f"values {values.shape} for vectors of {pool.k}")
        out = VectorOutput.empty(n, k)
        values = np.ascontiguousarray(values)
        start = 0
        while True:
            start = run(
                pool.rows,
                pool.buffers,
                pool.buffer_of,
                rows,
                values,
                start,
                float(self.quiet_events),
                float(self.relearn_events),
                float(self.drift),
                out.distance,
                out.band,
                out.oddness,
                out.standard,
                out.share,
                out.usual,
                out.level,
                out.expected,
                out.seen,
                explain_from,
            )
            if start == n:
                break
            pool.lend_buffer(int(rows[start]))
        for row in np.unique(rows).tolist():
            if pool.rows[row, FILL] < 0:
                pool.drop_buffer(row)
        return out
