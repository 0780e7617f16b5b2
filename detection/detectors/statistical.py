"""What the statistical detectors share: slots checked once, room for the oddness, one kernel."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from detection.base import FloatArray, ScoringInput, SeriesOutput, check_slots
from detection.state import StateComponent


class StatisticalDetector(ABC):
    """A series detector that knows an oddness and nothing else."""

    name: str
    component: StateComponent

    def score(
        self, state: FloatArray, inputs: ScoringInput, out: SeriesOutput | None = None
    ) -> FloatArray:
        """Oddness float64[n]; nan while warming up and for values beyond ±1e150 or no number.

        Leaves `out` as it is; IndexError for a slot outside `state`.
        """
        check_slots(state, inputs)
        oddness = np.empty(len(inputs))
        self.fill(state, inputs, oddness)
        return oddness

    @abstractmethod
    def fill(self, state: FloatArray, inputs: ScoringInput, oddness: FloatArray) -> None:
        """Write `oddness` float64[n] and advance `state`; every slot is inside it."""
