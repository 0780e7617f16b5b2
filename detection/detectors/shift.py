"""Shift: the level has moved and stays, said by two charts at once that err on different data."""

from __future__ import annotations

import numpy as np

from detection.base import FloatArray, ScoringInput
from detection.detectors.change_point import ChangePointDetector
from detection.detectors.ewma import EwmaDetector
from detection.detectors.jit import kernel
from detection.detectors.statistical import StatisticalDetector
from detection.state import StateComponent

CHART, SUMS = 0.8, 1.25
"""What the two oddnesses count: at o = 1 the chart is 3.75 deviations away, and a sum at 6.4 times
its usual peak. Measured: docs/detection.md."""

_WIDTH = EwmaDetector.component.width


@kernel
def _agreed(chart: FloatArray, sums: FloatArray, out: FloatArray) -> None:
    for i in range(len(out)):
        a, b = CHART * chart[i], SUMS * sums[i]
        out[i] = np.nan if np.isnan(a) or np.isnan(b) else min(a, b)


class ShiftDetector(StatisticalDetector):
    """o = min(0.8 · `ewma`, 1.25 · `change_point`), from 60 events of the series on.

    Each of the two alone alarms on data that the other one knows better: the chart where values
    come in bursts, the sums where a trend meets a season. A level that lasts for 20 events and
    more, or values that scatter for so long, move both; so does a fault of that kind the tenth
    time, since neither keeps a memory of faults.
    """

    name = "shift"
    component = StateComponent(
        "shift",
        1,
        np.concatenate([EwmaDetector.component.initial, ChangePointDetector.component.initial]),
    )

    def __init__(self) -> None:
        self._chart, self._sums = EwmaDetector(), ChangePointDetector()

    @staticmethod
    def settle(row: FloatArray) -> None:
        """Both charts begin again: what moved them was expected."""
        EwmaDetector.settle(row[:_WIDTH])
        ChangePointDetector.settle(row[_WIDTH:])

    def fill(self, state: FloatArray, inputs: ScoringInput, oddness: FloatArray) -> None:
        chart, sums = np.empty(len(inputs)), np.empty(len(inputs))
        self._chart.fill(state[:, :_WIDTH], inputs, chart)
        self._sums.fill(state[:, _WIDTH:], inputs, sums)
        _agreed(chart, sums, oddness)
