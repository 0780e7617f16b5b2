"""Is one of two worse than the other by more than is tolerated, or is it chance? Both are asked of
the very same faults and events, so that only those count on which they differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detection.base import FloatArray, IntArray

SURE = 0.025  # the chance, at most, that one which is just tolerable is called worse
_ERRORS = 1.96  # standard errors of a normal deviate that leave that chance on one side


@dataclass(frozen=True, slots=True)
class Loss:
    """The share of faults that one finds less than the other; negative where it finds more.

    ``least`` is what it is at least, but for a chance of `SURE`.
    """

    share: float
    least: float


def loss(fewer: IntArray, faults: IntArray) -> Loss:
    """What is lost over groups of faults: in each, int64 [g], how many fewer of how many.

    Faults of a group may stand and fall together: each group counts as one draw, by the linearised
    variance of a ratio (Cochran, Sampling Techniques, 1977, 6.3).
    """
    total = int(faults.sum())
    groups = len(faults)
    if not total:
        return Loss(0.0, 0.0)
    share = float(fewer.sum()) / total
    if groups < 2:
        return Loss(share, min(share, 0.0))  # nothing says how far chance reaches
    apart: FloatArray = fewer - share * faults
    error = float(np.sqrt(groups / (groups - 1) * (apart**2).sum())) / total
    return Loss(share, share - _ERRORS * error)


def chance_of_more(mine: int, others: int, tolerated: float) -> float:
    """The chance of so many more alarms that only one of two has, if it has `tolerated` more.

    ``mine`` and ``others`` are rare events that only the one or only the other has: Poisson, with
    the rate that makes the counts likeliest. The difference then is Skellam's.
    """
    from scipy.stats import skellam  # slow to import

    twice = mine + others - 2.0 * tolerated
    rate = (twice + float(np.sqrt(twice**2 + 8.0 * others * tolerated))) / 4.0
    least = 1e-9
    return float(skellam.sf(mine - others - 1, max(rate + tolerated, least), max(rate, least)))
