"""IQR: Tukey's fences around the quartiles of about the last thousand values."""

from __future__ import annotations

from detection.base import FloatArray, ScoringInput
from detection.detectors import window_kernel
from detection.detectors.statistical import StatisticalDetector
from detection.state import StateComponent


class IqrDetector(StatisticalDetector):
    """o = distance beyond the nearer quartile / (threshold/2 · IQR), from `warm_up` events on.

    Tukey's fences (Exploratory Data Analysis, 1977): a threshold of 3 is his inner fence, 1.5 · IQR
    beyond the quartiles (2.7 deviations of normal data), and 6 his outer one, "far out". Quartiles
    of 128 values: the first ones, later every `every`-th on average, at places that no period of
    the series meets. So its memory is some 128 · `every` events, eight times that of `mad`,
    and a level that is new stays odd for about 256 events. Where half of the values are the
    same, IQR is 0 and 1.349 deviations of the series (exponentially weighted) stand in.
    """

    name = "iqr"
    component = StateComponent("iqr", 1, window_kernel.initial_row())

    def __init__(self, threshold: float = 3.0, warm_up: int = 30, every: int = 8) -> None:
        if not (threshold > 0 and warm_up >= 4 and every >= 1):
            raise ValueError("threshold > 0, warm_up >= 4 and every >= 1 are needed")
        self.threshold, self.warm_up, self.every = threshold, warm_up, every

    def fill(self, state: FloatArray, inputs: ScoringInput, oddness: FloatArray) -> None:
        window_kernel.run_iqr(
            state,
            inputs.slot,
            inputs.value,
            self.threshold / 2.0,
            int(self.warm_up),
            int(self.every),
            oddness,
        )
