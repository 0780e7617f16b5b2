"""From a model's raw score to oddness: how rare is it among normal, held-out events?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detection.errors import ArtefactIncompatible, NotEnoughData

FloatArray = NDArray[np.float64]

LEAST_ROWS = 100
TAIL_QUANTILE = 0.95
_KNOTS = 200
LEAST_TAIL = 0.1
"""Least scale of a tail of logarithms (of distances, of densities): ten times as rare is at least a
quarter farther out."""


def split(
    features: FloatArray, holdout: float, contamination: float
) -> tuple[FloatArray, FloatArray]:
    """(rows to train on, rows to calibrate with): the last `holdout` share, in order of time.

    NotEnoughData where either part is too small.
    """
    kept = len(features) - int(holdout * len(features))
    if kept < 2 or (len(features) - kept) * (1.0 - contamination) < LEAST_ROWS:
        raise NotEnoughData(f"{len(features)} rows are too few to train and to calibrate")
    return features[:kept], features[kept:]


@dataclass(frozen=True, slots=True, eq=False)
class TailCalibration:
    """p(raw) = probability that a normal event is this odd; oddness o = −log10(p) / 4.

    Up to the 95 % quantile u: the held-out rows' own, between quantiles by a line. Above: u's
    share times a generalised Pareto tail (Pickands 1975) fitted by probability-weighted moments
    (Hosking & Wallis 1987), its shape held in [0, 0.5]: raw scores of forests are bounded, and a
    fitted end of the tail would call everything beyond it impossible.
    """

    knots: FloatArray  # raw scores, rising
    minus_log10_p: FloatArray  # at the knots
    tail: FloatArray  # u, −log10 p(u), scale, shape

    @classmethod
    def fit(cls, raw: FloatArray, contamination: float = 0.0, least_scale: float = 0.0) -> Self:
        """From raw scores float64[n] of held-out rows, the oddest `contamination` of them left out.

        `least_scale` bounds the tail's scale from below: held-out rows that happen to be much alike
        would make an alarm of any other. NotEnoughData below 100 rows.
        """
        if not 0 <= contamination < 0.5:
            raise ValueError("contamination must be in [0, 0.5)")
        ordered = np.sort(raw)
        ordered = ordered[: len(ordered) - int(contamination * len(ordered))]
        n = len(ordered)
        if n < LEAST_ROWS:
            raise NotEnoughData(f"{n} held-out rows, calibration needs {LEAST_ROWS}")
        first = int(TAIL_QUANTILE * n)
        u = ordered[first - 1]
        excess = ordered[first:] - u
        at = np.unique(np.linspace(0, first - 1, _KNOTS).astype(np.int64))
        # Of equal scores the last counts: so many are at most this odd.
        knots, index = np.unique(ordered[at][::-1], return_index=True)
        share = 1.0 - at[::-1][index] / n
        scale, shape = _pareto(excess)
        floor = max(1e-9 + 1e-6 * abs(u), least_scale)
        return cls(
            knots=knots,
            minus_log10_p=-np.log10(share),
            tail=np.array([u, -np.log10(share[-1]), max(scale, floor), shape]),
        )

    def oddness(self, raw: FloatArray) -> FloatArray:
        """float64[n] ≥ 0, never falling as raw rises."""
        u, start, scale, shape = (float(value) for value in self.tail)
        z = np.maximum(raw - u, 0.0) / scale
        decades = z / np.log(10.0) if shape < 1e-9 else np.log10(1.0 + shape * z) / shape
        body = np.interp(raw, self.knots, self.minus_log10_p)
        return np.asarray(np.where(raw > u, start + decades, body) / 4.0)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "calibration_knots": self.knots,
            "calibration_decades": self.minus_log10_p,
            "calibration_tail": self.tail,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        try:
            return cls(
                np.ascontiguousarray(arrays["calibration_knots"], np.float64),
                np.ascontiguousarray(arrays["calibration_decades"], np.float64),
                np.ascontiguousarray(arrays["calibration_tail"], np.float64),
            )
        except KeyError as missing:
            raise ArtefactIncompatible(f"the model has no array {missing}: retrain it") from None


def _pareto(excess: FloatArray) -> tuple[float, float]:
    """(scale, shape ξ) of a generalised Pareto tail over 0 from sorted excesses."""
    n = len(excess)
    mean = float(np.sum(excess)) / n
    weights = (n - 0.65 - np.arange(n)) / n  # P(X > x_i), plotting positions p = (i − 0.35)/n
    weighted = float(np.sum(weights * excess)) / n
    spare = mean - 2.0 * weighted
    shape = 2.0 - mean / spare if spare > 0 else 0.0
    shape = min(0.5, max(0.0, shape))
    return mean * (1.0 - shape), shape
