"""The default detector of a series: novelty, forecast, season and flat line in one pass.

A causal recipe found by measurement; every event is scored before it is learnt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detection.base import FloatArray, ScoringInput, SeriesOutput, check_slots
from detection.detectors import online_kernel
from detection.features import FEATURE_NAMES
from detection.ordering import by_slot
from detection.state import StateComponent

REASONS: tuple[str, ...] = (
    "value",  # a value never seen
    "pair",  # an unusual step between means of two events
    "block",  # an unusual course of means of twelve
    "residual",  # far from the forecast
    "season",  # away from the time of day or week
    "flat",  # equal values for too long
    "returned",  # a known fault came back
)


BAND_FROM = 30
"""Events of a series before its expected band is worth drawing."""


class OnlineDetector:
    """Works fully from about 150 events of a series on; abstains for the first `warm_up`.

    Formulas. R: decayed range. Nov: distance, in units of R, to the nearest of at most 64
    prototypes, learnt one by one. z1 = Nov of the value less the forecast's usual error D, with
    values learnt during a fault kept in quarantine; z2, z3 = Nov of pairs of consecutive block
    means (2 and 12 events); z4 = Nov of the residual of an AR(2) forecast by recursive least
    squares with clipped errors; z5 = mean of 12 residuals from a profile of the day or week times
    its skill; z6 = length of a run of equal values over the longest usual one. The oddness is the
    largest of z/T, T = 0.039, 0.154, 0.083, 0.051, 0.25, 1, damped while alarms repeat.

    `expected` is what x should have been, given the past only: middle = the AR forecast, drawn to
    the season's level by D/(D + E) where the season has skill (E its mean error); the half width
    is R·(0.039 + 4·mean error of the mixture). 0.039·R is the novelty alarm level, so values
    inside score below the default threshold 0.8 unless their course or their season is odd.

    With `warm_up=0` the oddness of the recipe from the first event on comes out as it is.
    """

    name = "online"
    component = StateComponent("online", 1, online_kernel.initial_row())

    def __init__(self, warm_up: int = 150) -> None:
        self.warm_up = warm_up

    def score(
        self, state: FloatArray, inputs: ScoringInput, out: SeriesOutput | None = None
    ) -> FloatArray:
        """Oddness float64[n]; nan for warm-up events and for values that are no number.

        Fills all of `out`; IndexError for a slot outside `state`.
        """
        out = SeriesOutput.empty(len(inputs)) if out is None else out
        check_slots(state, inputs)
        online_kernel.run(
            state,
            inputs.slot,
            inputs.epoch_s,
            inputs.value,
            out.oddness,
            out.reason,
            out.onset,
            out.features,
            out.expected,
            out.seen,
            out.tests,
            by_slot(inputs.slot, len(state)),
        )
        if self.warm_up > 0:
            # Everything is new to a young series: alarms before the recipe's own start are noise.
            out.oddness[out.seen < self.warm_up] = np.nan
            out.expected[out.seen < min(self.warm_up, BAND_FROM)] = np.nan
        return out.oddness


def strengths(features: FloatArray, tests: FloatArray) -> dict[str, float]:
    """Each of the detector's own tests of one event in units of its alarm level, undamped.

    `features` float64[FEATURES] and `tests` float64[TESTS] as in `SeriesOutput`; names as in
    REASONS. Those among the features are bounded at 10.
    """
    known = dict(zip(FEATURE_NAMES, features.tolist(), strict=True))
    residual, flat, returned = tests.tolist()
    found = {
        "value": known["novelty"],
        "pair": known["pair"],
        "block": known["block"],
        "residual": residual,
        "season": known["drift"],
        "flat": flat,
    }
    if returned > 0:  # it is only where it is stronger than the others
        found["returned"] = returned
    return found


@dataclass(frozen=True, slots=True)
class Released:
    """What a series' other detectors are to take as expected from now on.

    ``values`` within ``radius``; flat lines of up to ``longest`` events (0: none), with values that
    differ by no more than ``equal``.
    """

    values: FloatArray
    radius: float
    longest: float
    equal: float


def release(
    row: FloatArray, first: int, last: int, values: FloatArray, *, flat: bool = False
) -> Released | None:
    """What the label *expected* does to a state row: see the kernel of this name.

    None where the row has not seen the episode, and stays as it is.
    """
    if row[online_kernel.T] <= first:
        return None
    left = online_kernel.release(row, first, last, values, flat)
    scale = float(row[online_kernel.SCALE])
    return Released(
        # a flat line may be at any value
        values=left if flat else np.unique(np.concatenate([left, values])),
        radius=0.06 * scale,  # twice a prototype's own reach: what lies between two of them as well
        longest=8 + 2 * float(row[online_kernel.LONGEST]) if flat and first >= 0 else 0.0,
        equal=1e-6 * scale,
    )


def without_course(oddness: FloatArray, features: FloatArray, tests: FloatArray) -> FloatArray:
    """What is left of oddness [n] where steps, blocks, forecast and season don't count.

    New values, those still in quarantine and flat lines do; `features` and `tests` [n, …] as in
    `SeriesOutput`.
    """
    novelty = features[:, FEATURE_NAMES.index("novelty")]
    left: FloatArray = np.minimum(oddness, np.maximum(novelty, tests[:, 1:].max(axis=1)))
    return left


def flat_alone(oddness: FloatArray, tests: FloatArray) -> FloatArray:
    """What is left of oddness [n] where only a flat line counts; `tests` [n, 3]."""
    left: FloatArray = np.minimum(oddness, tests[:, 1])
    return left
