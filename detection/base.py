"""What a detector is: online ones keep a row per series, stored models score feature rows.

Oddness is in units of the detector's own alarm level (1 = alarm); nan means it abstains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from detection.features import FEATURE_NAMES
from detection.state import StateComponent

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ScoringInput:
    """Events in the order they are to be seen; a slot may occur many times.

    `slot` int64[n]; `epoch_s` int64[n], seconds in the stream's time zone (seasons follow it);
    `value` float64[n].
    """

    slot: IntArray
    epoch_s: IntArray
    value: FloatArray

    def __len__(self) -> int:
        return len(self.slot)

    def part(self, start: int, end: int) -> ScoringInput:
        """The events start…end-1, without copying."""
        return ScoringInput(self.slot[start:end], self.epoch_s[start:end], self.value[start:end])


def check_slots(state: FloatArray, inputs: ScoringInput) -> None:
    """Kernels check no bounds: a wrong slot would overwrite another series' memory."""
    if len(inputs) and (inputs.slot.min() < 0 or inputs.slot.max() >= state.shape[0]):
        raise IndexError("slot outside the state")


@dataclass(frozen=True, slots=True, eq=False)
class SeriesOutput:
    """Room for what the online detector says beside its oddness (`oddness` holds its own).

    `reason` int8[n] (0–6, online.REASONS); `onset` bool[n], the detector's own new alarm;
    `features` float64[n, len(FEATURE_NAMES)]; `expected` float64[n, 3], low, middle, high;
    `seen` int64[n], events of this series before the event; `tests` float64[n, 3], the online
    detector's residual, flat-line and known-fault tests in units of their levels.
    """

    oddness: FloatArray
    reason: NDArray[np.int8]
    onset: NDArray[np.bool_]
    features: FloatArray
    expected: FloatArray
    seen: IntArray
    tests: FloatArray

    @classmethod
    def empty(cls, n: int) -> Self:
        return cls(
            oddness=np.full(n, np.nan),
            reason=np.zeros(n, np.int8),
            onset=np.zeros(n, np.bool_),
            features=np.zeros((n, len(FEATURE_NAMES))),
            expected=np.full((n, 3), np.nan),
            seen=np.zeros(n, np.int64),
            tests=np.zeros((n, 3)),
        )

    def part(self, start: int, end: int) -> SeriesOutput:
        """Room for the events start…end-1, without copying."""
        return SeriesOutput(
            self.oddness[start:end],
            self.reason[start:end],
            self.onset[start:end],
            self.features[start:end],
            self.expected[start:end],
            self.seen[start:end],
            self.tests[start:end],
        )


@runtime_checkable
class SeriesDetector(Protocol):
    """Learns online, event by event, per series; results don't depend on how a batch is cut."""

    name: str
    component: StateComponent

    def score(
        self, state: FloatArray, inputs: ScoringInput, out: SeriesOutput | None = None
    ) -> FloatArray:
        """Oddness float64[n], nan where it abstains; advances `state` [capacity, width].

        A detector writes into `out` what it knows and leaves the rest untouched.
        """
        ...


@runtime_checkable
class Settles(Protocol):
    """A series detector that sums up: what moved it can be called expected."""

    component: StateComponent

    def settle(self, row: FloatArray) -> None:
        """Take what moved it last back out of a state row, float64[width]."""
        ...


@runtime_checkable
class RowScorer(Protocol):
    """Judges feature rows, and is never changed by it."""

    name: str

    @property
    def columns(self) -> int:
        """k: how many numbers a row has."""
        ...

    def oddness(self, features: FloatArray) -> FloatArray:
        """Calibrated oddness float64[n] of rows [n, k]; each row on its own."""
        ...

    def contributions(self, features: FloatArray) -> FloatArray:
        """What made each row [n, k] odd: shares ≥ 0 of the columns, which sum to 1.

        All 0 for a row that isn't odd to this model, or holds a nan.
        """
        ...

    def nearest(self, features: FloatArray) -> FloatArray:
        """The nearest normal training row to each, [n, k]; nan where a row holds a nan."""
        ...


@runtime_checkable
class ModelDetector(RowScorer, Protocol):
    """Trained on history, stored as plain arrays."""

    @classmethod
    def fit(cls, features: FloatArray, *, seed: int, **params: Any) -> Self:
        """Train on rows [n, k] in order of time; equal rows and seed give an equal model."""
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that is needed to score, as plain arrays."""
        ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The model again; ArtefactIncompatible if arrays are missing."""
        ...
