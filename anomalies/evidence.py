"""What is known at an anomaly's onset of why it is one: the online detector's own tests.

Cheap, for it runs between scoring and storing; what has to be looked up is added soon after
(``anomalies.surroundings``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from anomalies.kinds import at_onset
from anomalies.models import AnomalyType
from detection.detectors.online import REASONS, strengths
from detection.scoring import ScoredBatch


def at_event(scored: ScoredBatch, i: int) -> dict[str, Any]:
    """Of the i-th event: its number in the series, the strongest test, and all of them.

    ``tests`` are in units of their alarm levels: 1 is an alarm.
    """
    detail = scored.detail
    found = strengths(detail.features[i], detail.tests[i])
    return {
        "event": int(detail.seen[i]),
        "reason": REASONS[int(detail.reason[i])],
        "tests": {name: round(value, 4) for name, value in found.items()},
    }


def kind_at(
    evidence: dict[str, Any],
    direction: int,
    features: dict[str, float],
    context: list[list[float]],
) -> AnomalyType:
    """The first reading of the anomaly's kind; ``context`` is [[epoch ms, value], …]."""
    values = np.array([value for _, value in context], dtype=np.float64)
    return at_onset(evidence["reason"], direction, features, evidence["tests"], values)
