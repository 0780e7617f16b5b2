"""At most so many notifications a day: the score that a rule needs for that, solved from the past.

Pure, but for the daily watch at the end, which reports what was overspent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alerts.machine import Choice, Signal
from alerts.preview import Replay
from alerts.spec import RuleSpec

SCORES = (0.0, 0.82, 0.84, 0.86, 0.88, 0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.955, 0.96, 0.965, 0.97,
          0.975, 0.98, 0.985, 0.99, 0.992, 0.994, 0.996, 0.998, 0.999, 0.9995, 1.0)  # fmt: skip
"""Scores that are tried; 0 lets every anomaly pass, since policies have thresholds of their own."""


@dataclass(frozen=True, slots=True)
class Solved:
    """The least score that keeps to a budget, and what it would have sent.

    ``kept`` is False where not even the highest score does: reports by hand have none.
    """

    score: float
    per_day: float
    budget: float
    kept: bool
    replay: Replay


def solve(
    spec: RuleSpec, signals: Sequence[Signal], run: Callable[[Sequence[Signal], float], Replay]
) -> Solved | None:
    """By bisection over ``SCORES``; None where the rule has no budget.

    Args:
        run: replays the rule over signals with a least score.
    """
    budget = spec.when.budget_per_day
    if budget is None:
        return None
    choice = Choice(spec.match)
    # An anomaly may rise into the rule's severities later, so that severity decides nothing here.
    meant = [s for s in signals if choice.holds_for(s)]
    tried: dict[int, Replay] = {}

    def fits(i: int) -> bool:
        tried[i] = run(meant, SCORES[i])
        return tried[i].per_day <= budget

    low, high = 0, len(SCORES) - 1
    if not fits(low):
        while high - low > 1:
            middle = (low + high) // 2
            if fits(middle):
                high = middle
            else:
                low = middle
        low = high
    if low not in tried:
        fits(low)
    found = tried[low]
    return Solved(SCORES[low], found.per_day, budget, found.per_day <= budget, found)
