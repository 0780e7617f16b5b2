"""Which series are silent by the wall clock: where no event comes, no event can tell.

A series counts as silent only up to a moment of which it is known that everything the broker had
by then was scored, and only after the delay with which its events usually arrive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection import heartbeat
from detection.base import FloatArray, IntArray
from detection.heartbeat import LAST_OFFSET, LAST_TIME, LIMIT, USUAL
from detection.scoring import CompiledVersion
from detection.series_rows import SeriesRows

LEEWAY = 1.25  # times the usual delay
BACK_US = 600e6
PAST_US = 3_600e6
PAST_LIMITS = 4.0
"""A delay beyond both an hour and so many limits is that of a past that is read in."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """Slots that a stage of silence is due of, int64 [n]; `lasted_us` float64 [n]."""

    slot: IntArray
    lasted_us: FloatArray


def overdue(
    rows: SeriesRows, partition: int, version: CompiledVersion, now_us: int, quiet_us: int
) -> Overdue:
    """Of one partition, as of ``now_us``.

    None whose limit is longer than ``quiet_us``, for how long the broker has answered and we have
    read: then its source may not have come back yet. Ten minutes are enough for all.
    """
    slots = rows.slots_of(partition)
    if version.silence is None or not len(slots):
        return Overdue(slots[:0], np.zeros(0))
    state = rows.store.rows(heartbeat.NAME)[slots]
    since, limit = state[:, LAST_TIME], limits(rows, slots, version)
    delay = rows.delays.delay[slots]
    lasted = float(now_us) - LEEWAY * delay - since
    first = np.array([stages[0].factor for stages in version.silence.stages])
    due = np.maximum(rows.next_stage_us[slots], limit * first[_policies(rows, slots, version)])
    at = np.flatnonzero(
        (state[:, LAST_OFFSET] >= 0.0)
        & (lasted >= due)
        & (np.minimum(limit, BACK_US) <= quiet_us)
        & (delay <= np.maximum(PAST_US, PAST_LIMITS * limit))
    )
    if len(at):
        at = at[~rows.seen_elsewhere(partition, rows.slot_code[slots[at]], since[at])]
    return Overdue(slots[at], lasted[at])


def limits(rows: SeriesRows, slots: IntArray, version: CompiledVersion) -> FloatArray:
    """From which length on a silence of each slot is odd, float64 [n] µs; inf: never."""
    if version.silence is None:
        return np.full(len(slots), np.inf)
    asked = version.silence.asked_us[_policies(rows, slots, version)]
    learnt = rows.store.rows(heartbeat.NAME)[slots, LIMIT]
    found: FloatArray = np.where(asked < 0.0, np.maximum(version.silence.least_us, learnt), asked)
    return found


def usual_gaps(rows: SeriesRows, slots: IntArray) -> FloatArray:
    """The usual gap between events of each slot, float64 [n] µs; 0 where none is known."""
    usual: FloatArray = rows.store.rows(heartbeat.NAME)[slots, USUAL]
    return usual


def _policies(rows: SeriesRows, slots: IntArray, version: CompiledVersion) -> NDArray[np.int32]:
    found: NDArray[np.int32] = version.policies.index(rows.index.names)[rows.slot_code[slots]]
    return found
