"""When a silence is an anomaly, and how severe it is: by its length over the series' limit.

The moments are computed from the last event, never from when somebody looked, so the wall clock and
the next event tell the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detection.thresholds import CRITICAL, HIGH, MEDIUM, SILENCE, THRESHOLD, PolicyTable

DOUBLINGS = 4.0  # of the silence, from a score of 0.8 to 0.96
_ALARM = 1.0


@dataclass(frozen=True, slots=True)
class Stage:
    """From ``factor`` × the limit on a silence has this severity; ``score`` is the one there."""

    factor: float
    score: float
    severity: int


def stages(policy: NDArray[np.float64]) -> tuple[Stage, ...]:
    """The onset of a silence under a policy (a row of its table), and each rise after it.

    The oddness is 1 + log₂(silence / limit) / 4: a score of 0.8 at the limit, 0.87 at twice, 0.91
    at four times, 0.96 at 16 times it. A threshold above 0.8 asks for longer silences; a limit that
    the policy itself gives is its onset, whatever the threshold.
    """
    start, base = _start(policy)
    bands = [(column, _oddness(policy[column])) for column in (MEDIUM, HIGH, CRITICAL)]
    found = []
    severity = 1 + sum(start >= band for _, band in bands)
    found.append(_stage(start, base, severity))
    for rank, (_, band) in enumerate(bands, start=2):
        if band > start and band < math.inf and rank > severity:
            found.append(_stage(band, base, rank))
    # of equal bands the highest severity counts
    return tuple(s for s, t in zip(found, [*found[1:], None], strict=True) if not _same(s, t))


def score_at(factor: float, policy: NDArray[np.float64]) -> float:
    """The score of a silence that lasts ``factor`` × its limit."""
    _, base = _start(policy)
    return _score(base + math.log2(max(1.0, factor)) / DOUBLINGS)


@dataclass(frozen=True, slots=True, eq=False)
class Silence:
    """How one scoring version judges silence: by policy, limits in µs and stages."""

    asked_us: NDArray[np.float64]
    least_us: float
    stages: tuple[tuple[Stage, ...], ...]

    @classmethod
    def of(cls, settings: Mapping[str, Any] | None, policies: PolicyTable) -> Self | None:
        """None where silence is no anomaly; ``settings`` are those of the configuration."""
        if settings is None or not settings["enabled"]:
            return None
        asked = policies.rows[:, SILENCE] * 1e6
        asked[policies.rows[:, SILENCE] == 0.0] = np.inf
        asked[policies.rows[:, SILENCE] < 0.0] = -1.0
        return cls(asked, 1e6 * float(settings["least_s"]), tuple(map(stages, policies.rows)))


def _start(policy: NDArray[np.float64]) -> tuple[float, float]:
    """The oddness at the onset, and at the limit."""
    start = max(_ALARM, _oddness(policy[THRESHOLD]))
    return start, start if policy[SILENCE] > 0.0 else _ALARM


def _stage(oddness: float, base: float, severity: int) -> Stage:
    return Stage(2.0 ** (DOUBLINGS * (oddness - base)), _score(oddness), severity)


def _same(stage: Stage, other: Stage | None) -> bool:
    return other is not None and stage.factor == other.factor


def _oddness(score: float) -> float:
    # rounded, so that 0.8 is 1 and not a bit beside it
    return math.inf if score >= 1.0 else round(-math.log(1.0 - score) / math.log(5.0), 12)


def _score(oddness: float) -> float:
    return float(1.0 - 5.0**-oddness)
