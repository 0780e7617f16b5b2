"""What a series' owner called expected: values and flat lines that are no alarm, nor is the way
back from them. Detectors that sum up or average don't see them at all.

Part of a series' state, written by a release (`detection.quarantine`) and never by scoring alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detection.base import FloatArray, IntArray
from detection.detectors.jit import kernel
from detection.state import StateComponent

NAME = "expected"
CENTRES = 24
"""Values that a series may have as expected; further ones take the place of the oldest."""
STAYS = 500
"""Expected events in a row after which detectors learn them, still without a vote: what lasts so
long has become normal (as in the online detector)."""

AFTER_EVENTS = 24
"""So long the online detector's means have expected events in them: two blocks of twelve."""

# State row: values kept, the next one's place, how far from one counts; the longest flat line that
# is expected, what counts as equal, the last value, the length of its run; expected events in a
# row, events since; then the values.
SIZE, NEXT, RADIUS, LONGEST, EQUAL, LAST, RUN, STREAK, SINCE = range(9)
FIRST = 9
WIDTH = FIRST + CENTRES

NO, AFTER, UNSEEN, LEARNT = 0, 1, 2, 3
"""Not expected; not, but soon after what was; expected; expected for so long that it is learnt."""


def component() -> StateComponent:
    """No room before the first release."""
    initial = np.zeros(WIDTH)
    initial[SINCE] = AFTER_EVENTS + 1
    return StateComponent(NAME, 1, initial)


def add(row: FloatArray, values: FloatArray, radius: float, longest: float, equal: float) -> None:
    """Values [m] that are expected within ``radius``, and flat lines of up to ``longest`` events,
    whose values differ by at most ``equal``; 0 where no flat line is."""
    for value in values.tolist():
        row[FIRST + int(row[NEXT])] = value
        row[NEXT] = (row[NEXT] + 1) % CENTRES
        row[SIZE] = min(row[SIZE] + 1, CENTRES)
    row[RADIUS], row[EQUAL] = radius, equal
    row[LONGEST] = max(row[LONGEST], longest)


def mark(state: FloatArray, slot: IntArray, value: FloatArray) -> NDArray[np.int8]:
    """NO, AFTER, UNSEEN or LEARNT for each event, int8[n]; ``state`` [capacity, WIDTH] moves on."""
    out = np.zeros(len(slot), dtype=np.int8)
    _mark(state, slot, value, out)
    return out


@kernel
def _mark(state: FloatArray, slot: IntArray, value: FloatArray, out: NDArray[np.int8]) -> None:
    for i in range(slot.shape[0]):
        row = state[slot[i]]
        if row[SIZE] == 0.0 and row[LONGEST] == 0.0:
            continue
        x = value[i]
        row[RUN] = row[RUN] + 1.0 if abs(x - row[LAST]) <= row[EQUAL] else 1.0
        row[LAST] = x
        # two equal values are no flat line yet
        found = row[RUN] >= 3.0 and row[RUN] <= row[LONGEST]
        for k in range(int(row[SIZE])):
            found = found or abs(x - row[FIRST + k]) <= row[RADIUS]
        row[STREAK] = row[STREAK] + 1.0 if found else 0.0
        row[SINCE] = 0.0 if found else min(row[SINCE] + 1.0, AFTER_EVENTS + 1.0)
        if found:
            out[i] = UNSEEN if row[STREAK] <= STAYS else LEARNT
        elif row[SINCE] <= AFTER_EVENTS:
            out[i] = AFTER
