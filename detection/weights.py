"""Learns how much each detector should count: on faults whose place is known, and on labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from detection.base import FloatArray, IntArray
from detection.ensemble import combine, score_from_oddness
from detection.errors import NotEnoughData
from detection.metrics import BoolArray, Hits, by_episode, onsets

STEPS = (0.0, 0.5, 0.71, 1.41, 2.0)
"""Factors by which a weight is tried; a weight of 0 is tried at `REVIVED` of the largest."""
REVIVED = 0.1
ROUNDS = 4
GRACE = 100


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One series: `votes` float64[n, d], nan abstains; `time_us` int64[n]; `faults` int64[k, 2].

    Events before `start` don't count.
    """

    votes: FloatArray
    time_us: IntArray
    faults: IntArray
    start: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Anomalies that people labelled: `votes` float64[m, d] at their onsets, `real` bool[m]."""

    votes: FloatArray
    real: BoolArray


@dataclass(frozen=True, slots=True)
class Rules:
    """What is looked for: most hits at no more than `most_false` onsets per 10,000 normal events.

    `threshold` is a score; `method` weighted gets one of its own, since a mean has no scale.
    """

    method: str = "weighted"
    threshold: float = 0.8
    most_false: float = 3.0
    quiet: int = 80
    max_gap_us: float = 86_400e6


@dataclass(frozen=True, slots=True)
class Learnt:
    """Weights by detector (the largest is 1 where the method is a mean), and what they reach."""

    method: str
    weights: dict[str, float]
    threshold: float
    f1: float
    precision: float | None
    recall: float | None
    false_per_10000: float
    tried: int = field(default=0, compare=False)


def learn(
    names: Sequence[str],
    samples: Sequence[Sample],
    judged: Judged | None,
    rules: Rules,
    first: Sequence[float],
) -> Learnt:
    """Coordinate search from the weights `first`: one detector's weight at a time, as it gains.

    The objective is F1 by episode over all samples (and labelled anomalies), where a rate of
    false onsets over the limit loses as much as it exceeds it. Deterministic; ties keep the
    earlier weights.

    Raises:
        NotEnoughData: no fault and no label to learn from.
        ValueError: another method than max and weighted, or not one weight for each name.
    """
    if rules.method not in ("max", "weighted"):
        raise ValueError(f"weights are learnt for max and weighted, not for {rules.method!r}")
    if len(first) != len(names) or not any(w > 0 for w in first):
        raise ValueError(f"{len(names)} weights, none negative and not all 0, are needed")
    if not sum(len(s.faults) for s in samples) and (judged is None or not judged.real.any()):
        raise NotEnoughData("weights need at least one fault or one anomaly labelled real")
    search = _Search(names, samples, judged, rules)
    best = search.score(np.array(first, dtype=np.float64))
    for _ in range(ROUNDS):
        before = best
        for at in range(len(names)):
            for candidate in _moves(best[1], at):
                best = max(best, search.score(candidate), key=lambda found: found[0])
        if best is before:
            break
    return replace(search.result(best[1]), tried=search.tried)


def figures(
    names: Sequence[str],
    weights: Sequence[float],
    threshold: float,
    samples: Sequence[Sample],
    judged: Judged | None,
    rules: Rules,
) -> Learnt:
    """What given weights reach at a given threshold, on other samples than they were learnt on."""
    search = _Search(names, samples, judged, replace(rules, threshold=threshold))
    return search.at(np.array(weights, dtype=np.float64), _level(threshold))


# -- private -------------------------------------------------------------------------------------

_Scored = tuple[float, FloatArray]


def _moves(weights: FloatArray, at: int) -> list[FloatArray]:
    steps = [weights[at] * step for step in STEPS]
    if weights[at] == 0.0:
        steps = [REVIVED * float(weights.max())]
    out = []
    for value in steps:
        moved = weights.copy()
        moved[at] = value
        if moved.max() > 0:
            out.append(moved)
    return out


class _Search:
    """Counts hits of weights over all samples, with a threshold that keeps the rate."""

    def __init__(
        self,
        names: Sequence[str],
        samples: Sequence[Sample],
        judged: Judged | None,
        rules: Rules,
    ) -> None:
        self._names, self._samples, self._judged, self._rules = names, samples, judged, rules
        self.tried = 0
        self._normal = sum(
            max(0, len(s.votes) - s.start) - int((s.faults[:, 1] - s.faults[:, 0]).sum())
            for s in samples
        )

    def score(self, weights: FloatArray) -> _Scored:
        self.tried += 1
        found = self.result(weights)
        excess = max(0.0, found.false_per_10000 - self._rules.most_false)
        return found.f1 - excess, weights

    def result(self, weights: FloatArray) -> Learnt:
        """At the rules' threshold, or for a mean at the lowest one that keeps the rate."""
        if self._rules.method == "max":
            return self.at(weights, _level(self._rules.threshold))
        weights = weights / weights.max()
        low, high = 0.02, 4.0
        for _ in range(9):
            middle = float(np.sqrt(low * high))
            if self.at(weights, middle).false_per_10000 <= self._rules.most_false:
                high = middle
            else:
                low = middle
        return self.at(weights, high)

    def at(self, weights: FloatArray, level: float) -> Learnt:
        """Hits where the combined oddness reaches `level`."""
        rules = self._rules
        hits = Hits(found=0)
        for sample in self._samples:
            odd = combine(sample.votes, rules.method, weights)
            with np.errstate(invalid="ignore"):
                at = onsets(odd >= level, sample.time_us, rules.quiet, rules.max_gap_us)
            hits += by_episode(_marks(at, sample), sample.faults, GRACE)
        wrong = hits.wrong
        if self._judged is not None and len(self._judged.real):
            odd = combine(self._judged.votes, rules.method, weights)
            real, over = self._judged.real, np.nan_to_num(odd) >= level
            right = int((over & real).sum())
            hits += Hits(right, int((over & ~real).sum()), int((real & ~over).sum()), right)
        return Learnt(
            rules.method,
            {name: float(w) for name, w in zip(self._names, weights, strict=True)},
            float(score_from_oddness(np.array([level]))[0]),
            hits.f1 or 0.0,
            hits.precision,
            hits.recall,
            1e4 * wrong / self._normal if self._normal else 0.0,
        )


def _marks(at: IntArray, sample: Sample) -> BoolArray:
    onset = np.zeros(len(sample.votes), dtype=np.bool_)
    onset[at[at >= sample.start]] = True
    return onset


def _level(threshold: float) -> float:
    """The oddness of a score; 0.8 is 1 to the last bit."""
    return 1.0 if threshold == 0.8 else float(-np.log(1.0 - threshold) / np.log(5.0))
