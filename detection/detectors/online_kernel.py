"""The online detector's arithmetic: one series' state row, one event, no allocation.

The row layout, the constants and all steps live in this one file because numba's disk cache
notices changes of the kernel's own file only.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detection.detectors.jit import kernel

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# --- state row (all float64; counts are exact) ---------------------------------------------------
T, HIGH, LOW, SCALE, E_HIGH, E_LOW, MEAN, SPREAD, FAST_SPREAD, X1, X2, EPOCH, GAP = range(13)
WEIGHTS = 13  # 3: AR(2) and bias
COV = 16  # 6: upper triangle of P
DAY_BIN, DAY_SUM, DAY_COUNT, DAY_ERROR = 22, 23, 24, 25
WEEK_BIN, WEEK_SUM, WEEK_COUNT, WEEK_ERROR, WEEK_UPDATES = 26, 27, 28, 29, 30
PLAIN_ERROR = 31
RING, RING_AT = 32, 44  # 12 seasonal residuals and the next place
ODD_SHARE, HOT_AT, RUN, RUNS, LONGEST, HABIT, ONSET_AT, PEAK = range(45, 53)
SUM2, COUNT2, PREVIOUS2, Z2, SUM3, COUNT3, PREVIOUS3, Z3 = range(53, 61)
SIZE1, SIZE2, SIZE3, SIZE4, FLAGS_LOW, FLAGS_HIGH = range(61, 67)
BOOK = 64
BOOK1 = 72  # each book: centres, then the event number of the last use
BOOK4 = BOOK1 + 2 * BOOK
BOOK2 = BOOK4 + 2 * BOOK  # pairs: first halves, second halves, last use
BOOK3 = BOOK2 + 3 * BOOK
DAY_LEVEL = BOOK3 + 3 * BOOK
WEEK_LEVEL = DAY_LEVEL + 48
DAY_FACTS = WEEK_LEVEL + 168  # (last fault, its count, visits) packed into one exact integer
WEEK_FACTS = DAY_FACTS + 48
WIDTH = WEEK_FACTS + 168

FEATURES = 10
TESTS = 3  # beside those among the features: residual, flat line, a known fault
LEVEL_VALUE, LEVEL_PAIR, LEVEL_BLOCK = 0.039, 0.154, 0.083
LEVEL_RESIDUAL, LEVEL_SEASON = 0.051, 0.25
HOUR, DAY, WEEK = 3600, 86400, 604800
NEVER = -1e9
LARGEST = 1e300  # beyond it sums of a dozen values overflow
_DAYS_OFFSET = 1 << 31


def initial_row() -> FloatArray:
    """The state of a series never seen, float64[WIDTH]."""
    row = np.zeros(WIDTH)
    row[HIGH], row[LOW], row[E_HIGH], row[E_LOW] = -np.inf, np.inf, -np.inf, np.inf
    row[SCALE] = 1.0
    row[WEIGHTS] = 1.0
    row[COV], row[COV + 3], row[COV + 5] = 10.0, 10.0, 10.0
    row[DAY_BIN] = row[WEEK_BIN] = -1.0
    row[RUN], row[PEAK], row[ONSET_AT] = 1.0, 1.0, NEVER
    row[PREVIOUS2] = row[PREVIOUS3] = np.nan
    row[DAY_FACTS:WIDTH] = float((_DAYS_OFFSET - 99) << 8)
    return row


@kernel
def _widen(row: FloatArray, high: int, low: int, value: float) -> float:
    """Decayed range with `value` in it: its width, never 0."""
    top, bottom = max(row[high], value), min(row[low], value)
    shrink = 1e-4 * (top - bottom)
    top -= shrink
    bottom += shrink
    row[high], row[low] = top, bottom
    return float(top - bottom + 1e-9 + 1e-6 * abs(top))


@kernel
def _oldest(row: FloatArray, used: int) -> int:
    best = 0
    for i in range(1, BOOK):
        if row[used + i] < row[used + best]:
            best = i
    return best


@kernel
def _novelty(
    row: FloatArray, base: int, size: int, radius: float, value: float, scale: float
) -> float:
    """Distance of one value to its nearest prototype; then learn it."""
    count = int(row[size])
    best, at = np.inf, 0
    for i in range(count):
        gap = abs(value - row[base + i])
        if gap < best:
            best, at = gap, i
    distance = min(1.0, best / scale) if count > 0 else 0.0
    if count == 0 or distance > radius:
        if count < BOOK:
            at = count
            row[size] = count + 1
        else:
            at = _oldest(row, base + BOOK)
        row[base + at] = value
    else:
        row[base + at] += 0.1 * (value - row[base + at])
    row[base + BOOK + at] = row[T]
    return distance


@kernel
def _pair_novelty(
    row: FloatArray, base: int, size: int, radius: float, first: float, second: float, scale: float
) -> float:
    """The same for a pair of block means, by the mean of the two distances."""
    count = int(row[size])
    best, at = np.inf, 0
    for i in range(count):
        gap = abs(first - row[base + i]) + abs(second - row[base + BOOK + i])
        if gap < best:
            best, at = gap, i
    distance = min(1.0, best / 2 / scale) if count > 0 else 0.0
    if count == 0 or distance > radius:
        if count < BOOK:
            at = count
            row[size] = count + 1
        else:
            at = _oldest(row, base + 2 * BOOK)
        row[base + at], row[base + BOOK + at] = first, second
    else:
        row[base + at] += 0.1 * (first - row[base + at])
        row[base + BOOK + at] += 0.1 * (second - row[base + BOOK + at])
    row[base + 2 * BOOK + at] = row[T]
    return distance


@kernel
def _value_novelty(row: FloatArray, x: float, scale: float, regime: bool) -> tuple[float, float]:
    """(distance to the nearest unflagged prototype, to the nearest of all); then learn x."""
    t = row[T]
    count = int(row[SIZE1])
    flags = (np.int64(row[FLAGS_HIGH]) << 32) | np.int64(row[FLAGS_LOW])
    best, at, best_free, at_free = np.inf, 0, np.inf, -1
    for i in range(count):
        gap = abs(x - row[BOOK1 + i])
        if gap < best:
            best, at = gap, i
        if gap < best_free and (flags >> i) & 1 == 0:
            best_free, at_free = gap, i
    nearest, normal = 0.0, 0.0
    if count > 0:
        nearest = min(1.0, best / scale)
        normal = min(1.0, best_free / scale)
    hot = t >= 700 and not regime and (normal >= 0.13 or (t - row[HOT_AT] <= 20 and normal >= 0.03))
    if count == 0 or nearest > 0.03:
        if count < BOOK:
            at = count
            row[SIZE1] = count + 1
        else:
            at = _oldest(row, BOOK1 + BOOK)
        row[BOOK1 + at] = x
        flagged = hot
    else:
        if normal <= 0.03 and at_free >= 0:
            at = at_free
        row[BOOK1 + at] += 0.1 * (x - row[BOOK1 + at])
        flagged = hot and (flags >> at) & 1 == 1
    row[BOOK1 + BOOK + at] = t
    bit = np.int64(1) << at
    flags = flags | bit if flagged else flags & ~bit
    row[FLAGS_LOW] = float(flags & 0xFFFFFFFF)
    row[FLAGS_HIGH] = float((flags >> 32) & 0xFFFFFFFF)
    return normal, nearest


@kernel
def _blocks(row: FloatArray, x: float, scale: float) -> None:
    """Novelty of pairs of consecutive block means, held between block ends."""
    row[SUM2] += x
    row[COUNT2] += 1
    if row[COUNT2] == 2:
        mean = row[SUM2] / 2
        if not math.isnan(row[PREVIOUS2]):
            row[Z2] = _pair_novelty(row, BOOK2, SIZE2, 0.10, row[PREVIOUS2], mean, scale)
        row[PREVIOUS2], row[SUM2], row[COUNT2] = mean, 0.0, 0.0
    row[SUM3] += x
    row[COUNT3] += 1
    if row[COUNT3] == 12:
        mean = row[SUM3] / 12
        if not math.isnan(row[PREVIOUS3]):
            row[Z3] = _pair_novelty(row, BOOK3, SIZE3, 0.05, row[PREVIOUS3], mean, scale)
        row[PREVIOUS3], row[SUM3], row[COUNT3] = mean, 0.0, 0.0


@kernel
def _forecast(row: FloatArray, x: float) -> tuple[float, float]:
    """(relative residual e, AR forecast in the series' unit); then one robust RLS step."""
    t, mean, scale = row[T], row[MEAN], row[SCALE]
    if t < 2:
        return 0.0, mean
    a, b = (row[X1] - mean) / scale, (row[X2] - mean) / scale
    predicted = row[WEIGHTS] * a + row[WEIGHTS + 1] * b + row[WEIGHTS + 2]
    # A first huge value after a constant would overflow what it is divided by.
    e = min(1e100, max(-1e100, (x - mean) / scale - predicted))
    p = COV
    g0 = row[p] * a + row[p + 1] * b + row[p + 2]
    g1 = row[p + 1] * a + row[p + 3] * b + row[p + 4]
    g2 = row[p + 2] * a + row[p + 4] * b + row[p + 5]
    den = 0.999 + (a * g0 + b * g1 + g2)
    limit = 5.0 * row[SPREAD] + 0.01
    clipped = max(-limit, min(limit, e))
    row[WEIGHTS] += g0 / den * clipped
    row[WEIGHTS + 1] += g1 / den * clipped
    row[WEIGHTS + 2] += g2 / den * clipped
    row[p] = (row[p] - g0 * g0 / den) / 0.999
    row[p + 1] = (row[p + 1] - g0 * g1 / den) / 0.999
    row[p + 2] = (row[p + 2] - g0 * g2 / den) / 0.999
    row[p + 3] = (row[p + 3] - g1 * g1 / den) / 0.999
    row[p + 4] = (row[p + 4] - g1 * g2 / den) / 0.999
    row[p + 5] = (row[p + 5] - g2 * g2 / den) / 0.999
    if row[p] + row[p + 3] + row[p + 5] > 1e4:
        for i in range(p, p + 6):
            row[i] *= 0.5
    rate = max(0.01, 1.0 / (t + 1))
    row[SPREAD] += rate * (min(abs(e), limit) - row[SPREAD])
    row[FAST_SPREAD] += max(0.1, rate) * (min(abs(e), limit) - row[FAST_SPREAD])
    return e, mean + scale * predicted


@kernel
def _visit(
    row: FloatArray,
    bin_at: int,
    levels: int,
    facts: int,
    now: int,
    x: float,
    scale: float,
    week: bool,
) -> tuple[float, bool, float]:
    """(seasonal residual, known, level) of the present bin; it is learnt when left."""
    rate, free = (0.2, 2) if week else (0.1, 3)
    left = int(row[bin_at])
    if now != left:
        if left >= 0:
            packed = np.int64(row[facts + left])
            visits = (packed & 15) + 1
            step = row[bin_at + 1] / row[bin_at + 2] - row[levels + left]
            if visits > free:
                limit = 6.0 * row[bin_at + 3] * scale
                step = max(-limit, min(limit, step))
            row[levels + left] += max(rate, 1.0 / visits) * step
            if visits <= 15:  # the rate is constant long before
                row[facts + left] = float(packed + 1)
        row[bin_at], row[bin_at + 1], row[bin_at + 2] = now, 0.0, 0.0
    row[bin_at + 1] += x
    row[bin_at + 2] += 1
    level = row[levels + now]
    if np.int64(row[facts + now]) & 15 < 2:
        return 0.0, False, level
    r = (x - level) / scale
    error = row[bin_at + 3]
    row[bin_at + 3] = error + 0.003 * (min(abs(r), 5.0 * error + 0.02) - error)
    return r, True, level


@kernel
def _season(
    row: FloatArray, day_bin: int, week_bin: int, x: float, scale: float
) -> tuple[float, float, float, float, float]:
    """(z5, residual, skill, level, error) of the profile in use; skill 0 where there is none."""
    r, known, level = _visit(row, DAY_BIN, DAY_LEVEL, DAY_FACTS, day_bin, x, scale, False)
    error = row[DAY_ERROR]
    if known:
        plain = abs(x - row[MEAN]) / scale
        row[PLAIN_ERROR] += 0.003 * (plain - row[PLAIN_ERROR])
    rw, known_week, level_week = _visit(
        row, WEEK_BIN, WEEK_LEVEL, WEEK_FACTS, week_bin, x, scale, True
    )
    if known_week:
        row[WEEK_UPDATES] += 1
    if row[WEEK_UPDATES] > 300 and row[WEEK_ERROR] < error:
        r, known, level, error = rw, known_week, level_week, row[WEEK_ERROR]
    if known:
        at = int(row[RING_AT])
        row[RING + at] = r
        row[RING_AT] = at + 1 if at < 11 else 0
    skill = 1.0 - (error + 1e-4) / (row[PLAIN_ERROR] + 1e-4)
    if skill <= 0.2:
        return 0.0, r, 0.0, level, error
    total = 0.0
    for i in range(12):
        total += row[RING + i]
    return abs(total / 12) * skill, r, skill if known else 0.0, level, error


@kernel
def _flat_line(row: FloatArray, x: float, scale: float, regime: bool) -> float:
    """z6: the run of equal values against the longest usual one."""
    t = row[T]
    if t > 0:
        if abs(x - row[X1]) <= 1e-6 * scale:
            row[RUN] += 1
        else:
            if t < 700 or row[RUN] < 8 + 2 * row[LONGEST] or regime:
                row[LONGEST] = max(row[LONGEST], row[RUN])
            row[RUNS] += 1
            row[RUN] = 1.0
    row[LONGEST] -= 1e-4 * (row[LONGEST] - 1)
    return row[RUN] / (8 + 2 * row[LONGEST]) if row[RUNS] >= 30 else 0.0


@kernel
def _returns(row: FloatArray, at: int, turn: int) -> bool:
    """Whether a fault is usual in this slot of the day or week."""
    packed = np.int64(row[at])
    return bool((packed >> 4) & 15 >= 3 and turn - ((packed >> 8) - _DAYS_OFFSET) <= 1)


@kernel
def _remember_fault(row: FloatArray, facts: int, slots: int, k: int) -> None:
    for near in range(k - 1, k + 2):
        at, turn = facts + near % slots, near // slots
        packed = int(row[at])
        count, last = (packed >> 4) & 15, (packed >> 8) - _DAYS_OFFSET
        if turn - last == 1:
            count = min(count + 1, 9)
        elif turn - last > 1:
            count = 1
        last = max(last, turn)
        row[at] = float(((last + _DAYS_OFFSET) << 8) | (count << 4) | (packed & 15))


@kernel
def _onset(row: FloatArray, o: float, o_a: float, o_k: float) -> int:
    """0 no onset, 1 a new oddness, 2 a known fault that came back."""
    since = row[T] - row[ONSET_AT]
    kind = 0
    if since > 80 or (since > 5 and o >= 3.0 * row[PEAK]):
        if o_a >= 1.0:
            kind = 1
            row[HABIT] += 0.1
        elif o_k >= 1.0 and row[T] - row[HOT_AT] > 20:
            kind = 2
    if kind > 0:
        row[ONSET_AT], row[PEAK] = row[T], max(1.0, o)
    else:
        row[PEAK] = max(row[PEAK], o)
    return kind


@kernel
def release(row: FloatArray, first: int, last: int, values: FloatArray, flat: bool) -> FloatArray:
    """Take an episode's prototypes out of quarantine, and its flat line for usual.

    `first` and `last` are the series' event numbers of the episode, -1 where they are not known;
    `values` float64[m] are values of it, whose prototypes are released wherever they came back.
    A state that has not seen the episode stays as it is. Returns the prototypes that left.
    """
    left = np.empty(BOOK)
    n = 0
    if row[T] <= first:
        return left[:0]
    count = int(row[SIZE1])
    flags = (np.int64(row[FLAGS_HIGH]) << 32) | np.int64(row[FLAGS_LOW])
    for i in range(count):
        used = row[BOOK1 + BOOK + i]
        if (flags >> i) & 1 == 0 or used < first - 20:  # a fault's first events may score less
            continue
        released = first >= 0 and used <= last + 20
        for k in range(values.shape[0]):
            released = released or abs(row[BOOK1 + i] - values[k]) <= 0.03 * row[SCALE]
        if released:
            flags &= ~(np.int64(1) << i)
            left[n] = row[BOOK1 + i]
            n += 1
    row[FLAGS_LOW] = float(flags & 0xFFFFFFFF)
    row[FLAGS_HIGH] = float((flags >> 32) & 0xFFFFFFFF)
    if flat and first >= 0:
        # It was flagged once it was 8 + 2H long, and went on for the whole episode.
        row[LONGEST] = max(row[LONGEST], row[RUN], 8 + 2 * row[LONGEST] + (last - first))
    return left[:n]


@kernel
def _clip(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))


@kernel
def step(
    row: FloatArray,
    epoch: int,
    x: float,
    features: FloatArray,
    expected: FloatArray,
    tests: FloatArray,
    i: int,
) -> tuple[float, int, bool]:
    """One event: (oddness, reason, onset); fills row i of features [n, FEATURES], expected [n, 3],
    tests [n, TESTS]."""
    t = row[T]
    before = row[SCALE]
    scale = _widen(row, HIGH, LOW, x)
    gap = 0.0
    if t > 0:
        gap = float(min(max(epoch - int(row[EPOCH]), 0), WEEK))
        row[GAP] += max(0.01, 1.0 / t) * (gap - row[GAP])
    else:
        row[MEAN] = x
        gap = row[GAP]
    k_day, k_week = epoch // 1800, epoch // HOUR
    usual = (row[GAP] <= 6 * HOUR and _returns(row, DAY_FACTS + k_day % 48, k_day // 48)) or (
        row[GAP] <= DAY and _returns(row, WEEK_FACTS + k_week % 168, k_week // 168)
    )
    regime = row[ODD_SHARE] > 0.3
    spread = row[SPREAD]
    normal, nearest = _value_novelty(row, x, scale, regime)
    _blocks(row, x, scale)
    z1, z1n, z2, z3 = 0.0, 0.0, 0.0, 0.0
    if t >= 10:
        z1, z1n = max(0.0, nearest - spread), max(0.0, normal - spread)
        z2, z3 = row[Z2], row[Z3]
    e, forecast = _forecast(row, x)
    counted = 0.0 if t <= 20 else e
    z4 = _novelty(row, BOOK4, SIZE4, 0.03, counted, _widen(row, E_HIGH, E_LOW, counted))
    if t < 50:
        z4 = 0.0
    z5, r, skill, level, error = _season(row, k_day % 48, k_week % 168, x, scale)
    row[MEAN] += max(0.002, 1.0 / (t + 1)) * (x - row[MEAN])
    z6 = _flat_line(row, x, scale, regime)

    m, reason = z1 / LEVEL_VALUE, 0
    if z2 / LEVEL_PAIR > m:
        m, reason = z2 / LEVEL_PAIR, 1
    if z3 / LEVEL_BLOCK > m:
        m, reason = z3 / LEVEL_BLOCK, 2
    if z4 / LEVEL_RESIDUAL > m:
        m, reason = z4 / LEVEL_RESIDUAL, 3
    if z5 / LEVEL_SEASON > m:
        m, reason = z5 / LEVEL_SEASON, 4
    if not usual and z6 > m:
        m, reason = z6, 5
    mn = max(m, z1n / LEVEL_VALUE, z6)
    o_a = m * math.exp(-row[HABIT])
    o, began = o_a, 0
    if t >= 150:
        o_k = mn if mn > m and not usual else 0.0
        o = max(o_a, o_k)
        row[ODD_SHARE] += 0.000714 * ((1.0 if mn >= 1.0 else 0.0) - row[ODD_SHARE])
        if mn >= 1.0:
            _remember_fault(row, DAY_FACTS, 48, k_day)
            _remember_fault(row, WEEK_FACTS, 168, k_week)
        began = _onset(row, o, o_a, o_k)
        if began == 2:
            reason = 6
    if normal >= 0.13:
        row[HOT_AT] = t
    row[HABIT] = min(0.4, max(0.0, row[HABIT] - 0.00025))

    # What was expected of x, from before it: see features.py for the formulas.
    share = spread / (spread + error + 1e-12) if skill > 0.0 else 0.0
    middle = forecast + share * (level - forecast)
    half = before * (LEVEL_VALUE + 4.0 * ((1.0 - share) * spread + share * error))
    expected[i, 0], expected[i, 1], expected[i, 2] = middle - half, middle, middle + half

    features[i, 0] = _clip(e / (spread + 1e-3), 10.0)
    features[i, 1] = _clip((x - row[X1]) / scale, 1.0) if t > 0 else 0.0
    features[i, 2] = _clip((2.0 * x - row[HIGH] - row[LOW]) / scale, 1.0)
    features[i, 3] = _clip(math.log((row[FAST_SPREAD] + 1e-3) / (row[SPREAD] + 1e-3)), 5.0)
    features[i, 4] = _clip(r / (error + 1e-2), 10.0) if skill > 0.0 else 0.0
    features[i, 5] = min(z1 / LEVEL_VALUE, 10.0)
    features[i, 6] = min(z2 / LEVEL_PAIR, 10.0)
    features[i, 7] = min(z3 / LEVEL_BLOCK, 10.0)
    features[i, 8] = min(z5 / LEVEL_SEASON, 10.0)
    features[i, 9] = _clip(math.log((gap + 1.0) / (row[GAP] + 1.0)), 5.0)

    tests[i, 0] = z4 / LEVEL_RESIDUAL
    tests[i, 1] = 0.0 if usual else z6
    tests[i, 2] = z1n / LEVEL_VALUE if t >= 150 and mn > m and not usual else 0.0

    row[SCALE], row[EPOCH] = scale, epoch
    row[X2], row[X1] = row[X1], x
    row[T] = t + 1
    return o, reason, began > 0


@kernel
def run(
    state: FloatArray,
    slot: IntArray,
    epoch: IntArray,
    value: FloatArray,
    oddness: FloatArray,
    reason: NDArray[np.int8],
    onset: NDArray[np.bool_],
    features: FloatArray,
    expected: FloatArray,
    seen: IntArray,
    tests: FloatArray,
    order: IntArray,
) -> None:
    """Score a batch in `order`; `seen` is the number of events of the series before this."""
    last, row = -1, state[0]
    for j in range(order.shape[0]):
        i = order[j]
        if slot[i] != last:  # a view for each event would cost more than it seems
            last = slot[i]
            row = state[last]
        seen[i] = int(row[T])
        x = value[i]
        if not abs(x) <= LARGEST:  # also nan: abstain and leave the state alone
            oddness[i], reason[i], onset[i] = np.nan, 0, False
            features[i, :] = 0.0
            expected[i, :] = np.nan
            tests[i, :] = 0.0
            continue
        oddness[i], reason[i], onset[i] = step(row, epoch[i], x, features, expected, tests, i)
