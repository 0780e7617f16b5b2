"""Seasonal: how far a value lies from what is usual at this hour of the day or of the week."""

from __future__ import annotations

import math

import numpy as np

from detection.base import FloatArray, IntArray, ScoringInput
from detection.detectors.jit import kernel
from detection.detectors.statistical import StatisticalDetector
from detection.state import StateComponent

HOUR, DAY, WEEK = 3600, 24, 168  # seconds, hours, hours
# State row. Of the series: events, the level around which the profiles lie, the residuals' mean
# square in all hours and how many hours gave it; mean squares of flat and of drawn hours, of the
# profile of the day and of the week, and how many hours gave these two. Of the hour being seen: its
# number, events, sums of the values, of the residuals from either profile, of squares, of the
# chosen residuals and their squares; how many lay far off, and the hours in a row that mostly did.
SEEN, LEVEL, SPREAD, SPREAD_N, FLAT_ERROR, DRAWN_ERROR, DAY_ERROR, WEEK_ERROR, ERRORS_N = range(9)
NOW, COUNT, SUM, DAY_SUM, WEEK_SUM, FLAT_SQUARES, DRAWN_SQUARES, WEEK_SQUARES = range(9, 17)
USED_SUM, USED_SQUARES, FAR = range(17, 20)
FAR_HOURS = 20
DAY_LEVELS = 21
DAY_SPREADS = DAY_LEVELS + DAY
DAY_EVENTS = DAY_SPREADS + DAY
WEEK_LEVELS = DAY_EVENTS + DAY
VISITS = WEEK_LEVELS + WEEK  # a byte each: 24 of the day, 168 of the week
WIDTH = VISITS + (DAY + WEEK) // 8

TWICE = 2  # a bin judges once it was seen so often
COMPARED = 24  # hours that both profiles were tried in before the week's may be chosen
FOLLOW = 0.2  # share of a visit in its bin
LEVEL_FOLLOW = 1.0 / DAY
SPREAD_FOLLOW = 1.0 / (2 * DAY)
ERROR_FOLLOW = 1.0 / (3 * DAY)
POOLED = 10.0  # events of all hours that join an hour's own spread
KNOWN = 200.0  # events after which an hour's own spread weighs no more
CLIP = 3.0  # deviations that a bin learns of one value, unless the level itself has moved
# Deviations that the spread learns: what comes more often than once in 100 events becomes usual.
SQUARE_CLIP = 10.0
SETTLED = 3  # visits of a bin that are learnt in full; hours far off in a row that are a new level
LARGEST = 1e150
MOST = 1e6  # deviations that count


@kernel
def _drawn(row: FloatArray, levels: int, visits: int, size: int, hour: int, part: float) -> float:
    """A profile at `part` of an hour: drawn straight between the middles of visited hours."""
    times = row[VISITS:WIDTH].view(np.uint8)
    at = hour % size
    other = (at - 1) % size if part < 0.5 else (at + 1) % size
    level = float(row[levels + at])
    if times[visits + other] == 0:
        return level
    return level + abs(part - 0.5) * (float(row[levels + other]) - level)


@kernel
def _sigma(row: FloatArray, at: int, tiny: float) -> float:
    """Deviation at an hour of the day: its own, and that of all hours while it knows little."""
    known = row[DAY_EVENTS + at]
    square = (known * row[DAY_SPREADS + at] + POOLED * row[SPREAD]) / (known + POOLED)
    return max(math.sqrt(square), tiny)


@kernel
def _finish_hour(row: FloatArray) -> None:
    """Learn the hour that was seen, now that it is over."""
    count = row[COUNT]
    if count == 0:
        return
    times = row[VISITS:WIDTH].view(np.uint8)
    hour = int(row[NOW])
    day, week = hour % DAY, hour % WEEK
    day_times, week_times = int(times[day]), int(times[DAY + week])
    day_square = 0.0
    if day_times > 0:
        square = row[USED_SQUARES] / count
        share = max(FOLLOW, 1.0 / day_times)
        row[DAY_SPREADS + day] += share * (square - row[DAY_SPREADS + day])
        row[DAY_EVENTS + day] = min(row[DAY_EVENTS + day] + count, KNOWN)
        row[SPREAD_N] += 1.0
        row[SPREAD] += max(SPREAD_FOLLOW, 1.0 / row[SPREAD_N]) * (square - row[SPREAD])
        row[LEVEL] += LEVEL_FOLLOW * row[USED_SUM] / count
        share = max(ERROR_FOLLOW, 1.0 / row[SPREAD_N])
        flat, drawn = row[FLAT_SQUARES] / count, row[DRAWN_SQUARES] / count
        day_square = drawn if row[DRAWN_ERROR] < row[FLAT_ERROR] else flat
        row[FLAT_ERROR] += share * (flat - row[FLAT_ERROR])
        row[DRAWN_ERROR] += share * (drawn - row[DRAWN_ERROR])
        row[DAY_LEVELS + day] += max(FOLLOW, 1.0 / (day_times + 1)) * row[DAY_SUM] / count
    else:
        row[DAY_LEVELS + day] = row[SUM] / count
    if week_times >= TWICE:
        row[ERRORS_N] += 1.0
        share = max(ERROR_FOLLOW, 1.0 / row[ERRORS_N])
        row[DAY_ERROR] += share * (day_square - row[DAY_ERROR])
        row[WEEK_ERROR] += share * (row[WEEK_SQUARES] / count - row[WEEK_ERROR])
    if week_times > 0:
        row[WEEK_LEVELS + week] += max(FOLLOW, 1.0 / (week_times + 1)) * row[WEEK_SUM] / count
    else:
        row[WEEK_LEVELS + week] = row[SUM] / count
    times[day] = min(day_times + 1, 255)
    times[DAY + week] = min(week_times + 1, 255)
    row[FAR_HOURS] = row[FAR_HOURS] + 1.0 if 2.0 * row[FAR] > count else 0.0
    row[COUNT:FAR_HOURS] = 0.0


@kernel
def _run(
    state: FloatArray,
    slot: IntArray,
    epoch_s: IntArray,
    value: FloatArray,
    threshold: float,
    warm_up: int,
    oddness: FloatArray,
) -> None:
    for i in range(slot.shape[0]):
        row = state[slot[i]]
        x = value[i]
        oddness[i] = np.nan
        if not abs(x) <= LARGEST:
            continue
        hour = epoch_s[i] // HOUR
        part = (epoch_s[i] - hour * HOUR) / HOUR
        late = row[SEEN] > 0 and hour < row[NOW] and row[NOW] - hour <= DAY
        if row[SEEN] == 0 or (hour != row[NOW] and not late):
            _finish_hour(row)
            row[NOW] = hour
        row[SEEN] += 1.0
        times = row[VISITS:WIDTH].view(np.uint8)
        day, week = hour % DAY, hour % WEEK
        day_times, week_times = times[day], times[DAY + week]

        residual = 0.0
        flat, drawn, weekly_flat, weekly = 0.0, 0.0, 0.0, 0.0  # residuals
        smooth = row[DRAWN_ERROR] < row[FLAT_ERROR]
        if day_times > 0:
            flat = x - row[LEVEL] - row[DAY_LEVELS + day]
            drawn = x - row[LEVEL] - _drawn(row, DAY_LEVELS, 0, DAY, hour, part)
            residual = drawn if smooth else flat
        if week_times > 0:
            weekly_flat = weekly = x - row[LEVEL] - row[WEEK_LEVELS + week]
            if smooth:
                weekly = x - row[LEVEL] - _drawn(row, WEEK_LEVELS, DAY, WEEK, hour, part)
            better = row[ERRORS_N] >= COMPARED and row[WEEK_ERROR] < row[DAY_ERROR]
            if better and week_times >= TWICE:
                residual = weekly
        expected = x - residual
        far, most, most_squared = False, np.inf, np.inf
        if day_times >= TWICE:
            sigma = _sigma(row, day, 1e-9 + 1e-6 * abs(expected))
            z = abs(residual) / sigma
            if row[SEEN] > warm_up:
                oddness[i] = min(z, MOST) / threshold
            far = z > CLIP
            if day_times >= SETTLED and row[FAR_HOURS] < SETTLED:
                most, most_squared = CLIP * sigma, SQUARE_CLIP * sigma
        if late:
            continue
        row[COUNT] += 1.0
        row[SUM] += x - row[LEVEL]
        row[DAY_SUM] += min(max(flat, -most), most)
        row[USED_SUM] += min(max(residual, -most), most)
        if week_times < TWICE:
            row[WEEK_SUM] += weekly_flat
        else:
            row[WEEK_SUM] += min(max(weekly_flat, -most), most)
        row[FLAT_SQUARES] += min(abs(flat), most_squared) ** 2
        row[DRAWN_SQUARES] += min(abs(drawn), most_squared) ** 2
        row[WEEK_SQUARES] += min(abs(weekly), most_squared) ** 2
        row[USED_SQUARES] += min(abs(residual), most_squared) ** 2
        if far:
            row[FAR] += 1.0


class SeasonalDetector(StatisticalDetector):
    """o = |x − expected| / deviation / threshold, once the hour of the day was seen twice.

    Expected: a level plus a profile, which is flat within an hour or drawn straight between the
    middles of the hours, whichever has missed by less. The day's profile has 24 hours; the week's
    168 takes its place in hours that it has seen twice, once it has been the better one in 24 such
    hours or more. The deviation is the root mean square of the
    residuals at this hour of the day, pooled with all hours while it knows few. An hour is learnt
    when it is over, so it never explains itself: a bin follows its visits by max(0.2, 1/visits),
    the level all hours by 1/24. Of one value a bin learns at most 3 deviations and the spread 10;
    three hours in a row that are mostly far off are a new level and learnt in full. Hours are
    those of the stream's time zone, so a season keeps its clock time over daylight saving. Events
    up to a day older than the newest hour are judged and not learnt.
    """

    name = "seasonal"
    component = StateComponent("seasonal", 1, np.zeros(WIDTH))

    def __init__(self, threshold: float = 3.0, warm_up: int = 30) -> None:
        if not (threshold > 0 and warm_up >= 2):
            raise ValueError("threshold > 0 and warm_up >= 2 are needed")
        self.threshold, self.warm_up = threshold, warm_up

    def fill(self, state: FloatArray, inputs: ScoringInput, oddness: FloatArray) -> None:
        _run(
            state,
            inputs.slot,
            inputs.epoch_s,
            inputs.value,
            float(self.threshold),
            int(self.warm_up),
            oddness,
        )
