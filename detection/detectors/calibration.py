"""From a model's raw score to oddness: how rare is it among normal, held-out events?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detection.errors import ArtefactIncompatible, NotEnoughData

FloatArray = NDArray[np.float64]

LEAST_ROWS = 100
TAIL_QUANTILE = 0.95
BLOCKS, BLOCK_ROWS = 8, 5_000
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

    Rows that follow each other are no independent draws, and what is rare may be regular (a reset
    every 200 events), so the tail alone promises too few alarms. Hence the level: of eight blocks
    of the history in order of time, of at most 5,000 rows each, at least half stay below o = 1
    (1.4 alarms in 10,000 rows, if they come by chance); where the median block's oddest row is
    odder than that, every oddness is divided by it. An incident in less than half of the history
    moves nothing.
    """

    knots: FloatArray  # raw scores, rising
    minus_log10_p: FloatArray  # at the knots
    tail: FloatArray  # u, −log10 p(u), scale, shape
    level: float = 1.0  # what every oddness is divided by

    @classmethod
    def fit(cls, raw: FloatArray, contamination: float = 0.0, least_scale: float = 0.0) -> Self:
        """From raw scores float64[n] of held-out rows, the oddest `contamination` of them left out.

        `least_scale` bounds the tail's scale from below: held-out rows that happen to be much alike
        would make an alarm of any other. The level stays 1: see `levelled`. NotEnoughData below
        100 rows.
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

    def levelled(self, raw: FloatArray) -> Self:
        """With the level that raw scores float64[n] of the history, in order of time, ask for.

        Rows that were trained on may be among them: they look a little less odd than new ones.
        """
        if not len(raw):
            return self
        blocks = np.array_split(self.oddness(raw) * self.level, min(BLOCKS, len(raw)))
        typical = float(np.median([block.max() for block in blocks]))
        # a shade more, so that the typical oddest row itself stays below the alarm level
        return replace(self, level=max(1.0, typical * (1.0 + 1e-9)))

    def oddness(self, raw: FloatArray) -> FloatArray:
        """float64[n] ≥ 0, never falling as raw rises."""
        u, start, scale, shape = (float(value) for value in self.tail)
        z = np.maximum(raw - u, 0.0) / scale
        decades = z / np.log(10.0) if shape < 1e-9 else np.log10(1.0 + shape * z) / shape
        body = np.interp(raw, self.knots, self.minus_log10_p)
        return np.asarray(np.where(raw > u, start + decades, body) / (4.0 * self.level))

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "calibration_knots": self.knots,
            "calibration_decades": self.minus_log10_p,
            "calibration_tail": np.append(self.tail, self.level),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        try:
            tail = np.ascontiguousarray(arrays["calibration_tail"], np.float64)
            return cls(
                np.ascontiguousarray(arrays["calibration_knots"], np.float64),
                np.ascontiguousarray(arrays["calibration_decades"], np.float64),
                tail[:4],
                float(tail[4]) if len(tail) > 4 else 1.0,  # older models have none
            )
        except KeyError as missing:
            raise ArtefactIncompatible(f"the model has no array {missing}: retrain it") from None


def thinned(rows: FloatArray) -> FloatArray:
    """Every nth of the rows [n, k], so that `levelled` sees at most eight whole blocks of them."""
    return rows[:: max(1, -(-len(rows) // (BLOCKS * BLOCK_ROWS)))]


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
