"""The online detector's vote, seen against how far the series' own tails reach.

Novelty asks whether a value was seen before, not how rare it is: a series with heavy tails, or one
that comes in bursts, goes on reaching values it never had. Each series keeps logarithmic counts of
its deviations, and an extreme that these counts lead one to expect alarms nobody.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detection.base import FloatArray, IntArray, SeriesOutput
from detection.detectors.jit import kernel
from detection.ordering import by_slot
from detection.state import StateComponent

NAME = "tails"

BINS = 32  # four to each doubling: eight doublings below the largest
SIDES = 5  # value above and below its mean, forecast's error above and below 0, scatter
SEEN, EVENTS, MEAN, QUIET, SKIPPED, TOPS = 0, 1, 2, 3, 4, 5
COUNTS = TOPS + SIDES
WIDTH = COUNTS + SIDES * BINS

MEMORY = 20_000.0  # events; then all counts are halved
RATE = 0.002  # of the mean, each event
LEARN_FROM, JUDGE_FROM, SCATTER_FROM = 30, 150, 500
QUIET_EVENTS = 80.0  # without alarm, until what is seen is learnt again
RELEARN_EVENTS = 500.0  # passed over in a row: what lasts that long is learnt
PER = 10_000.0
EXPECTED = 1.0  # in 10,000 events: what is expected more often is no alarm
OUTER = (
    100.0  # in 10,000 events: the outer hundredth is the tail, nothing is said of what is inside
)
HEAVY = 0.59  # 2^(−3/4): counts of one bin to those of the last, for a tail that falls as x^−3
PULL = 3.0  # events that this counts for, where there are few
UNSEEN = 2_000.0  # events without an extreme, as if seen: a few of a young series prove nothing
SETTLED = 1e-12  # steps of a fit so small, and parts of a sum, change nothing
BEND = 0.3  # usual deviation of the tail's bend, in logarithms of counts a bin
SCATTER_GAIN, AGREE, LIFTED = 0.85, 2.0, 1.25
LARGEST = 1e150
EMPTY = -1e9
RETURNED = 6  # the reason of a known fault's own onset


def component() -> StateComponent:
    """The declaration of this module's part of a series' state."""
    initial = np.zeros(WIDTH)
    initial[QUIET] = QUIET_EVENTS
    initial[TOPS:COUNTS] = EMPTY
    return StateComponent(NAME, 1, initial)


def judged(
    state: FloatArray,
    slot: IntArray,
    value: FloatArray,
    oddness: FloatArray,
    out: SeriesOutput,
) -> FloatArray:
    """The online detector's oddness float64[n] in the light of the series' tails; moves ``state``.

    `oddness` float64[n] and `out` are what the detector said of the events, `value` float64[n] and
    `slot` int64[n] the events; only `state` [capacity, WIDTH] is changed. nan stays nan.

    **Counts.** Of each event the value's deviation from its mean (rate 0.002) and from the middle
    of the expected band are counted by sign in bins of a quarter of a doubling, and so is the
    scatter, exp of the feature `spread`. An event is judged before it is counted. Nothing is
    counted within 80 events of an alarm, unless that has lasted for 500 events; an alarm that is
    taken back here counts. At 20,000 events all counts are halved.

    **Rarity** of a deviation in bin b: how many events as large are to be expected in 10,000. The
    bins b−4, b−3, b−2, from 0.4 to 0.8 of its size, say how the tail falls there, and are continued
    to b and beyond. What came at the same size before does not count, so a fault that comes back
    is as rare as the first time; what has events at all sizes up to its own is part of a tail.
    Peaks over a threshold (Davison & Smith 1990; of streams: Siffer et al. 2017), with a threshold
    that follows the event.

    **An expected extreme.** Where a new value, a residual or a known value's return alarms, both
    deviations lie in the outer hundredth and both are expected more than once in 10,000 events, p
    being the smaller share: o becomes the larger of −log₁₀(p)/4, as for stored models, and what the
    detector's other tests say. A known value that goes on after its return is one of those. The
    tail is continued as a power law by the largest likelihood, drawn to x⁻³ by three events' worth,
    and 2,000 events without an extreme are added to those seen: in doubt it alarms.

    **Scatter.** Where the scatter is rarer than its own tail says, half of the alarm level is
    enough: o is at least min(0.85 · −log₁₀(p)/4, 2·o, 1.25). Here the tail may bend, as that of a
    mean does (log-quadratic, Poisson counts).

    Raises:
        IndexError: a slot outside `state`.
    """
    if len(slot) and (slot.min() < 0 or slot.max() >= state.shape[0]):
        raise IndexError("slot outside the state")
    found = np.empty(len(slot))
    _judge(
        state,
        slot,
        value,
        oddness,
        out.reason,
        out.features,
        out.expected,
        out.tests,
        by_slot(slot, len(state)),
        found,
    )
    return found


@kernel
def _bin(size: float) -> float:
    """Number of the bin of a size > 0, four to each doubling."""
    part, power = math.frexp(size)
    number = 4.0 * power
    if part >= 0.8408964152537145:
        return number + 3.0
    if part >= 0.7071067811865476:
        return number + 2.0
    if part >= 0.5946035575013605:
        return number + 1.0
    return number


@kernel
def _count(row: FloatArray, side: int, number: float) -> None:
    first = COUNTS + side * BINS  # of the largest bin; smaller ones follow
    top = row[TOPS + side]
    if number > top:
        up = int(min(number - top, float(BINS)))
        for j in range(BINS - 1, -1, -1):
            row[first + j] = row[first + j - up] if j >= up else 0.0
        row[TOPS + side] = top = number
    if top - number < BINS:
        row[first + int(top - number)] += 1.0


@kernel
def _below(row: FloatArray, side: int, number: float, back: int) -> float:
    """Events counted in the bin `back` below this one."""
    place = row[TOPS + side] - number + back
    if place < 0.0 or place >= BINS:
        return 0.0
    return float(row[COUNTS + side * BINS + int(place)])


@kernel
def _straight(row: FloatArray, side: int, number: float) -> float:
    """Events in 10,000 as large as this, by a power law; of a young series too few."""
    a, b, c = (
        _below(row, side, number, 4),
        _below(row, side, number, 3),
        _below(row, side, number, 2),
    )
    total = a + b + c
    if total == 0.0:
        return 0.0
    share = PULL / (1.0 + HEAVY + HEAVY * HEAVY)
    a, b, c = a + share, b + share * HEAVY, c + share * HEAVY * HEAVY
    mean = (b + 2.0 * c) / (a + b + c)
    # the ratio r of a bin's count to the last one's: (r + 2r²) / (1 + r + r²) = mean
    p, q = 2.0 - mean, 1.0 - mean
    r = min(0.9, (math.sqrt(q * q + 4.0 * p * mean) - q) / (2.0 * p))
    return float(PER / (row[SEEN] + UNSEEN) * total * r**4 / (1.0 + r + r * r) / (1.0 - r))


@kernel
def _bent(row: FloatArray, side: int, number: float) -> float:
    """The same by counts exp(A + B·j + Q·j²), Q ≤ 0: Newton's steps to the most likely ones."""
    total = 0.0
    for back in range(2, 5):
        total += _below(row, side, number, back)
    if total == 0.0:
        return 0.0
    start = math.log(HEAVY)
    stiff = 1.0 / (BEND * BEND)
    level, slope, bend = math.log(total / 3.0), start, 0.0
    for _ in range(25):
        g0, g1, g2 = 0.0, start - slope, -bend * stiff
        h00, h01, h02, h11, h12, h22 = 1e-9, 0.0, 0.0, 1.0, 0.0, stiff
        for j in range(3):
            t = j - 1.0
            usual = math.exp(min(50.0, level + slope * t + bend * t * t))
            missed = _below(row, side, number, 4 - j) - usual
            g0 += missed
            g1 += missed * t
            g2 += missed * t * t
            h00 += usual
            h01 += usual * t
            h02 += usual * t * t
            h11 += usual * t * t
            h12 += usual * t * t * t
            h22 += usual * t * t * t * t
        c0, c1, c2 = h11 * h22 - h12 * h12, h01 * h22 - h12 * h02, h01 * h12 - h11 * h02
        whole = h00 * c0 - h01 * c1 + h02 * c2
        d0 = (g0 * c0 - h01 * (g1 * h22 - h12 * g2) + h02 * (g1 * h12 - h11 * g2)) / whole
        d1 = (h00 * (g1 * h22 - g2 * h12) - g0 * c1 + h02 * (h01 * g2 - g1 * h02)) / whole
        d2 = (h00 * (h11 * g2 - h12 * g1) - h01 * (h01 * g2 - g1 * h02) + g0 * c2) / whole
        level += max(-1.0, min(1.0, d0))
        slope += max(-1.0, min(1.0, d1))
        bend = min(0.0, bend + max(-1.0, min(1.0, d2)))
        if max(abs(d0), abs(d1), abs(d2)) < SETTLED:
            break
    slope = min(slope, -0.1)
    out = 0.0
    for j in range(3, 43):
        more = math.exp(level + slope * j + bend * j * j)
        out += more
        if more < SETTLED * out:  # each is smaller than the one before
            break
    return float(PER / row[SEEN] * out)


@kernel
def _odd(expected: float) -> float:
    """Oddness of what is expected so often in 10,000 events: 1 at once."""
    return -math.log10(max(1e-44, min(1.0, expected / PER))) / 4.0


@kernel
def _judge(
    state: FloatArray,
    slot: IntArray,
    value: FloatArray,
    oddness: FloatArray,
    reason: NDArray[np.int8],
    features: FloatArray,
    expected: FloatArray,
    tests: FloatArray,
    order: IntArray,
    found: FloatArray,
) -> None:
    last, row = -1, state[0]
    for at in range(order.shape[0]):
        i = order[at]
        if slot[i] != last:  # a view for each event would cost more than its arithmetic
            last = slot[i]
            row = state[last]
        x, o = value[i], oddness[i]
        found[i] = o
        if not abs(x) <= LARGEST:
            continue
        count = row[EVENTS]
        row[EVENTS] = count + 1.0
        if count == 0.0:
            row[MEAN] = x
        off = x - row[MEAN]
        row[MEAN] += (RATE if count >= 1.0 / RATE else 1.0 / (count + 1.0)) * off
        middle = expected[i, 1]
        error = x - middle if abs(middle) <= LARGEST else 0.0
        side0, side1 = (0 if off > 0.0 else 1), (2 if error > 0.0 else 3)
        bin0 = _bin(abs(off)) if off != 0.0 else EMPTY
        bin1 = _bin(abs(error)) if error != 0.0 else EMPTY
        bin2 = math.floor(features[i, 3] * 4.0 / math.log(2.0))

        known = o == o
        if known and o >= 1.0 and row[SEEN] >= JUDGE_FROM:
            of_value = 0.0 if off == 0.0 else _straight(row, side0, bin0)
            of_error = 0.0 if error == 0.0 else _straight(row, side1, bin1)
            rarest = min(of_value, of_error)
            if rarest > EXPECTED and max(of_value, of_error) < OUTER:
                strongest = max(
                    features[i, 5],
                    features[i, 6],
                    features[i, 7],
                    features[i, 8],
                    tests[i, 0],
                    tests[i, 1],
                )
                others = max(features[i, 6], features[i, 7], features[i, 8], tests[i, 1])
                if reason[i] != RETURNED:
                    others *= min(1.0, o / strongest) if strongest > 0.0 else 1.0
                    others = max(others, tests[i, 2])
                found[i] = min(o, max(others, _odd(rarest)))
        # of a bin among the usual ones the fit would say nothing
        rare = bin2 > row[TOPS + 4] - 3.0 and count >= SCATTER_FROM and row[SEEN] >= JUDGE_FROM
        if known and AGREE * o >= 1.0 and rare:
            scatter = SCATTER_GAIN * _odd(_bent(row, 4, bin2))
            found[i] = max(found[i], min(scatter, max(o, min(AGREE * o, LIFTED))))

        row[QUIET] = 0.0 if known and found[i] >= 1.0 else row[QUIET] + 1.0
        if count < LEARN_FROM:
            continue
        if row[QUIET] < QUIET_EVENTS and row[SKIPPED] < RELEARN_EVENTS:
            row[SKIPPED] += 1.0
            continue
        if row[QUIET] >= QUIET_EVENTS:
            row[SKIPPED] = 0.0
        if off != 0.0:
            _count(row, side0, bin0)
        if error != 0.0:
            _count(row, side1, bin1)
        _count(row, 4, bin2)
        row[SEEN] += 1.0
        if row[SEEN] >= MEMORY:
            row[SEEN] *= 0.5
            for j in range(COUNTS, WIDTH):
                row[j] *= 0.5
