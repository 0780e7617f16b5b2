"""How long a series usually pauses between events, learnt from the gaps alone.

Each series keeps decayed counts of its gaps by size. A gap that is longer than the learnt limit is
reported; what becomes of it is `detection.silence`'s to say. Nothing here depends on the wall
clock but the delay of delivery, which is kept beside the state and decides no row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.base import FloatArray, IntArray
from detection.detectors.jit import kernel
from detection.state import StateComponent

NAME = "heartbeat"

# Columns of a series' row; times are µs.
LAST_TIME, LAST_OFFSET, GAPS, USUAL, TOMORROW, UNREACHED, LIMIT, TOP, LAST_BIN, COUNTS = range(10)
BINS = 64  # two to each doubling, from 0.1 s to 13 years
WIDTH = COUNTS + BINS

SHORTEST = 100_000.0
EDGES = SHORTEST * np.exp2(np.arange(BINS) / 2.0)  # the upper one of each bin
JUDGE_FROM = 30.0  # gaps
SPARE = 2.0  # gaps that may be longer than what counts as usual
ROOM = 2.0  # times the longest usual gap
CHANCE = 1e-6  # of a gap beyond the limit, were gaps exponential
DECAY = 0.98  # of the counts, on each day with events
FORGET = 10.0  # times that a usual pause has to fail to come, until it begins to be forgotten
RATE = 0.01  # of the mean, each gap
CLIP = 4.0  # times the mean: a pause is not what is usual
EASING = 0.5  # of the time between two arrivals, by which a delay is forgotten
_DAY = 86_400_000_000.0
_HALF = 0.7071067811865476


def component() -> StateComponent:
    """The declaration of this module's part of a series' state."""
    initial = np.zeros(WIDTH)
    initial[[LAST_OFFSET, TOP]] = -1.0
    initial[LIMIT] = np.inf
    return StateComponent(NAME, 1, initial)


@dataclass(frozen=True, slots=True)
class Gaps:
    """Gaps over their limit, in event order.

    ``at`` int64 [m] is the index of the event that ended each; float64 [m]: ``since`` the event
    time (µs) and ``offset`` the place of the one before, ``usual`` and ``limit`` µs as they were.
    """

    at: IntArray
    since: FloatArray
    offset: FloatArray
    usual: FloatArray
    limit: FloatArray

    def __len__(self) -> int:
        return len(self.at)

    @classmethod
    def none(cls) -> Gaps:
        """No gap."""
        none = np.zeros(0)
        return cls(np.zeros(0, dtype=np.int64), none, none, none, none)


@dataclass(slots=True)
class Delays:
    """Of each slot, in memory: how long its events take to arrive, and when one last did.

    Both float64 µs; a delay is nan until an event was seen to arrive.
    """

    delay: FloatArray
    arrived: FloatArray

    @classmethod
    def of(cls, capacity: int) -> Delays:
        """Nothing known."""
        return cls(np.full(capacity, np.nan), np.zeros(capacity))

    def grow(self, capacity: int) -> None:
        """Room for more slots."""
        more = Delays.of(capacity - len(self.delay))
        self.delay = np.concatenate([self.delay, more.delay])
        self.arrived = np.concatenate([self.arrived, more.arrived])


def advance(
    state: FloatArray,
    slot: IntArray,
    time_us: IntArray,
    offset: IntArray,
    policy: NDArray[np.int32],
    asked_us: FloatArray,
    least_us: float,
    heard_us: FloatArray,
    delays: Delays,
) -> Gaps:
    """Learn from ``n`` events, and report gaps over the limit.

    `asked_us` [policies] is a policy's own limit (-1: the learnt one, at least `least_us`; inf:
    none); `heard_us` [n] the wall clock where an event was seen to arrive, else -1.

    **What is usual.** Gaps between a series' events, late ones and those of the same time left
    out, are counted in bins of half a doubling; on each day with events all counts become 0.98 of
    themselves. From 30 gaps on, X is the upper edge of the bin above which no more than two gaps
    lie, so that a pause that was seen three times is usual, and M that of the median's bin. The
    limit is the larger of 2·X and M + (X − M)·ln(½·10⁶)/ln(½·n/3): as far as exponential gaps
    would lie of which one in a million is longer. Regular gaps have X = M and the first one counts;
    gaps by chance, while few are known, have the second.

    **What is forgotten.** A longest usual gap that was counted ten times a day and then has not
    come for a day, or daily and not for ten, is halved each day until it counts no more.

    **Delay.** The longest of the last arrivals, forgotten by half of the time that passes between
    arrivals with less: a source that uploads each ten minutes keeps its ten minutes.

    Raises:
        IndexError: a slot outside `state`.
    """
    n = len(slot)
    if n and (slot.min() < 0 or slot.max() >= state.shape[0]):
        raise IndexError("slot outside the state")
    at = np.empty(n, dtype=np.int64)
    found = np.empty((4, n))
    m = _advance(
        state,
        slot,
        time_us,
        offset,
        policy,
        asked_us,
        least_us,
        heard_us,
        delays.delay,
        delays.arrived,
        at,
        found,
    )
    return Gaps(at[:m].copy(), *found[:, :m].copy())


def allow(row: FloatArray, pause_us: float) -> None:
    """Count a pause as usual: somebody said that it is expected."""
    row[COUNTS + _bin(pause_us)] += SPARE + 1.0
    row[UNREACHED] = 0.0
    if row[GAPS] >= JUDGE_FROM:
        _set_limit(row)


@kernel
def _bin(gap: float) -> int:
    """The bin whose upper edge is the first one at or above a gap."""
    part, power = math.frexp(gap / SHORTEST)
    number = 2 * power - (1 if part <= _HALF else 0)
    return max(0, min(BINS - 1, number))


@kernel
def _set_limit(row: FloatArray) -> None:
    total = 0.0
    for j in range(BINS):
        total += row[COUNTS + j]
    top, above = BINS - 1, row[COUNTS + BINS - 1]
    while above <= SPARE and top > 0:
        top -= 1
        above += row[COUNTS + top]
    middle, below = 0, row[COUNTS]
    while below < 0.5 * total and middle < top:
        middle += 1
        below += row[COUNTS + middle]
    longest, usual = EDGES[top], EDGES[middle]
    known = max(total, 0.6 * JUDGE_FROM)
    stretch = math.log(0.5 / CHANCE) / math.log(0.5 * known / (SPARE + 1.0))
    if top < row[TOP]:
        row[UNREACHED] = 0.0
    row[TOP] = top
    row[LIMIT] = max(ROOM * longest, usual + (longest - usual) * stretch)


@kernel
def _new_day(row: FloatArray, forget: bool) -> None:
    for j in range(COUNTS, WIDTH):
        row[j] *= DECAY
    if not forget or row[TOP] < 0.0:
        return
    top = int(row[TOP])
    for j in range(COUNTS + top, WIDTH):
        row[UNREACHED] += (1.0 - DECAY) * row[j]  # so many would have been usual on this day
    if row[UNREACHED] > FORGET:
        for j in range(COUNTS + top, WIDTH):
            row[j] *= 0.5


@kernel
def _unusual(row: FloatArray, number: int, t: float) -> None:
    """A gap longer than any usual one, a new day, or twice as many gaps: the limit may move."""
    if number >= row[TOP]:
        row[UNREACHED] = 0.0
    if t >= row[TOMORROW]:
        if row[TOMORROW] > 0.0:
            _new_day(row, number < row[TOP])
        row[TOMORROW] = (math.floor(t / _DAY) + 1.0) * _DAY
    row[COUNTS + number] += 1.0
    if row[GAPS] >= JUDGE_FROM:
        _set_limit(row)


@kernel
def _advance(
    state: FloatArray,
    slot: IntArray,
    time_us: IntArray,
    offset: IntArray,
    policy: NDArray[np.int32],
    asked: FloatArray,
    least: float,
    heard: FloatArray,
    delay: FloatArray,
    arrived: FloatArray,
    at: IntArray,
    found: FloatArray,
) -> int:
    m = 0
    # a view of each row would cost more than all that is done with it
    for i in range(slot.shape[0]):
        k = slot[i]
        t = float(time_us[i])
        now = heard[i]
        if now > 0.0:
            late = max(0.0, now - t)
            if delay[k] == delay[k]:
                late = max(late, delay[k] - EASING * max(0.0, now - arrived[k]))
            delay[k] = late
            arrived[k] = now
        if state[k, LAST_OFFSET] < 0.0:
            state[k, LAST_TIME] = t
            state[k, LAST_OFFSET] = float(offset[i])
            continue
        gap = t - state[k, LAST_TIME]
        if gap <= 0.0:
            continue
        limit = asked[policy[i]]
        if limit < 0.0:
            limit = max(least, state[k, LIMIT])
        if gap > limit:
            at[m] = i
            found[0, m] = state[k, LAST_TIME]
            found[1, m] = state[k, LAST_OFFSET]
            found[2, m] = state[k, USUAL]
            found[3, m] = limit
            m += 1
        n = state[k, GAPS] + 1.0
        state[k, GAPS] = n
        usual = state[k, USUAL]
        if n == 1.0:
            state[k, USUAL] = gap
        else:
            rate = RATE if n * RATE >= 1.0 else 1.0 / n
            state[k, USUAL] = usual + rate * (min(gap, CLIP * usual) - usual)
        number = int(state[k, LAST_BIN])
        if number == 0 or gap > EDGES[number] or gap <= EDGES[number - 1]:
            number = _bin(gap)
            state[k, LAST_BIN] = number
        whole = np.int64(n)
        doubled = n == JUDGE_FROM or whole & (whole - 1) == 0
        if number > state[k, TOP] or t >= state[k, TOMORROW] or doubled:
            _unusual(state[k], number, t)
        else:
            if number == state[k, TOP]:
                state[k, UNREACHED] = 0.0
            state[k, COUNTS + number] += 1.0
        state[k, LAST_TIME] = t
        state[k, LAST_OFFSET] = float(offset[i])
    return m
