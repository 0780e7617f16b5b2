"""The arithmetic of a short window kept in order: median and MAD, quartiles and fences.

Both kernels live here because numba's disk cache notices changes of the kernel's own file only.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detection.detectors.jit import kernel

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

WINDOW = 128
# State row: events judged, values put into the window, mean and variance of a longer past, the
# window's values as they came, their places in order of size.
SEEN, LEARNT, MEAN, VARIANCE, VALUES = range(5)
ORDER = VALUES + WINDOW
WIDTH = ORDER + WINDOW // 8  # one byte a place
RATE = 0.002  # of mean and variance, as in the z-score
LARGEST = 1e150  # its square is still a number
MOST = 1e6  # deviations that count
# A window may hold but one of two states of a series (off, without a burst): the longer past's
# deviation over FLOOR is the least that counts as spread.
FLOOR = 4.0
# Deviations of one value that the longer past learns: what comes more often than once in 400 events
# becomes part of it, what is rarer stays odd.
CLIP = 20.0
SIGMA_OF_MAD = 1.4826022185056018  # 1 / the normal distribution's 75 % quantile
IQR_OF_SIGMA = 1.3489795003921634
GOLDEN = 2654435769  # 2^32 / golden ratio: multiples of it spread evenly, and no period meets them


@kernel
def _insert(row: FloatArray, value: float) -> None:
    """Put a value into the window, in place of the oldest one where it is full."""
    order = row[ORDER:WIDTH].view(np.uint8)
    learnt = int(row[LEARNT])
    place = learnt % WINDOW
    size = min(learnt, WINDOW)
    if learnt >= WINDOW:
        at = 0
        while order[at] != place:
            at += 1
        size -= 1
    else:
        at = size
    # The gap at `at` moves to where the new value belongs.
    while at > 0 and row[VALUES + order[at - 1]] > value:
        order[at] = order[at - 1]
        at -= 1
    while at < size and row[VALUES + order[at + 1]] < value:
        order[at] = order[at + 1]
        at += 1
    order[at] = place
    row[VALUES + place] = value
    row[LEARNT] = learnt + 1.0


@kernel
def _sorted(row: FloatArray, at: int) -> float:
    """The value at a place in order of size, from 0."""
    return float(row[VALUES + row[ORDER:WIDTH].view(np.uint8)[at]])


@kernel
def _quantile(row: FloatArray, size: int, share: float) -> float:
    """With linear interpolation (Hyndman & Fan's type 7, numpy's default)."""
    exact = (size - 1) * share
    low = int(exact)
    first = _sorted(row, low)
    if low + 1 >= size:
        return first
    return first + (exact - low) * (_sorted(row, low + 1) - first)


@kernel
def _mad(row: FloatArray, size: int, median: float) -> float:
    """Median of the distances from the median, which rise in two runs, to the left and the right.

    The k-th of both is found by how many of the left are among the k smallest, in log2 k steps.
    """
    lefts = (size - 1) // 2 + 1
    rights = size - lefts
    k = size // 2 + size % 2
    low, high = max(0, k - rights), min(k, lefts)
    while low < high:
        taken = (low + high) // 2
        if median - _sorted(row, lefts - 1 - taken) < _sorted(row, lefts + k - taken - 1) - median:
            low = taken + 1
        else:
            high = taken
    last = 0.0
    if low > 0:
        last = median - _sorted(row, lefts - low)
    if k > low:
        last = max(last, _sorted(row, lefts + k - low - 1) - median)
    if size % 2:
        return last
    following = np.inf
    if low < lefts:
        following = median - _sorted(row, lefts - 1 - low)
    if k - low < rights:
        following = min(following, _sorted(row, lefts + k - low) - median)
    return 0.5 * (last + following)


@kernel
def _spread(row: FloatArray, own: float, centre: float) -> float:
    """Standard deviation that counts, given the window's: never 0."""
    tiny = 1e-9 + 1e-6 * abs(centre)
    past = math.sqrt(row[VARIANCE])
    if own <= tiny:  # half of the window is one value
        return max(past, tiny)
    return max(own, past / FLOOR)


@kernel
def _learn_moments(row: FloatArray, x: float, spread: float) -> None:
    """Exponentially weighted mean and variance (West 1979), exact over the first 1/RATE events.

    Outliers are drawn in to CLIP deviations, by `spread` or the past's own.
    """
    share = max(RATE, 1.0 / (row[SEEN] + 1.0))
    most = CLIP * max(spread, math.sqrt(row[VARIANCE]))
    gap = min(max(x - row[MEAN], -most), most)
    row[MEAN] += share * gap
    row[VARIANCE] = (1.0 - share) * (row[VARIANCE] + share * gap * gap)


@kernel
def run_mad(
    state: FloatArray,
    slot: IntArray,
    value: FloatArray,
    threshold: float,
    warm_up: int,
    oddness: FloatArray,
) -> None:
    """Modified z-score of each event over `threshold`, nan where it abstains; then learn it."""
    for i in range(slot.shape[0]):
        row = state[slot[i]]
        x = value[i]
        oddness[i] = np.nan
        if not abs(x) <= LARGEST:
            continue
        spread = np.inf
        if row[SEEN] == 0:
            row[MEAN] = x
        if row[SEEN] >= warm_up:
            size = min(int(row[LEARNT]), WINDOW)
            median = _quantile(row, size, 0.5)
            spread = _spread(row, _mad(row, size, median) * SIGMA_OF_MAD, median)
            oddness[i] = min(abs(x - median) / spread, MOST) / threshold
        _insert(row, x)
        _learn_moments(row, x, spread)
        row[SEEN] += 1.0


@kernel
def run_iqr(
    state: FloatArray,
    slot: IntArray,
    value: FloatArray,
    factor: float,
    warm_up: int,
    every: int,
    oddness: FloatArray,
) -> None:
    """Distance beyond the quartiles over `factor` · IQR, nan where it abstains; then learn it."""
    for i in range(slot.shape[0]):
        row = state[slot[i]]
        x = value[i]
        oddness[i] = np.nan
        if not abs(x) <= LARGEST:
            continue
        spread = np.inf
        seen = int(row[SEEN])
        if seen == 0:
            row[MEAN] = x
        if seen >= warm_up:
            size = min(int(row[LEARNT]), WINDOW)
            low, high = _quantile(row, size, 0.25), _quantile(row, size, 0.75)
            spread = _spread(row, (high - low) / IQR_OF_SIGMA, 0.5 * (low + high))
            beyond = max(low - x, x - high, 0.0)
            oddness[i] = min(beyond / (IQR_OF_SIGMA * spread), MOST) / factor
        # The first values all, later every so many at irregular places: a longer memory.
        if seen < WINDOW or (seen * GOLDEN) % 4294967296 < 4294967296 // every:
            _insert(row, x)
        _learn_moments(row, x, spread)
        row[SEEN] += 1.0


def initial_row() -> FloatArray:
    """The state of a series never seen, float64[WIDTH]."""
    return np.zeros(WIDTH)
