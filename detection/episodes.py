"""Scores to episodes, near misses and minute rollups, one pass per batch over per-series state.

An episode opens at the first event at or over the policy's threshold and closes after a number of
quiet events or a gap; inside it no second one opens. A policy's budget of onsets a day raises the
threshold of a series that would exceed it, judged from that series' own past ("Quiet by default" in
docs/detection.md). Everything here depends only on the events of one series in order, so batch
borders, restarts and other series change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detection.state import StateComponent
from detection.thresholds import CANDIDATE_FROM, HELD_BACK, LEVELS, RUNGS, WOULD_OPEN

NONE, ONSET, EXTEND, RISE = 0, 1, 2, 3

# Columns of a series' row. Counts, offsets and µs are whole numbers below 2^53, exact as float64.
EVENTS, LAST_OFFSET, WATERMARK, LAST_TIME, FIRST_TIME = 0, 1, 2, 3, 4
OPEN, SEQUENCE, QUIET, ONSET_OFFSET, ONSET_TIME, END_TIME, END_OFFSET = 5, 6, 7, 8, 9, 10, 11
COUNT, PEAK_SCORE, PEAK_VALUE, PEAK_TIME, SEVERITY, EPISODE_DIRTY = 12, 13, 14, 15, 16, 17
RAISED_TO, HELD = (
    18,
    19,
)  # the open episode's threshold where it was raised, else 0; onsets held back
MINUTE, FIRST_OFFSET, R_COUNT, R_SCORED, R_MIN, R_MAX, R_SUM, R_LAST = (
    20,
    21,
    22,
    23,
    24,
    25,
    26,
    27,
)
R_MAX_SCORE, R_LOW, R_MID, R_HIGH, R_SCORES, R_ONSETS, ROLLUP_DIRTY = 28, 29, 30, 31, 32, 52, 72
LAST_OVER = 73
RING_AT, RING = 93, 94
RING_SIZE = 60
# The budget's memory: onsets as they would be at the policy's own threshold and at each rung.
QUIET_NOW = RING + 2 * RING_SIZE  # the threshold a budget asks for now, 0 where it asks for none
LAST_RAISED, COUNTED_AT, COUNTED_FOR = QUIET_NOW + 1, QUIET_NOW + 2, QUIET_NOW + 3
LAST_OWN = QUIET_NOW + 4  # events' number when last over the policy's threshold, then each rung
LAST_RUNG = LAST_OWN + 1
COUNT_TOLD = LAST_RUNG + len(RUNGS)  # decayed counts: onsets that opened, own, each rung
COUNT_OWN, COUNT_RUNG = COUNT_TOLD + 1, COUNT_TOLD + 2
WIDTH = COUNT_RUNG + len(RUNGS)

SEGMENT_FROM, SEGMENT_TO = MINUTE, ROLLUP_DIRTY
EPISODE_FROM, EPISODE_TO = OPEN, EPISODE_DIRTY

_LONG_AGO = -1e12
_DAY = 86_400_000_000.0
_MEMORY_DAYS, _LEAST_DAYS = 7.0, 2.0
_FADING_DAYS = 4.5  # the shortest memory: a young series' lasts as long as it has lived
_ROOM = 0.94  # onsets are judged before they are counted, so more than allowed are told
_FAR = 3.0  # times the threshold's oddness
_CEILING = 2.0  # times what is allowed: counts go no further, so that noise is forgotten in days
_RUNG_COUNT = len(RUNGS)


def component() -> StateComponent:
    """The declaration of this module's part of a series' state."""
    initial = np.zeros(WIDTH)
    initial[[LAST_OFFSET, MINUTE]] = -1.0
    initial[[WATERMARK, LAST_TIME, LAST_RAISED, COUNTED_AT]] = _LONG_AGO
    initial[LAST_OVER : LAST_OVER + len(LEVELS)] = _LONG_AGO
    initial[LAST_OWN:COUNT_TOLD] = _LONG_AGO
    return StateComponent("episodes", 3, initial)


@dataclass(frozen=True, slots=True)
class Limits:
    """When an episode ends: ``quiet_events`` below the threshold, or a gap in event time."""

    quiet_events: int = 80
    max_gap_us: int = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a batch did, in event order.

    ``change`` int8 [n] (NONE, ONSET, EXTEND, RISE), ``severity`` int8 [n] (1 low … 4 critical, 0
    below the policy's threshold; an event held back has one), ``sequence`` int32 [n] (number of the
    change within its anomaly), ``onset_offset`` int64 [n] (its episode's, -1 none), ``threshold``
    float64 [n] (the one in effect at onsets and rises, else 0), ``levels`` int32 [n] (bit i: onset
    at LEVELS[i]; WOULD_OPEN, HELD_BACK), ``late`` bool [n].

    ``segments`` [m, 1 + SEGMENT_TO − SEGMENT_FROM] are finished rollup rows led by their slot,
    ``closed`` [c, 1 + EPISODE_TO − EPISODE_FROM] ended episodes; ``*_at`` the index of the event
    that finished them. ``context`` [o, 2, RING_SIZE] holds µs and values of the series' last events
    up to each onset, oldest first (µs 0: none yet), ``context_at`` the onset's index.
    """

    change: NDArray[np.int8]
    severity: NDArray[np.int8]
    sequence: NDArray[np.int32]
    onset_offset: NDArray[np.int64]
    threshold: NDArray[np.float64]
    levels: NDArray[np.int32]
    late: NDArray[np.bool_]
    context: NDArray[np.float64]
    context_at: NDArray[np.int64]
    segments: NDArray[np.float64]
    segments_at: NDArray[np.int64]
    closed: NDArray[np.float64]
    closed_at: NDArray[np.int64]


def advance(
    state: NDArray[np.float64],
    slot: NDArray[np.int64],
    time_us: NDArray[np.int64],
    offset: NDArray[np.int64],
    value: NDArray[np.float64],
    score: NDArray[np.float64],
    expected: NDArray[np.float64],
    policy: NDArray[np.int32],
    policies: NDArray[np.float64],
    limits: Limits,
    quiet_events: NDArray[np.float64] | None = None,
) -> Outcome:
    """Move ``state`` [cap, WIDTH] on by ``n`` events; ``score`` is nan while warming up.

    ``quiet_events`` float64 [n] says for each event after how many an episode of its kind ends;
    without it those of ``limits``.
    """
    n = len(slot)
    if quiet_events is None:
        quiet_events = np.full(n, float(limits.quiet_events))
    out = Outcome(
        np.zeros(n, dtype=np.int8),
        np.zeros(n, dtype=np.int8),
        np.zeros(n, dtype=np.int32),
        np.full(n, -1, dtype=np.int64),
        np.zeros(n),
        np.zeros(n, dtype=np.int32),
        np.zeros(n, dtype=np.bool_),
        np.empty((n, 2, RING_SIZE)),
        np.empty(n, dtype=np.int64),
        np.empty((n, 1 + SEGMENT_TO - SEGMENT_FROM)),
        np.empty(n, dtype=np.int64),
        np.empty((n, 1 + EPISODE_TO - EPISODE_FROM)),
        np.empty(n, dtype=np.int64),
    )
    k, m, c = _advance(
        state,
        slot,
        time_us,
        offset,
        value,
        score,
        expected,
        policy,
        policies,
        LEVELS,
        RUNGS,
        quiet_events,
        float(limits.max_gap_us),
        out.change,
        out.severity,
        out.sequence,
        out.onset_offset,
        out.threshold,
        out.levels,
        out.late,
        out.context,
        out.context_at,
        out.segments,
        out.segments_at,
        out.closed,
        out.closed_at,
    )
    return Outcome(
        out.change,
        out.severity,
        out.sequence,
        out.onset_offset,
        out.threshold,
        out.levels,
        out.late,
        out.context[:k].copy(),
        out.context_at[:k],
        out.segments[:m],
        out.segments_at[:m],
        out.closed[:c],
        out.closed_at[:c],
    )


def over_threshold(
    score: NDArray[np.float64],
    value: NDArray[np.float64],
    mid: NDArray[np.float64],
    policy: NDArray[np.int32],
    policies: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Which events would count at another score, bool [n], by the rule that episodes obey."""
    out = np.zeros(len(score), dtype=np.bool_)
    _over_threshold(score, value, mid, policy, policies, out)
    return out


def wanted_levels(levels: NDArray[np.int32]) -> NDArray[np.intp]:
    """Indices of the events worth keeping: near misses, and onsets of the policy's threshold."""
    return np.flatnonzero(levels >> CANDIDATE_FROM)


@njit(cache=True, nogil=True)
def _severity(score: float, p: Any) -> int:
    if score >= p[6]:
        return 4
    if score >= p[5]:
        return 3
    if score >= p[4]:
        return 2
    return 1


@njit(cache=True, nogil=True)
def _over(score: float, value: float, mid: float, p: Any) -> Any:
    """At or over the policy's threshold, and one that the policy speaks of."""
    return score >= p[0] and _meant(value, mid, p)


@njit(cache=True, nogil=True)
def _meant(value: float, mid: float, p: Any) -> Any:
    """In the policy's direction, and far enough from the expected."""
    if p[1] == 0.0 and p[2] == 0.0 and p[3] == 0.0:
        return True
    if np.isnan(mid):
        return p[1] == 0.0 and p[2] == 0.0
    deviation = value - mid
    if p[1] * deviation < 0.0:
        return False
    size = abs(deviation)
    return size >= p[2] and size >= p[3] * abs(mid)


@njit(cache=True, nogil=True)
def _over_threshold(score: Any, value: Any, mid: Any, policy: Any, policies: Any, out: Any) -> None:
    for i in range(len(score)):
        out[i] = _over(score[i], value[i], mid[i], policies[policy[i]])


@njit(cache=True, nogil=True)
def _forget(s: Any, now: float, p: Any) -> Any:
    """Decay the budget's counts up to ``now``; returns how many onsets they may hold.

    The memory is a week, and longer for a budget below one a day. A young series may have the
    onsets of two days, and remembers no longer than it has lived, but 4.5 days: what came while
    it was learnt is forgotten that much sooner.
    """
    stretch = max(1.0, 1.0 / p[7]) if p[7] > 0.0 else 1.0
    memory = _MEMORY_DAYS * stretch * _DAY
    age = now - s[FIRST_TIME]
    if now > s[COUNTED_AT]:
        before = max(s[COUNTED_AT] - s[FIRST_TIME], 0.0)
        left = np.exp(_faded(before, memory) - _faded(age, memory))
        for j in range(COUNT_TOLD, WIDTH):
            s[j] *= left
        s[COUNTED_AT] = now
    lived = _ROOM * memory * (1.0 - np.exp(-age / memory))
    return p[7] * max(_LEAST_DAYS * stretch, lived / _DAY)


@njit(cache=True, nogil=True)
def _faded(age: float, memory: float) -> Any:
    """The logarithm of how much a series has forgotten by this age: each moment forgets at the rate
    of the memory at that age."""
    least = memory * _FADING_DAYS / _MEMORY_DAYS
    if age < least:
        return age / least
    if age < memory:
        return 1.0 + np.log(age / least)
    return 1.0 + np.log(memory / least) + (age - memory) / memory


@njit(cache=True, nogil=True)
def _far(p: Any) -> Any:
    """The score of _FAR times the oddness of the policy's threshold."""
    return 1.0 - (1.0 - p[0]) ** _FAR


@njit(cache=True, nogil=True)
def _threshold(s: Any, allowed: float, p: Any, rungs: Any) -> Any:
    """The lowest threshold that had no more onsets than ``allowed``; inf: none."""
    found = np.inf
    if s[COUNT_OWN] <= allowed:
        found = p[0]
    else:
        for j in range(_RUNG_COUNT):
            if rungs[j] > p[0] and s[COUNT_RUNG + j] <= allowed:
                found = rungs[j]
                break
    if s[COUNT_TOLD] + 1.0 > _CEILING * allowed:
        found = max(found, _far(p))
    return found


@njit(cache=True, nogil=True)
def _reseed(s: Any, p: Any, rungs: Any) -> None:
    """A policy of another threshold: begin with the counts of the highest rung not above it."""
    if s[COUNTED_FOR] != p[0]:
        if s[COUNTED_FOR] > 0.0:
            s[COUNT_OWN] = s[COUNT_RUNG]
            s[LAST_OWN] = s[LAST_RUNG]
            for j in range(1, _RUNG_COUNT):
                if rungs[j] <= p[0]:
                    s[COUNT_OWN] = s[COUNT_RUNG + j]
                    s[LAST_OWN] = s[LAST_RUNG + j]
        s[COUNTED_FOR] = p[0]


@njit(cache=True, nogil=True)
def _ceiling(s: Any, p: Any) -> Any:
    """What a count may grow to; without a limit, anything."""
    allowed = _forget(s, s[LAST_TIME], p)
    return _CEILING * allowed if p[7] > 0.0 else np.inf


@njit(cache=True, nogil=True)
def _count(s: Any, score: float, count: float, quiet: float, p: Any, rungs: Any) -> int:
    """Count an event the policy speaks of at each rung it reaches; WOULD_OPEN if at its own."""
    ceiling = -1.0
    marks = 0
    if score >= p[0]:
        _reseed(s, p, rungs)
        if count - s[LAST_OWN] > quiet:
            ceiling = _ceiling(s, p)
            s[COUNT_OWN] = min(s[COUNT_OWN] + 1.0, ceiling)
            marks = WOULD_OPEN
        s[LAST_OWN] = count
    for j in range(_RUNG_COUNT):
        if score < rungs[j]:
            break
        if count - s[LAST_RUNG + j] > quiet:
            if ceiling < 0.0:
                ceiling = _ceiling(s, p)
            s[COUNT_RUNG + j] = min(s[COUNT_RUNG + j] + 1.0, ceiling)
        s[LAST_RUNG + j] = count
    return marks


@njit(cache=True, nogil=True)
def _advance(
    state: Any,
    slot: Any,
    time_us: Any,
    offset: Any,
    value: Any,
    score: Any,
    expected: Any,
    policy: Any,
    policies: Any,
    levels: Any,
    rungs: Any,
    quiet_events: Any,
    max_gap: float,
    change: Any,
    severity: Any,
    sequence: Any,
    onset_offset: Any,
    threshold: Any,
    level_mask: Any,
    late: Any,
    context: Any,
    context_at: Any,
    segments: Any,
    segments_at: Any,
    closed: Any,
    closed_at: Any,
) -> tuple[int, int, int]:
    k = 0
    m = 0
    c = 0
    at_slot, s = -1, state[0]
    at_policy, p = -1, policies[0]
    for i in range(len(slot)):
        if slot[i] != at_slot:  # a view for each event would cost more than its arithmetic
            at_slot = slot[i]
            s = state[at_slot]
        if policy[i] != at_policy:
            at_policy = policy[i]
            p = policies[at_policy]
        t = float(time_us[i])
        x = value[i]
        o = score[i]
        quiet_limit = quiet_events[i]
        marks = 0
        count = s[EVENTS] + 1.0
        s[EVENTS] = count
        if count == 1.0:
            s[FIRST_TIME] = t
        if t < s[WATERMARK]:
            late[i] = True
        else:
            s[WATERMARK] = t
        # from the newest event on: a late one neither makes a gap nor ends one
        gap = t - s[LAST_TIME]
        s[LAST_TIME] = max(s[LAST_TIME], t)
        s[LAST_OFFSET] = float(offset[i])
        at = np.int64(s[RING_AT])
        s[RING + at] = t
        s[RING + RING_SIZE + at] = x
        s[RING_AT] = float((at + 1) % RING_SIZE)

        if s[OPEN] == 1.0 and gap > max_gap:
            s[OPEN] = 0.0
            s[SEQUENCE] += 1.0
            closed[c, 0] = slot[i]
            closed[c, 1:] = s[EPISODE_FROM:EPISODE_TO]
            closed_at[c] = i
            c += 1
        if gap > max_gap:
            # would-be episodes end there as well
            s[LAST_OVER : LAST_OVER + len(levels)] = _LONG_AGO
            s[LAST_OWN:COUNT_TOLD] = _LONG_AGO

        rank = 0
        counts = False  # among the onsets
        inside = False
        if o >= levels[0] or o >= p[0]:
            counts = _meant(x, expected[i, 1], p)
        if _over(o, x, expected[i, 1], p):
            rank = _severity(o, p)
            severity[i] = rank
            if s[OPEN] == 1.0:
                inside = o >= s[RAISED_TO] or p[7] == 0.0
            elif p[7] == 0.0:
                inside = True
                s[QUIET_NOW] = 0.0
                s[RAISED_TO] = 0.0
            else:
                _reseed(s, p, rungs)
                asked = _threshold(s, _forget(s, s[LAST_TIME], p), p, rungs)
                s[QUIET_NOW] = min(asked, 1.0) if asked > p[0] else 0.0
                if o >= asked:
                    inside = True
                elif o >= _far(p) and s[LAST_TIME] - s[LAST_RAISED] >= _DAY / p[7]:
                    inside = True
                    asked = _far(p)
                s[RAISED_TO] = asked if asked > p[0] else 0.0
        if inside:
            if s[OPEN] == 0.0:
                if p[7] > 0.0:
                    s[COUNT_TOLD] = min(s[COUNT_TOLD] + 1.0, _ceiling(s, p))
                s[LAST_RAISED] = s[LAST_TIME]
                s[OPEN] = 1.0
                s[SEQUENCE] = 0.0
                s[ONSET_OFFSET] = float(offset[i])
                s[ONSET_TIME] = t
                s[END_TIME] = t
                s[COUNT] = 0.0
                s[PEAK_SCORE] = -1.0
                s[SEVERITY] = float(rank)
                change[i] = ONSET
                for j in range(RING_SIZE):
                    source = np.int64(s[RING_AT]) + j
                    if source >= RING_SIZE:
                        source -= RING_SIZE
                    context[k, 0, j] = s[RING + source]
                    context[k, 1, j] = s[RING + RING_SIZE + source]
                context_at[k] = i
                k += 1
            elif rank > s[SEVERITY]:
                s[SEVERITY] = float(rank)
                s[SEQUENCE] += 1.0
                change[i] = RISE
            else:
                change[i] = EXTEND
            threshold[i] = max(p[0], s[RAISED_TO])
            sequence[i] = np.int32(s[SEQUENCE])
            onset_offset[i] = np.int64(s[ONSET_OFFSET])
            s[QUIET] = 0.0
            s[COUNT] += 1.0
            s[END_TIME] = max(s[END_TIME], t)
            s[END_OFFSET] = float(offset[i])
            if o > s[PEAK_SCORE]:
                s[PEAK_SCORE] = o
                s[PEAK_VALUE] = x
                s[PEAK_TIME] = t
            s[EPISODE_DIRTY] = 1.0
        elif s[OPEN] == 1.0:
            s[QUIET] += 1.0
            if s[QUIET] >= quiet_limit:
                s[OPEN] = 0.0
                s[SEQUENCE] += 1.0
                closed[c, 0] = slot[i]
                closed[c, 1:] = s[EPISODE_FROM:EPISODE_TO]
                closed_at[c] = i
                c += 1

        if counts:
            marks = _count(s, o, count, quiet_limit, p, rungs)
            if marks and s[OPEN] == 0.0:
                marks |= HELD_BACK
                s[HELD] += 1.0

        minute = np.floor(t / 60_000_000.0)
        if minute != s[MINUTE]:
            if s[MINUTE] >= 0.0:
                segments[m, 0] = slot[i]
                segments[m, 1:] = s[SEGMENT_FROM:SEGMENT_TO]
                segments_at[m] = i
                m += 1
            if s[QUIET_NOW] > 0.0 and rank == 0:
                asked = p[0]
                if p[7] > 0.0:
                    asked = _threshold(s, _forget(s, s[LAST_TIME], p), p, rungs)
                s[QUIET_NOW] = min(asked, 1.0) if asked > p[0] else 0.0
            s[SEGMENT_FROM:SEGMENT_TO] = 0.0
            s[MINUTE] = minute
            s[FIRST_OFFSET] = float(offset[i])
            s[R_MIN] = x
            s[R_MAX] = x
            s[R_MAX_SCORE] = np.nan
        s[R_COUNT] += 1.0
        s[R_SUM] += x
        s[R_LAST] = x
        s[R_MIN] = min(s[R_MIN], x)
        s[R_MAX] = max(s[R_MAX], x)
        s[R_LOW] = expected[i, 0]
        s[R_MID] = expected[i, 1]
        s[R_HIGH] = expected[i, 2]
        s[ROLLUP_DIRTY] = 1.0
        if o == o:
            s[R_SCORED] += 1.0
            if not s[R_MAX_SCORE] >= o:
                s[R_MAX_SCORE] = o
            mask = 0
            for level in range(len(levels)):
                if o < levels[level]:
                    break
                s[R_SCORES + level] += 1.0
                if count - s[LAST_OVER + level] > quiet_limit:
                    s[R_ONSETS + level] += 1.0
                    mask |= 1 << level
                s[LAST_OVER + level] = count
            level_mask[i] = mask | marks
    return k, m, c
