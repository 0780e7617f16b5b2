"""z-score: how many of its usual deviations a value lies from the series' recent mean."""

from __future__ import annotations

import math

import numpy as np

from detection.base import FloatArray, IntArray, ScoringInput
from detection.detectors.jit import kernel
from detection.detectors.statistical import StatisticalDetector
from detection.state import StateComponent

METHODS: tuple[str, ...] = ("zscore",)
LARGEST = 1e150  # its square is still a number


@kernel
def _run(
    state: FloatArray,
    slot: IntArray,
    value: FloatArray,
    threshold: float,
    rate: float,
    warm_up: int,
    oddness: FloatArray,
) -> None:
    for i in range(slot.shape[0]):
        row = state[slot[i]]  # events, mean, variance
        x = value[i]
        oddness[i] = np.nan
        if not abs(x) <= LARGEST:
            continue
        count = row[0]
        if count == 0:
            row[1] = x
        deviation = math.sqrt(row[2])
        gap = x - row[1]
        if count >= warm_up:
            # A constant series has no deviation of its own: rounding must not count as one.
            z = gap / max(deviation, 1e-9 + 1e-6 * abs(row[1]))
            oddness[i] = min(abs(z), 1e6) / threshold
        share = max(rate, 1.0 / (count + 1.0))
        row[1] += share * gap
        row[2] = (1.0 - share) * (row[2] + share * gap * gap)
        row[0] = count + 1.0


class ZScoreDetector(StatisticalDetector):
    """o = |x − mean| / deviation / threshold, from `warm_up` events of the series on.

    Mean and variance are exponentially weighted (West 1979; exact over the first 1/rate events),
    of the value itself: the online detector already judges forecast residuals, and a second
    opinion should err elsewhere. A value is judged before it is learnt, and learnt in full: with
    outliers held back a spiky series never gets a deviation that fits it. A spike that comes back
    at once reaches at most |z| = 1/√rate, 22 by default, and after n events (1 − rate)^(−n/2)
    times that.
    """

    name = "zscore"
    component = StateComponent("zscore", 1, np.zeros(3))

    def __init__(
        self,
        threshold: float = 3.0,
        method: str = "zscore",  # in scoring versions stored before each method had its detector
        rate: float = 0.002,
        warm_up: int = 30,
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
        if not (threshold > 0 and 0 < rate < 1 and warm_up >= 2):
            raise ValueError("threshold > 0, 0 < rate < 1 and warm_up >= 2 are needed")
        self.threshold, self.method, self.rate, self.warm_up = threshold, method, rate, warm_up

    def fill(self, state: FloatArray, inputs: ScoringInput, oddness: FloatArray) -> None:
        _run(
            state,
            inputs.slot,
            inputs.value,
            float(self.threshold),
            float(self.rate),
            int(self.warm_up),
            oddness,
        )
