"""A challenger beside the champion: who would have alarmed, by the very rule of episodes.

Both sides are judged on the events that the challenger scores, from the same event on. What has
to be remembered is part of a series' state, so batch borders, consumers and replays change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.base import FloatArray, IntArray
from detection.detectors.jit import kernel
from detection.state import StateComponent

CHAMPION, CHALLENGER, CHAMPION_ONSET, CHALLENGER_ONSET = 1, 2, 4, 8
"""Bits of ``Shadow.flags``: over the policy's threshold, and the first event of an episode."""

# Columns of an entry; a series has one for the challenger of all metrics and one for that of its
# own. Another model's number in it means that the entry begins anew.
_MODEL, _LAST_TIME, _CHAMPION_OPEN, _CHAMPION_QUIET, _CHALLENGER_OPEN, _CHALLENGER_QUIET = range(6)
_ENTRY = 6
_LONG_AGO = -1e12


@dataclass(frozen=True, slots=True, eq=False)
class Shadow:
    """What one challenger said of a batch.

    ``model`` its row's id; ``at`` int64 [m] indices of the events it scored; ``score`` float64 [m]
    of the ensemble with it in the champion's place; ``flags`` uint8 [m]. ``*_us`` are the time that
    the two models took over these events: the only numbers here that two runs may differ in.
    """

    model: int
    at: IntArray
    score: FloatArray
    flags: NDArray[np.uint8]
    champion_us: float
    challenger_us: float


def component(algorithm: str) -> StateComponent:
    """What is kept per series while a challenger of this algorithm runs; no room before that."""
    initial = np.zeros(2 * _ENTRY)
    initial[[_LAST_TIME, _ENTRY + _LAST_TIME]] = _LONG_AGO
    return StateComponent(component_name(algorithm), 1, initial)


def component_name(algorithm: str) -> str:
    """The name of that part of the state."""
    return f"shadow_{algorithm}"


def compare(
    state: FloatArray,
    slot: IntArray,
    time_us: IntArray,
    champion: NDArray[np.bool_],
    challenger: NDArray[np.bool_],
    *,
    model: int,
    of_metric: bool,
    quiet_events: int,
    max_gap_us: int,
) -> NDArray[np.uint8]:
    """Flags [m] of events that the champion's and the challenger's ensemble are over at (bool [m]).

    ``state`` is the component's [capacity, width] and moves on. An episode of either side opens at
    its first event over and ends after ``quiet_events`` others or a gap: `detection.episodes`.
    """
    flags = np.zeros(len(slot), dtype=np.uint8)
    _compare(
        state, _ENTRY if of_metric else 0, float(model), slot, time_us, champion, challenger,
        float(quiet_events), float(max_gap_us), flags,
    )  # fmt: skip
    return flags


@kernel
def _compare(
    state: FloatArray,
    first: int,
    model: float,
    slot: IntArray,
    time_us: IntArray,
    champion: NDArray[np.bool_],
    challenger: NDArray[np.bool_],
    quiet_limit: float,
    max_gap: float,
    flags: NDArray[np.uint8],
) -> None:
    for i in range(len(slot)):
        s = state[slot[i], first : first + _ENTRY]
        if s[_MODEL] != model:
            s[:] = 0.0
            s[_MODEL] = model
            s[_LAST_TIME] = _LONG_AGO
        t = float(time_us[i])
        if t - s[_LAST_TIME] > max_gap:
            s[_CHAMPION_OPEN] = 0.0
            s[_CHALLENGER_OPEN] = 0.0
        s[_LAST_TIME] = max(s[_LAST_TIME], t)
        found = 0
        for side in range(2):
            is_open = _CHAMPION_OPEN if side == 0 else _CHALLENGER_OPEN
            quiet = _CHAMPION_QUIET if side == 0 else _CHALLENGER_QUIET
            over = champion[i] if side == 0 else challenger[i]
            if over:
                found |= CHAMPION << side
                if s[is_open] == 0.0:
                    s[is_open] = 1.0
                    found |= CHAMPION_ONSET << side
                s[quiet] = 0.0
            elif s[is_open] == 1.0:
                s[quiet] += 1.0
                if s[quiet] >= quiet_limit:
                    s[is_open] = 0.0
        flags[i] = found
