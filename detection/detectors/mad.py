"""MAD: how far a value lies from the median of the last 128, in median absolute deviations."""

from __future__ import annotations

from detection.base import FloatArray, ScoringInput
from detection.detectors import window_kernel
from detection.detectors.statistical import StatisticalDetector
from detection.state import StateComponent


class MadDetector(StatisticalDetector):
    """o = 0.6745·|x − median| / MAD / threshold, from `warm_up` events of the series on.

    The modified z-score (Iglewicz & Hoaglin 1993; Hampel's identifier) over a sliding window of
    the last 128 values: a fault as long as half of it moves neither median nor MAD, so a second
    spike is as odd as the first, where a z-score has already widened. Its price: what fills half
    of the window is normal after 64 events, and data with two levels has alarms at the rarer one.
    Where more than half of the window is one value, MAD is 0 and the deviation of the whole series
    (exponentially weighted, about 500 events) stands in for MAD / 0.6745.
    """

    name = "mad"
    component = StateComponent("mad", 1, window_kernel.initial_row())

    def __init__(self, threshold: float = 3.0, warm_up: int = 30) -> None:
        if not (threshold > 0 and warm_up >= 3):
            raise ValueError("threshold > 0 and warm_up >= 3 are needed")
        self.threshold, self.warm_up = threshold, warm_up

    def fill(self, state: FloatArray, inputs: ScoringInput, oddness: FloatArray) -> None:
        window_kernel.run_mad(
            state, inputs.slot, inputs.value, float(self.threshold), int(self.warm_up), oddness
        )
