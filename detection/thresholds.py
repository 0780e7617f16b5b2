"""When a score is an anomaly: policies compiled to arrays, severities, and the what-if levels."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEVELS = "50 55 60 65 70 72.5 75 77.5 80 82.5 85 87.5 90 92 94 95 96 97 98 99"
LEVELS = np.array([float(percent) / 100 for percent in _LEVELS.split()])
"""Thresholds at which scores and onsets are counted, so that "what if 0.7?" needs no scoring."""

CANDIDATE_FROM = 2
"""Index into LEVELS from which on a would-be onset is kept as a near miss (0.6)."""

RUNGS = np.concatenate([LEVELS, 1.0 - np.power(5.0, -np.array([4.0, 6.0, 9.0, 13.0]))])
"""Scores a threshold may be raised to: LEVELS, then 4, 6, 9 and 13 times the alarm level, so that
a flood of scores near 0.99 does not hide what is far above it."""

WOULD_OPEN, HELD_BACK = 1 << 24, 1 << 25
"""Marks above the bits of LEVELS: an onset by the policy's own threshold; one that the budget of
onsets held back."""

BOTH, UP, DOWN = 0, 1, -1
_DIRECTIONS = {"both": BOTH, "up": UP, "down": DOWN}

# Columns of a compiled policy table.
THRESHOLD, DIRECTION, MIN_ABSOLUTE, MIN_RELATIVE, MEDIUM, HIGH, CRITICAL, BUDGET, SILENCE = range(9)

LEARNT = -1.0
"""In place of a limit of silence: the one that a series has learnt."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A threshold policy as scoring sees it; empty patterns match everything.

    ``max_onsets_per_day`` 0 is no limit, and what versions had that knew of none.
    ``silence_after_s`` 0: silence is no anomaly.
    """

    name: str = "default"
    version: int = 0
    source_pattern: str = ""
    metric_pattern: str = ""
    threshold: float = 0.8
    direction: str = "both"
    min_absolute_deviation: float = 0.0
    min_relative_deviation: float = 0.0
    medium_from: float = 0.85
    high_from: float = 0.90
    critical_from: float = 0.95
    max_onsets_per_day: float = 0.0
    silence_after_s: float = LEARNT

    def matches(self, source: str, metric: str) -> bool:
        """Whether the policy speaks of this series (globs, case-sensitive)."""
        return fnmatch.fnmatchcase(source, self.source_pattern or "*") and fnmatch.fnmatchcase(
            metric, self.metric_pattern or "*"
        )

    def row(self) -> list[float]:
        """One line of the table the episode kernel reads."""
        return [
            self.threshold,
            float(_DIRECTIONS[self.direction]),
            self.min_absolute_deviation,
            self.min_relative_deviation,
            self.medium_from,
            self.high_from,
            self.critical_from,
            self.max_onsets_per_day,
            self.silence_after_s,
        ]

    def as_dict(self) -> dict[str, Any]:
        """For a scoring version's payload."""
        return asdict(self)


class PolicyTable:
    """Policies in order of precedence, the first match wins; the last must match everything."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = tuple(policies)
        if not self.policies or not self.policies[-1].matches("", ""):
            self.policies += (Policy(),)
        self.rows = np.array([p.row() for p in self.policies], dtype=np.float64)
        self._by_code = np.zeros(0, dtype=np.int32)

    def index(self, names: Sequence[tuple[str, str]]) -> NDArray[np.int32]:
        """Which policy counts for each series code, shape ``[len(names)]``; grows with them."""
        known = len(self._by_code)
        if known < len(names):
            more = [self._first(source, metric) for source, metric in names[known:]]
            self._by_code = np.concatenate([self._by_code, np.array(more, dtype=np.int32)])
        return self._by_code

    def _first(self, source: str, metric: str) -> int:
        if len(self.policies) == 1:
            return 0
        return next(i for i, p in enumerate(self.policies) if p.matches(source, metric))
