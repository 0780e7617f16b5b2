"""What a budget of onsets a day would have told of stored near misses, at another threshold.

The rule is that of ``detection.episodes``, run over the onsets that were stored instead of over all
events, so it is an estimate: what a series remembered before the first of them is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf

from detection.thresholds import LEVELS, RUNGS

_DAY_S = 86_400.0
_MEMORY_DAYS, _LEAST_DAYS, _FAR, _CEILING = 7.0, 2.0, 3.0, 2.0


@dataclass(frozen=True, slots=True)
class Near:
    """An event that would have been an onset: bit i of ``levels`` at ``LEVELS[i]``."""

    at_s: float
    score: float
    levels: int


def told(found: Sequence[Near], level: int, budget: float, first_s: float) -> list[bool]:
    """For each event, oldest first, whether it would have opened an episode at ``LEVELS[level]``.

    Args:
        budget: onsets a day; 0 is no limit.
        first_s: when the series began.
    """
    threshold = float(LEVELS[level])
    if budget <= 0:
        return [bool(one.levels >> level & 1) for one in found]
    far = 1.0 - (1.0 - threshold) ** _FAR
    stretch = max(1.0, 1.0 / budget)
    memory_s = _MEMORY_DAYS * stretch * _DAY_S
    rungs, counts = [float(r) for r in RUNGS], [0.0] * len(RUNGS)
    own = opened = 0.0
    counted_at, last_told = first_s, -inf
    answer = []
    for one in found:
        left = exp(min(0.0, counted_at - one.at_s) / memory_s)
        counted_at = max(counted_at, one.at_s)
        counts, own, opened = [c * left for c in counts], own * left, opened * left
        lived = _MEMORY_DAYS * stretch * (1.0 - exp(min(0.0, first_s - one.at_s) / memory_s))
        allowed = budget * max(_LEAST_DAYS * stretch, lived)
        most = _CEILING * allowed
        onset = bool(one.levels >> level & 1)
        opens = False
        if onset:
            asked = threshold
            if own > allowed:
                asked = next((r for r, c in zip(rungs, counts, strict=True)
                              if r > threshold and c <= allowed), inf)  # fmt: skip
            if opened + 1.0 > most:
                asked = max(asked, far)
            opens = one.score >= asked or (
                one.score >= far and one.at_s - last_told >= _DAY_S / budget
            )
            if opens:
                opened, last_told = min(opened + 1.0, most), one.at_s
            own = min(own + 1.0, most)
        for j, rung in enumerate(rungs):
            if one.score < rung:
                break
            # Above the stored levels a would-be onset is one at the highest of them.
            if one.levels >> min(j, len(LEVELS) - 1) & 1:
                counts[j] = min(counts[j] + 1.0, most)
        answer.append(opens)
    return answer
