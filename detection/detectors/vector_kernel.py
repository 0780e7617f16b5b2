"""The vector detector's kernels: noise, levels, correlation, distance, and when an episode ends.

Sums run in a fixed order over plain loops (no BLAS), so that a score depends on the events of its
series alone. One row of state a series, whose width depends on the number of values k.
"""

from __future__ import annotations

import math

import numpy as np

from detection.base import FloatArray, IntArray
from detection.detectors.jit import kernel

TRAIN = 400  # events that a series is trained on
START = 20  # of them for the first level
BLOCKS = 5  # of the cross-validation
SHRINK = 0.02
PASS = 0.97  # share of a small innovation that is held back: an EWMA of 0.03
NOISES = 3.5  # deviations of the noise that count as a small innovation
LARGEST = 1e150  # its square is still a number; beyond it a value counts as missing
FURTHEST = 1e9  # deviations
SHARES_FROM = 0.5  # oddness
DRIFT_BLOCK = 30  # events

# Columns of a row's head; whole numbers are exact as float64.
SEEN, TRAINED, FILL, Q, MEDIAN, ACTIVE = 0, 1, 2, 3, 4, 5
OPEN, QUIET, LENGTH, MOVED, BLOCK, BLOCK_ODD, WAITS = 6, 7, 8, 9, 10, 11, 12
HEAD = 13
# After it k numbers each of: level, noise bound, mean, deviation (0: takes no part), sum of the
# drift's block, mean of the block before; then the whitening matrix [k, k].
PARTS = 6


def width(k: int) -> int:
    """Numbers in the row of a vector of k values."""
    return HEAD + PARTS * k + k * k


def initial(k: int) -> FloatArray:
    """The row of a series that has seen nothing."""
    return np.zeros(width(k))


@kernel
def _cholesky(a: FloatArray, n: int) -> None:
    """The lower factor of the positive definite a [n, n], in its place."""
    for j in range(n):
        for m in range(j):
            for i in range(j, n):
                a[i, j] -= a[i, m] * a[j, m]
        root = math.sqrt(a[j, j])
        for i in range(j, n):
            a[i, j] /= root


@kernel
def _inverse_root(a: FloatArray, n: int, out: FloatArray) -> None:
    """out = a^(-1/2), symmetric, by Jacobi's rotations (Golub & Van Loan, 8.5); a is destroyed."""
    v = np.zeros((n, n))
    for i in range(n):
        v[i, i] = 1.0
    for _ in range(60):
        off = 0.0
        for p in range(n):
            for q in range(p + 1, n):
                off += a[p, q] * a[p, q]
        if off < 1e-26 * n:
            break
        for p in range(n):
            for q in range(p + 1, n):
                if a[p, q] == 0.0:
                    continue
                theta = (a[q, q] - a[p, p]) / (2.0 * a[p, q])
                t = 1.0 / (abs(theta) + math.sqrt(theta * theta + 1.0))
                if theta < 0.0:
                    t = -t
                c = 1.0 / math.sqrt(t * t + 1.0)
                s = t * c
                for i in range(n):
                    x, y = a[i, p], a[i, q]
                    a[i, p] = c * x - s * y
                    a[i, q] = s * x + c * y
                for i in range(n):
                    x, y = a[p, i], a[q, i]
                    a[p, i] = c * x - s * y
                    a[q, i] = s * x + c * y
                for i in range(n):
                    x, y = v[p, i], v[q, i]
                    v[p, i] = c * x - s * y
                    v[q, i] = s * x + c * y
    for i in range(n):
        for j in range(n):
            out[i, j] = 0.0
    for m in range(n):
        scale = 1.0 / math.sqrt(a[m, m])
        for i in range(n):
            for j in range(n):
                out[i, j] += scale * v[m, i] * v[m, j]


@kernel
def _moments(
    level: FloatArray,
    used: IntArray,
    skip_from: int,
    skip_to: int,
    mean: FloatArray,
    deviation: FloatArray,
) -> None:
    """Mean and deviation (ddof 0) of the columns `used`, but for the rows of one block."""
    rows = level.shape[0]
    count = rows - (skip_to - skip_from)
    for j in range(used.shape[0]):
        total = 0.0
        for i in range(rows):
            if i < skip_from or i >= skip_to:
                total += level[i, used[j]]
        mean[j] = total / count
        square = 0.0
        for i in range(rows):
            if i < skip_from or i >= skip_to:
                d = level[i, used[j]] - mean[j]
                square += d * d
        deviation[j] = math.sqrt(square / count)


@kernel
def _correlation(
    level: FloatArray,
    used: IntArray,
    skip_from: int,
    skip_to: int,
    mean: FloatArray,
    deviation: FloatArray,
    out: FloatArray,
) -> None:
    """0.98 × the correlation matrix + 0.02 × I of the columns `used`."""
    n = used.shape[0]
    rows = level.shape[0]
    count = rows - (skip_to - skip_from)
    z = np.empty(n)
    for a in range(n):
        for b in range(n):
            out[a, b] = 0.0
    for i in range(rows):
        if i >= skip_from and i < skip_to:
            continue
        for a in range(n):
            z[a] = (level[i, used[a]] - mean[a]) / deviation[a]
        for a in range(n):
            for b in range(a + 1):
                out[a, b] += z[a] * z[b]
    for a in range(n):
        for b in range(a):
            out[a, b] = (1.0 - SHRINK) * out[a, b] / count
            out[b, a] = out[a, b]
        out[a, a] = 1.0


@kernel
def _held_out(level: FloatArray, used: IntArray, whole: FloatArray) -> FloatArray:
    """T² of every row, from the moments and correlations of the other four blocks, sorted."""
    n = used.shape[0]
    rows = level.shape[0]
    out = np.empty(rows)
    mean, deviation, d = np.empty(n), np.empty(n), np.empty(n)
    factor = np.empty((n, n))
    for block in range(BLOCKS):
        start, end = block * rows // BLOCKS, (block + 1) * rows // BLOCKS
        _moments(level, used, start, end, mean, deviation)
        for j in range(n):
            # a value that moved in the held-out block only has no deviation in the others
            deviation[j] = max(deviation[j], 1e-3 * whole[j])
        _correlation(level, used, start, end, mean, deviation, factor)
        _cholesky(factor, n)
        for i in range(start, end):
            total = 0.0
            for a in range(n):
                d[a] = (level[i, used[a]] - mean[a]) / deviation[a]
            for a in range(n):
                d[a] /= factor[a, a]
                total += d[a] * d[a]
                for b in range(a + 1, n):
                    d[b] -= factor[b, a] * d[a]
            out[i] = total / n
    return np.sort(out)


@kernel
def _quantile(ordered: FloatArray, share: float) -> float:
    at = share * (ordered.shape[0] - 1)
    low = math.floor(at)
    high = min(low + 1, ordered.shape[0] - 1)
    value: float = ordered[low] + (at - low) * (ordered[high] - ordered[low])
    return value


@kernel
def _noise(x: FloatArray) -> float:
    """min(std(differences)/√2, std) of the numbers in x; differences of neighbours only."""
    count, total = 0, 0.0
    pairs, steps = 0, 0.0
    for i in range(x.shape[0]):
        if x[i] == x[i]:
            count += 1
            total += x[i]
            if i > 0 and x[i - 1] == x[i - 1]:
                pairs += 1
                steps += x[i] - x[i - 1]
    if count == 0:
        return 0.0
    mean, square = total / count, 0.0
    step, step_square = steps / max(pairs, 1), 0.0
    for i in range(x.shape[0]):
        if x[i] == x[i]:
            square += (x[i] - mean) ** 2
            if i > 0 and x[i - 1] == x[i - 1]:
                step_square += (x[i] - x[i - 1] - step) ** 2
    noise = math.sqrt(square / count)
    if pairs > 0:
        noise = min(noise, math.sqrt(step_square / pairs) / math.sqrt(2.0))
    return noise


@kernel
def _first_level(x: FloatArray) -> float:
    """Mean of the numbers among the first 20, else the first number there is, else 0."""
    count, total = 0, 0.0
    for i in range(START):
        if x[i] == x[i]:
            count += 1
            total += x[i]
    if count > 0:
        return total / count
    for i in range(START, x.shape[0]):
        if x[i] == x[i]:
            total = x[i]
            break
    return total


@kernel
def _moved(level: float, x: float, bound: float) -> float:
    """The level after x: small innovations are smoothed, jumps pass, a missing x is none."""
    if x != x:
        return level
    e = x - level
    moved: float = level + (e - PASS * min(max(e, -bound), bound))
    return moved


@kernel
def _train(row: FloatArray, raw: FloatArray) -> bool:
    """Learn from raw [TRAIN, k]; False, and the row stays, where fewer than two values move."""
    k = raw.shape[1]
    bounds = np.empty(k)
    level = np.empty((TRAIN - START, k))
    present = np.zeros(k)
    for j in range(k):
        column = raw[:, j].copy()
        bounds[j] = NOISES * _noise(column)
        y = _first_level(column)
        for i in range(TRAIN):
            if column[i] == column[i]:
                present[j] += 1.0
        for i in range(START, TRAIN):
            y = _moved(y, column[i], bounds[j])
            level[i - START, j] = y
    every = np.arange(k)
    mean, deviation = np.empty(k), np.empty(k)
    _moments(level, every, 0, 0, mean, deviation)
    count = 0
    for j in range(k):
        largest = 0.0
        for i in range(level.shape[0]):
            largest = max(largest, abs(level[i, j]))
        # what rounding leaves of a constant value is no movement
        if 2 * present[j] < TRAIN or not deviation[j] > 1e-9 * largest:
            deviation[j] = 0.0
        else:
            count += 1
    if count < 2:
        return False
    used = np.empty(count, dtype=np.int64)
    n = 0
    for j in range(k):
        if deviation[j] > 0.0:
            used[n] = j
            n += 1
    ordered = _held_out(level, used, deviation[used])
    correlation, root = np.empty((n, n)), np.empty((n, n))
    _correlation(level, used, 0, 0, mean[used], deviation[used], correlation)
    _inverse_root(correlation, n, root)
    row[Q] = max(_quantile(ordered, 0.9), 1e-12)
    row[MEDIAN] = _quantile(ordered, 0.5)
    row[ACTIVE] = n
    row[TRAINED] = 1.0
    row[OPEN] = row[QUIET] = row[LENGTH] = row[MOVED] = 0.0
    row[BLOCK] = row[BLOCK_ODD] = row[WAITS] = 0.0
    for j in range(k):
        row[HEAD + j] = level[TRAIN - START - 1, j]
        row[HEAD + k + j] = bounds[j]
        row[HEAD + 2 * k + j] = mean[j]
        row[HEAD + 3 * k + j] = deviation[j]
        row[HEAD + 4 * k + j] = 0.0
        row[HEAD + 5 * k + j] = 0.0
    whitening = row[HEAD + PARTS * k :]
    for i in range(k * k):
        whitening[i] = 0.0
    for a in range(n):
        for b in range(n):
            whitening[used[a] * k + used[b]] = root[a, b]
    return True


@kernel
def _drift(row: FloatArray, k: int, rate: float) -> None:
    """Let the mean follow levels of a block ago, unless an episode touched either."""
    for j in range(k):
        row[HEAD + 4 * k + j] += row[HEAD + j]
    row[BLOCK] += 1.0
    if row[BLOCK] < DRIFT_BLOCK:
        return
    share = 1.0 - (1.0 - rate) ** DRIFT_BLOCK
    for j in range(k):
        if row[WAITS] == 1.0 and row[BLOCK_ODD] == 0.0:
            row[HEAD + 2 * k + j] += share * (row[HEAD + 5 * k + j] - row[HEAD + 2 * k + j])
        row[HEAD + 5 * k + j] = row[HEAD + 4 * k + j] / DRIFT_BLOCK
        row[HEAD + 4 * k + j] = 0.0
    row[WAITS] = 1.0 - row[BLOCK_ODD]
    row[BLOCK] = 0.0
    row[BLOCK_ODD] = row[OPEN]


@kernel
def _score(row: FloatArray, x: FloatArray, z: FloatArray, w: FloatArray) -> float:
    """Move the levels on by x [k]; T² of the standardised levels z, whose whitened form is w."""
    k = x.shape[0]
    still = True
    for j in range(k):
        row[HEAD + j] = _moved(row[HEAD + j], x[j], row[HEAD + k + j])
        deviation = row[HEAD + 3 * k + j]
        gap = row[HEAD + j] - row[HEAD + 2 * k + j]
        w[j] = 0.0
        z[j] = 0.0
        if deviation > 0.0:
            z[j] = min(max(gap / deviation, -FURTHEST), FURTHEST)
        elif abs(gap) > 1e-6 * abs(row[HEAD + 2 * k + j]):
            still = False
    if not still:
        row[MOVED] += 1.0
    at = HEAD + PARTS * k
    for j in range(k):
        if z[j] != 0.0:
            for i in range(k):
                w[i] += row[at + j * k + i] * z[j]
    total = 0.0
    for i in range(k):
        total += w[i] * w[i]
    t2: float = total / row[ACTIVE]
    return t2


@kernel
def _explain(
    row: FloatArray,
    z: FloatArray,
    w: FloatArray,
    share: FloatArray,
    usual: FloatArray,
    level: FloatArray,
    expected: FloatArray,
) -> None:
    """What each value [k] has to do with the distance of the standardised levels z.

    Its share in it, its usual level, its level, and the level that goes with all other values: the
    conditional mean z − (P z) / diag P in its own unit, P = R⁻¹ = W W, whose product with z is W w.
    """
    k = z.shape[0]
    at = HEAD + PARTS * k
    total = 0.0
    for j in range(k):
        total += w[j] * w[j]
    for j in range(k):
        deviation, mean = row[HEAD + 3 * k + j], row[HEAD + 2 * k + j]
        share[j] = w[j] * w[j] / total if total > 0.0 else 0.0
        usual[j] = mean
        level[j] = row[HEAD + j]
        expected[j] = mean
        own, all_values = 0.0, 0.0
        for i in range(k):
            own += row[at + j * k + i] * row[at + j * k + i]
            all_values += row[at + j * k + i] * w[i]
        if own > 0.0:
            expected[j] = mean + deviation * (z[j] - all_values / own)


@kernel
def run(
    state: FloatArray,
    buffers: FloatArray,
    buffer_of: IntArray,
    at: IntArray,
    x: FloatArray,
    start: int,
    quiet_limit: float,
    relearn: float,
    drift: float,
    distance: FloatArray,
    band: FloatArray,
    oddness: FloatArray,
    standard: FloatArray,
    share: FloatArray,
    usual: FloatArray,
    level: FloatArray,
    expected: FloatArray,
    seen: IntArray,
    explain_from: float,
) -> int:
    """Events start… of x [m, k], each of row `at`; the number of the one that needs a buffer, or m.

    distance √T², band (usual, alarm) of it, oddness, standard [m, k]; share, usual, level and
    expected [m, k] of `_explain` from an oddness of `explain_from` on: nan where there is none;
    seen [m] events of the row before.
    """
    n: int = x.shape[0]
    k = x.shape[1]
    w, clean = np.empty(k), np.empty(k)
    for i in range(start, n):
        row = state[at[i]]
        if row[FILL] >= 0.0 and buffer_of[at[i]] < 0:
            return i
        seen[i] = np.int64(row[SEEN])
        row[SEEN] += 1.0
        for j in range(k):
            clean[j] = x[i, j] if abs(x[i, j]) <= LARGEST else np.nan
        if row[TRAINED] == 1.0:
            t2 = _score(row, clean, standard[i], w)
            alarm = math.exp(3.0) * math.sqrt(row[Q])
            distance[i] = math.sqrt(t2)
            band[i, 0] = math.sqrt(row[MEDIAN])
            band[i, 1] = math.sqrt(alarm)
            o = 0.0
            if t2 > 0.0:
                o = max(0.0, (math.log(t2) - 0.5 * math.log(row[Q])) / 3.0)
            oddness[i] = o
            if o >= explain_from:
                _explain(row, standard[i], w, share[i], usual[i], level[i], expected[i])
            if o >= 1.0:
                if row[OPEN] == 0.0:
                    row[LENGTH] = 0.0
                row[OPEN] = 1.0
                row[QUIET] = 0.0
            elif row[OPEN] == 1.0:
                row[QUIET] += 1.0
                if row[QUIET] >= quiet_limit:
                    row[OPEN] = row[LENGTH] = 0.0
                    row[FILL] = -1.0  # what was being learnt anew is over
            if row[OPEN] == 1.0:
                row[LENGTH] += 1.0
                row[BLOCK_ODD] = 1.0
            if drift > 0.0:
                _drift(row, k, drift)
            if row[FILL] < 0.0:
                if row[LENGTH] >= relearn or row[MOVED] >= relearn:
                    row[FILL] = 0.0
                continue
        if row[FILL] >= 0.0:
            raw = buffers[buffer_of[at[i]]]
            filled = np.int64(row[FILL])
            for j in range(k):
                raw[filled, j] = clean[j]
            row[FILL] += 1.0
            if row[FILL] == TRAIN:
                row[FILL] = -1.0 if _train(row, raw) else 0.0
    return n
