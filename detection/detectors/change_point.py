"""Change point: level, trend or spread have changed for good, by cumulative sums of deviations."""

from __future__ import annotations

import math

import numpy as np

from detection.base import FloatArray, IntArray, ScoringInput
from detection.detectors.jit import kernel
from detection.detectors.statistical import StatisticalDetector
from detection.state import StateComponent

# State row: events since the baseline began, its mean and variance; sizes |u| seen, their mean and
# variance; then for each of the sums (level up, level down, spread up, spread down) seven numbers.
SEEN, MEAN, VARIANCE, SIZES, SIZE_MEAN, SIZE_VARIANCE = range(6)
SUMS = 6
SUM, PEAK, CUBE, EXCURSIONS, LENGTH, GAPS, SQUARES = range(7)
FIELDS = 7
DIRECTIONS = 4
WIDTH = SUMS + FIELDS * DIRECTIONS

CLIP = 4.0  # deviations of one value that count
SLACK = 0.5  # deviations that a sum forgives each event: tuned to shifts of one deviation
PEAKS_RATE = 0.005  # of the usual peak: a memory of 200 excursions
PRIOR = 5.0  # excursions that the peak of independent normal data counts for
PRIOR_CUBE = 8.0  # about the mean cube of the peaks of independent normal data
FEWEST = 30  # events that make a baseline
LARGEST = 1e150  # its square is still a number


@kernel
def _end_excursion(row: FloatArray, at: int) -> None:
    """Learn a sum's peak and set it to 0."""
    if row[at + PEAK] > 0:
        row[at + EXCURSIONS] += 1.0
        share = max(PEAKS_RATE, 1.0 / (PRIOR + row[at + EXCURSIONS]))
        row[at + CUBE] += share * (row[at + PEAK] ** 3 - row[at + CUBE])
    row[at + SUM] = row[at + PEAK] = row[at + LENGTH] = row[at + GAPS] = row[at + SQUARES] = 0.0


@kernel
def _advance(row: FloatArray, j: int, step: float, gap: float) -> float:
    """One sum after one event, in units of its usual peak."""
    at = SUMS + FIELDS * j
    row[at + SUM] += step - SLACK
    if row[at + SUM] <= 0:
        _end_excursion(row, at)
        return 0.0
    row[at + PEAK] = max(row[at + PEAK], row[at + SUM])
    row[at + LENGTH] += 1.0
    row[at + GAPS] += gap
    row[at + SQUARES] += gap * gap
    return float(row[at + SUM] / np.cbrt(row[at + CUBE]))


@kernel
def _rebase(row: FloatArray, j: int, mean: float) -> None:
    """The baseline is what was seen since the sum began to rise; all sums begin again."""
    at = SUMS + FIELDS * j
    length = row[at + LENGTH]
    shift = row[at + GAPS] / length
    if j < 2:
        row[MEAN] = mean + shift
    elif length > 1:
        row[VARIANCE] = max(row[at + SQUARES] / length - shift * shift, 0.0)
    row[SEEN] = max(length, FEWEST)
    for k in range(DIRECTIONS):
        if k == j:
            _end_excursion(row, SUMS + FIELDS * k)
        else:  # cut off, so its peak says nothing
            row[SUMS + FIELDS * k + PEAK] = 0.0
            _end_excursion(row, SUMS + FIELDS * k)


@kernel
def _run(
    state: FloatArray,
    slot: IntArray,
    value: FloatArray,
    threshold: float,
    rate: float,
    oddness: FloatArray,
) -> None:
    for i in range(slot.shape[0]):
        row = state[slot[i]]
        x = value[i]
        oddness[i] = np.nan
        if not abs(x) <= LARGEST:
            continue
        if row[SEEN] == 0:
            row[MEAN] = x
        mean = row[MEAN]
        gap = x - mean
        most, changed = 0.0, -1
        if row[SEEN] >= FEWEST:
            deviation = max(math.sqrt(row[VARIANCE]), 1e-9 + 1e-6 * abs(mean))
            u = min(max(gap / deviation, -CLIP), CLIP)
            size, w = abs(u), 0.0
            if row[SIZES] >= FEWEST:
                w = (size - row[SIZE_MEAN]) / max(math.sqrt(row[SIZE_VARIANCE]), 0.05)
                w = min(max(w, -CLIP), CLIP)
            for j in range(DIRECTIONS):
                step = u if j < 2 else w
                reached = _advance(row, j, step if j % 2 == 0 else -step, gap) / threshold
                if reached >= 1.0 and changed < 0:
                    changed = j
                most = max(most, reached)
            oddness[i] = most
            share = max(rate, 1.0 / (row[SIZES] + 1.0))
            away = size - row[SIZE_MEAN]
            row[SIZE_MEAN] += share * away
            row[SIZE_VARIANCE] = (1.0 - share) * (row[SIZE_VARIANCE] + share * away * away)
            row[SIZES] += 1.0
        share = max(rate, 1.0 / (row[SEEN] + 1.0))
        row[MEAN] += share * gap
        row[VARIANCE] = (1.0 - share) * (row[VARIANCE] + share * gap * gap)
        row[SEEN] += 1.0
        if changed >= 0:
            _rebase(row, changed, mean)


def initial_row() -> FloatArray:
    """The state of a series never seen, float64[WIDTH]."""
    row = np.zeros(WIDTH)
    row[SUMS + CUBE :: FIELDS] = PRIOR_CUBE
    return row


class ChangePointDetector(StatisticalDetector):
    """o = the highest of four cumulative sums / its usual peak / threshold, from 31 events on.

    Two-sided CUSUM (Page 1954) of the standardised value u, clipped at ±4, for level and trend, and
    of its standardised size |u| for the spread; each sum forgives 0.5 an event. A sum returns to 0
    again and again, and the peaks of these excursions say how high it gets without a change: usual
    is their cubic mean (exponentially weighted over some 200). So a series that wanders, bursts or
    switches sets its own level, where a fixed one alarms all the time. At o ≥ 1 the baseline
    becomes what was seen since the sum began to rise, so one change is one alarm.

    Chosen by measurement over Bayesian online change point detection (Adams & MacKay 2007, 32 run
    lengths, the same values): as early on independent data, but a model of independent normal
    values calls heavy tails, switches and bursts changes (docs/detection.md has the figures), at
    ten times the cost.
    """

    name = "change_point"
    component = StateComponent("change_point", 1, initial_row())

    def __init__(self, threshold: float = 8.0, rate: float = 0.003) -> None:
        if not (threshold > 0 and 0 < rate < 1):
            raise ValueError("threshold > 0 and 0 < rate < 1 are needed")
        self.threshold, self.rate = threshold, rate

    @staticmethod
    def settle(row: FloatArray) -> None:
        """All sums begin again: what moved them was expected, and its peaks are not usual."""
        for j in range(DIRECTIONS):
            at = SUMS + FIELDS * j
            row[[at + SUM, at + PEAK, at + LENGTH, at + GAPS, at + SQUARES]] = 0.0

    def fill(self, state: FloatArray, inputs: ScoringInput, oddness: FloatArray) -> None:
        _run(state, inputs.slot, inputs.value, float(self.threshold), float(self.rate), oddness)
