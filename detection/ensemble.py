"""One oddness out of many, and the score the rest of Vigil shows.

Every row is combined on its own and in the detectors' order, so a batch's size changes no bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.base import FloatArray
from detection.detectors.jit import kernel

METHODS: tuple[str, ...] = ("max", "mean", "weighted", "vote")

# Gains of the default ensemble. The online detector was calibrated by its onsets; the others are
# second opinions, which alarm on their own only when they are this much over their own level. A
# z-score of 3 is common in healthy metrics: on NAB's DEV files a gain of 1/3 costs 4 points, and
# one of 1/8 (|z| ≥ 24, about what a spike that soon comes back can reach) none.
DEFAULT_WEIGHTS: Mapping[str, float] = {
    "online": 1.0,
    "zscore": 1 / 8,
    # Measured one by one on the shapes of detection/shapes.py: alone each opens at most 5 episodes
    # in 10,000 events, on most shapes none.
    "mad": 1 / 16,
    "ewma": 0.4,
    "iqr": 1 / 20,
    "seasonal": 1 / 8,
    "change_point": 1.0,
    "shift": 1.0,
    "isolation_forest": 0.6,
    "local_outlier_factor": 0.6,
    "one_class_svm": 0.6,
    "vector": 1.0,
}
OTHER_WEIGHT = 0.6


def weights_for(names: Sequence[str], given: Mapping[str, float] | None = None) -> FloatArray:
    """float64[d] in the order of `names`: the given weight, else the default one."""
    chosen = {**DEFAULT_WEIGHTS, **(given or {})}
    return np.array([chosen.get(name, OTHER_WEIGHT) for name in names])


def combine(oddness: FloatArray, method: str, weights: FloatArray | None = None) -> FloatArray:
    """float64[n] of oddnesses [n, d]; nan abstains, and the row is nan where all abstain.

    max       the largest of weight · o (weights are gains here)
    mean      the plain mean of those that speak
    weighted  the mean by weight of those that speak
    vote      the largest o that detectors of more than half the weight reach: over 1 exactly
              when the majority alarms
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    d = oddness.shape[1]
    weights = np.ones(d) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.shape != (d,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"{d} finite weights, none negative, are needed")
    out = np.empty(oddness.shape[0])
    _combine(np.ascontiguousarray(oddness), METHODS.index(method), weights, out)
    return out


@dataclass(frozen=True, slots=True)
class Ensemble:
    """How detectors become one: a method, weights by name (1 where none is given), and a gain.

    A mean has no scale of its own: the `gain` puts its alarm level to 1, where everybody's is.
    """

    method: str
    weights: Mapping[str, float]
    gain: float = 1.0

    def oddness(self, votes: FloatArray, names: Sequence[str]) -> FloatArray:
        """float64[n] of votes [n, d], the oddness of each of `names`; nan where all abstain."""
        weights = np.array([self.weights.get(name, 1.0) for name in names])
        found = combine(votes, self.method, weights)
        return found if self.gain == 1.0 else found * self.gain


def score_from_oddness(oddness: FloatArray) -> FloatArray:
    """1 − 5^(−o): 0.8 at the alarm level, 0.96 at twice that; nan stays nan."""
    return np.asarray(1.0 - np.power(5.0, -oddness))


def oddness_from_score(score: FloatArray) -> FloatArray:
    """The inverse; a score of 1 gives inf."""
    with np.errstate(divide="ignore"):
        return np.asarray(-np.log(1.0 - score) / np.log(5.0))


@kernel
def _combine(oddness: FloatArray, method: int, weights: FloatArray, out: FloatArray) -> None:
    n, d = oddness.shape
    for i in range(n):
        strongest, total, weight, spoke = 0.0, 0.0, 0.0, 0
        for j in range(d):
            o = oddness[i, j]
            if np.isnan(o):
                continue
            w = 1.0 if method == 1 else weights[j]
            spoke += 1
            strongest = max(strongest, w * o)
            if w > 0:  # 0 · inf is no number
                total += w * o
                weight += w
        if spoke == 0:
            out[i] = np.nan
        elif method == 0:
            out[i] = strongest
        elif weight == 0:
            out[i] = np.nan
        elif method < 3:
            out[i] = total / weight
        else:
            best = 0.0
            for j in range(d):
                reached = 0.0
                for k in range(d):
                    if oddness[i, k] >= oddness[i, j]:
                        reached += weights[k]
                if reached > weight / 2:  # nan compares false, so it never counts
                    best = max(best, oddness[i, j])
            out[i] = best


def stack(columns: Sequence[NDArray[np.float64]]) -> FloatArray:
    """Oddness columns float64[n] side by side, [n, d]."""
    return np.ascontiguousarray(np.stack(columns, axis=1))
