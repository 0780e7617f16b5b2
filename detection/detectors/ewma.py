"""EWMA control chart: small shifts that last, by the weighted mean of the recent values."""

from __future__ import annotations

import math

import numpy as np

from detection.base import FloatArray, IntArray, ScoringInput
from detection.detectors.jit import kernel
from detection.detectors.statistical import StatisticalDetector
from detection.state import StateComponent

# State row: events, mean and variance of the values; the chart, its mean and variance.
SEEN, MEAN, VARIANCE, CHART, CENTRE, SPREAD = range(6)
CLIP = 3.0  # deviations of one value that count: a spike alone is none of the chart's business
LARGEST = 1e150  # its square is still a number
MOST = 1e6  # deviations that count


@kernel
def _run(
    state: FloatArray,
    slot: IntArray,
    value: FloatArray,
    threshold: float,
    weight: float,
    rate: float,
    warm_up: int,
    oddness: FloatArray,
) -> None:
    for i in range(slot.shape[0]):
        row = state[slot[i]]
        x = value[i]
        oddness[i] = np.nan
        if not abs(x) <= LARGEST:
            continue
        seen = row[SEEN]
        if seen == 0:
            row[MEAN] = row[CHART] = row[CENTRE] = x
        share = max(rate, 1.0 / (seen + 1.0))
        gap = x - row[MEAN]
        tiny = 1e-9 + 1e-6 * abs(row[MEAN])
        counted = gap
        if seen >= warm_up:
            most = CLIP * max(math.sqrt(row[VARIANCE]), tiny)
            counted = min(max(gap, -most), most)
        row[CHART] += weight * (row[MEAN] + counted - row[CHART])
        away = row[CHART] - row[CENTRE]
        if seen >= warm_up:
            # Roberts' limit for independent values, or what this series' chart really does; and
            # the error of the centre itself.
            ideal = row[VARIANCE] * weight / (2.0 - weight)
            spread = math.sqrt(max(row[SPREAD], ideal) + share * row[VARIANCE])
            oddness[i] = min(abs(away) / max(spread, tiny), MOST) / threshold
        row[MEAN] += share * gap
        row[VARIANCE] = (1.0 - share) * (row[VARIANCE] + share * gap * gap)
        row[CENTRE] += share * away
        row[SPREAD] = (1.0 - share) * (row[SPREAD] + share * away * away)
        row[SEEN] = seen + 1.0


class EwmaDetector(StatisticalDetector):
    """o = |chart − centre| / its deviation / threshold, from `warm_up` events of the series on.

    The chart is an exponentially weighted mean of about 2/`weight` values (Roberts 1959), so a
    shift of one deviation that stays is seen, though no value is odd by itself; one value counts
    with at most 3 deviations, so a spike is not. Roberts' limit, deviation·√(λ/(2 − λ)), holds for
    independent values; a series that wanders moves its chart further, so the chart's own measured
    deviation is taken where it is larger (as the EWMAST chart does from autocorrelations, Zhang
    1998). All baselines are exponentially weighted with `rate` and learnt after judging.
    """

    name = "ewma"
    component = StateComponent("ewma", 1, np.zeros(6))

    def __init__(
        self,
        threshold: float = 3.0,
        weight: float = 0.1,
        rate: float = 0.002,
        warm_up: int = 60,
    ) -> None:
        if not (threshold > 0 and 0 < rate < weight < 1 and warm_up >= 2):
            raise ValueError("threshold > 0, 0 < rate < weight < 1 and warm_up >= 2 are needed")
        self.threshold, self.weight, self.rate = threshold, weight, rate
        self.warm_up = warm_up

    @staticmethod
    def settle(row: FloatArray) -> None:
        """Back to the centre: what moved the chart was expected."""
        row[CHART] = row[CENTRE]

    def fill(self, state: FloatArray, inputs: ScoringInput, oddness: FloatArray) -> None:
        _run(
            state,
            inputs.slot,
            inputs.value,
            float(self.threshold),
            float(self.weight),
            float(self.rate),
            int(self.warm_up),
            oddness,
        )
