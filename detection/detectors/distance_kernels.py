"""Kernels over distances to stored rows: a reference, support vectors, normal rows.

A stored set is [k, m], a column after the other, m a multiple of TILE (`padded`): instructions then
move several stored rows at once, while each distance is still summed column by column, as
scikit-learn's trees do. Every row is scored on its own, so a batch's size changes no bit.
"""

from __future__ import annotations

import math

import numpy as np

from detection.base import FloatArray, IntArray
from detection.detectors.jit import kernel

TILE = 128
_STEP = 16
_ROUND = 6755399441055744.0  # 1.5 · 2^52: adding it leaves a whole number in the low bits
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_TINY = 1e-200


def padded(rows: FloatArray) -> FloatArray:
    """Rows [m, k] as columns [k, m'], filled up with rows infinitely far away."""
    m, k = rows.shape
    out = np.full((k, -(-m // TILE) * TILE), np.inf)
    out[:, :m] = rows.T
    return out


@kernel
def _distances(row: FloatArray, stored: FloatArray, start: int, out: FloatArray) -> None:
    """Squared distances of one row to TILE stored ones from `start` on."""
    k = row.shape[0]
    out[:] = 0.0
    c = 0
    while c + 4 <= k:
        p, q, r, s = row[c], row[c + 1], row[c + 2], row[c + 3]
        first = stored[c, start : start + TILE]
        second = stored[c + 1, start : start + TILE]
        third = stored[c + 2, start : start + TILE]
        fourth = stored[c + 3, start : start + TILE]
        for j in range(TILE):
            u, v, w, x = p - first[j], q - second[j], r - third[j], s - fourth[j]
            out[j] = (((out[j] + u * u) + v * v) + w * w) + x * x
        c += 4
    if c + 2 <= k:
        p, q = row[c], row[c + 1]
        first, second = stored[c, start : start + TILE], stored[c + 1, start : start + TILE]
        for j in range(TILE):
            u, v = p - first[j], q - second[j]
            out[j] = (out[j] + u * u) + v * v
        c += 2
    if c < k:
        p = row[c]
        first = stored[c, start : start + TILE]
        for j in range(TILE):
            u = p - first[j]
            out[j] += u * u


@kernel
def _push(value: FloatArray, index: IntArray, new: float, at: int) -> None:
    """scikit-learn's push on a heap of the smallest: of equal ones the same stay."""
    size = value.shape[0]
    here = 0
    while True:
        left = 2 * here + 1
        right = left + 1
        if left >= size:
            break
        child = left
        if right < size and value[right] > value[left]:
            child = right
        if not value[child] > new:
            break
        value[here] = value[child]
        index[here] = index[child]
        here = child
    value[here] = new
    index[here] = at


@kernel
def _by_heap(distance: FloatArray, squared: FloatArray, index: IntArray) -> None:
    """What scikit-learn keeps, ties at the last place included."""
    squared[:] = np.inf
    for j in range(distance.shape[0]):
        if distance[j] < squared[0]:
            _push(squared, index, distance[j], j)


@kernel
def _below(bits: IntArray, limit: int) -> int:
    count = 0
    for j in range(bits.shape[0]):
        count += bits[j] <= limit
    return count


@kernel
def _select(
    distance: FloatArray, low: IntArray, near: IntArray, squared: FloatArray, index: IntArray
) -> None:
    """The smallest of `distance` by halving: numbers ≥ 0 are ordered as their bits are.

    The minima of TILE groups bound the last one looked for; few lie below. Where equal ones
    compete for the last places, a heap decides as scikit-learn's would.
    """
    wanted, bits = squared.shape[0], distance.view(np.int64)
    if wanted > TILE:
        _by_heap(distance, squared, index)
        return
    low[:] = bits[:TILE]
    for start in range(TILE, bits.shape[0], TILE):
        part = bits[start : start + TILE]
        for j in range(TILE):
            low[j] = min(low[j], part[j])
    under, limit = low[0], low[0]
    for j in range(TILE):
        under, limit = min(under, low[j]), max(limit, low[j])
    least = under - 1
    under = least
    for _ in range(12):
        middle = under + ((limit - under) >> 1)  # their sum could be too large a number
        if _below(low, middle) >= wanted:
            limit = middle
        else:
            under = middle
    found = 0
    for j in range(TILE):
        if low[j] <= limit:
            for at in range(j, bits.shape[0], TILE):
                near[found] = at
                found += bits[at] <= limit
    if found > TILE:
        _by_heap(distance, squared, index)
        return
    for j in range(found):
        low[j] = bits[near[j]]
    kept = low[:found]
    under = least
    while found != wanted and limit - under > 1:
        middle = under + ((limit - under) >> 1)
        count = _below(kept, middle)
        if count >= wanted:
            limit, found = middle, count
        else:
            under = middle
    if found != wanted:
        _by_heap(distance, squared, index)
        return
    at = 0
    for j in range(kept.shape[0]):
        if kept[j] <= limit:
            squared[at], index[at] = distance[near[j]], near[j]
            at += 1


@kernel
def neighbours(rows: FloatArray, stored: FloatArray, squared: FloatArray, index: IntArray) -> None:
    """The nearest stored rows of `rows` [n, k]: squared distances and places [n, neighbours].

    In no order of theirs; a row that holds a nan gets inf and 0.
    """
    width = stored.shape[1]
    distance = np.empty((_STEP, width))
    low, near = np.empty(TILE, np.int64), np.empty(width + 1, np.int64)
    squared[:] = np.inf
    index[:] = 0
    for begin in range(0, rows.shape[0], _STEP):
        end = min(begin + _STEP, rows.shape[0])
        for start in range(0, width, TILE):  # a tile is read once for many rows
            for i in range(begin, end):
                _distances(rows[i], stored, start, distance[i - begin, start : start + TILE])
        for i in range(begin, end):
            if not np.isnan(distance[i - begin, 0]):
                _select(distance[i - begin], low, near, squared[i], index[i])


@kernel
def outlier_factors(
    squared: FloatArray, index: IntArray, reach: FloatArray, density: FloatArray, out: FloatArray
) -> None:
    """Local Outlier Factors from `neighbours`, with the stored rows' own k-distance and density."""
    n, count = squared.shape
    for i in range(n):
        distance, around = 0.0, 0.0
        for j in range(count):
            at = index[i, j]
            distance += max(math.sqrt(squared[i, j]), reach[at])
            around += density[at]
        out[i] = (around / count) * (distance / count + 1e-10)


@kernel
def neighbour_parts(rows: FloatArray, stored: FloatArray, index: IntArray, out: FloatArray) -> None:
    """Σ over neighbours of the squared differences, by column: [n, k]."""
    for i in range(rows.shape[0]):
        for j in range(index.shape[1]):
            for c in range(rows.shape[1]):
                gap = rows[i, c] - stored[c, index[i, j]]
                out[i, c] += gap * gap


@kernel
def _weigh(squared: FloatArray, weight: FloatArray, rate: float, whole: IntArray) -> float:
    """Σ weight · exp(−rate · squared) over TILE, in a fixed order.

    exp by Cody & Waite: 2^q · e^r with a polynomial, to a few units of the last place.
    """
    real = whole.view(np.float64)
    total = np.zeros(8)
    for j in range(TILE):
        real[j] = max(-700.0, -rate * squared[j]) * _LOG2_E + _ROUND
    for j in range(TILE):
        q = real[j] - _ROUND
        r = max(-700.0, -rate * squared[j]) - q * _LN2_HIGH - q * _LN2_LOW
        p = 1.0 / 479001600.0
        p = p * r + 1.0 / 39916800.0
        p = p * r + 1.0 / 3628800.0
        p = p * r + 1.0 / 362880.0
        p = p * r + 1.0 / 40320.0
        p = p * r + 1.0 / 5040.0
        p = p * r + 1.0 / 720.0
        p = p * r + 1.0 / 120.0
        p = p * r + 1.0 / 24.0
        p = p * r + 1.0 / 6.0
        p = p * r + 0.5
        p = p * r + 1.0
        squared[j] = weight[j] * (p * r + 1.0)
    for j in range(TILE):
        whole[j] = (whole[j] << 52) + (1023 << 52)
    for first in range(0, TILE, 8):
        for j in range(8):
            total[j] += squared[first + j] * real[first + j]
    whole_sum: float = (total[0] + total[1]) + (total[2] + total[3])
    whole_sum += (total[4] + total[5]) + (total[6] + total[7])
    return whole_sum


@kernel
def log_kernel_sums(
    rows: FloatArray, stored: FloatArray, weight: FloatArray, rate: float, out: FloatArray
) -> None:
    """ln Σ weight · exp(−rate · squared distance) of rows [n, k]; finite however far they are."""
    distance = np.empty(TILE)
    bits = np.empty(TILE, np.int64)
    for begin in range(0, rows.shape[0], _STEP):
        end = min(begin + _STEP, rows.shape[0])
        out[begin:end] = 0.0
        for start in range(0, stored.shape[1], TILE):
            for i in range(begin, end):
                _distances(rows[i], stored, start, distance)
                out[i] += _weigh(distance, weight[start : start + TILE], rate, bits)
        for i in range(begin, end):
            out[i] = math.log(out[i]) if out[i] > _TINY else _far(rows[i], stored, weight, rate)


@kernel
def _far(row: FloatArray, stored: FloatArray, weight: FloatArray, rate: float) -> float:
    """The same where every term is next to nothing: shifted by the nearest one's exponent."""
    distance = np.empty(TILE)
    nearest = np.inf
    for start in range(0, stored.shape[1], TILE):
        _distances(row, stored, start, distance)
        for j in range(TILE):
            if weight[start + j] > 0.0 and distance[j] < nearest:
                nearest = distance[j]
    total = 0.0
    for start in range(0, stored.shape[1], TILE):
        _distances(row, stored, start, distance)
        for j in range(TILE):
            if weight[start + j] > 0.0:
                total += weight[start + j] * math.exp(-rate * (distance[j] - nearest))
    return math.log(total) - rate * nearest


@kernel
def support_parts(
    rows: FloatArray, stored: FloatArray, weight: FloatArray, rate: float, out: FloatArray
) -> None:
    """By column [n, k]: its part in each stored row's squared distance, weighted by that row's own
    part in Σ weight · exp(−rate · squared distance)."""
    k, m = stored.shape
    distance = np.empty(m)
    for i in range(rows.shape[0]):
        nearest = np.inf
        for start in range(0, m, TILE):
            _distances(rows[i], stored, start, distance[start : start + TILE])
        for j in range(m):
            if weight[j] > 0.0:
                nearest = min(nearest, distance[j])
        for j in range(m):
            if weight[j] > 0.0 and distance[j] > 0.0:
                part = weight[j] * math.exp(-rate * (distance[j] - nearest)) / distance[j]
                for c in range(k):
                    gap = rows[i, c] - stored[c, j]
                    out[i, c] += part * gap * gap
