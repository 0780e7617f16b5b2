"""How good scores and onsets are against known faults; exact, and pure functions of arrays.

Faults are intervals int64 [k, 2] of event indices, first and one past the last, apart from each
other and in order. An *onset* is the first event of an alarm: what a person is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.base import FloatArray, IntArray

BoolArray = NDArray[np.bool_]
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Hits:
    """Right, wrong and missed, with the usual three ratios; a ratio of nothing is None."""

    right: int = 0
    wrong: int = 0
    missed: int = 0
    found: int | None = None
    """Faults that were found, where one fault can be hit by several alarms; else `right`."""

    @property
    def precision(self) -> float | None:
        return _ratio(self.right, self.right + self.wrong)

    @property
    def recall(self) -> float | None:
        found = self.right if self.found is None else self.found
        return _ratio(found, found + self.missed)

    @property
    def f1(self) -> float | None:
        precision, recall = self.precision, self.recall
        if precision is None and recall is None:
            return None
        if not precision or not recall:
            return 0.0
        return 2.0 * precision * recall / (precision + recall)

    def __add__(self, other: Hits) -> Hits:
        found = None
        if self.found is not None or other.found is not None:
            found = sum(h.right if h.found is None else h.found for h in (self, other))
        return Hits(
            self.right + other.right, self.wrong + other.wrong, self.missed + other.missed, found
        )


def onsets(over: BoolArray, time_us: IntArray, quiet: int, max_gap_us: float) -> IntArray:
    """Indices of the events that open an episode, int64: see `detection.episodes`.

    `over` bool[n], `time_us` int64[n]. An episode ends after `quiet` events below the threshold, or
    at a longer gap in time.
    """
    at = np.flatnonzero(over).astype(np.int64)
    if not len(at):
        return at
    parts = np.cumsum(np.diff(time_us, prepend=time_us[:1]) > max_gap_us)[at]
    begins = (np.diff(at) > quiet) | (np.diff(parts) > 0)
    return np.asarray(at[np.concatenate([[True], begins])])


def by_event(flagged: BoolArray, label: BoolArray) -> Hits:
    """Each event on its own: `flagged` and `label` bool[n]."""
    right = int((flagged & label).sum())
    return Hits(right, int((flagged & ~label).sum()), int((label & ~flagged).sum()))


def by_episode(onset: BoolArray, faults: IntArray, grace: int = 0) -> Hits:
    """Each alarm is right if its onset lies in a fault, each fault found if an onset lies in it.

    An onset up to `grace` events after a fault is neither right nor wrong: it tells of the return
    to normal. Nothing of a fault counts as found by an alarm that began before it.
    """
    at = np.flatnonzero(onset)
    inside, after = _place(at, faults, grace)
    found = len(np.unique(inside[inside >= 0]))
    right = int((inside >= 0).sum())
    return Hits(right, int(((inside < 0) & ~after).sum()), len(faults) - found, found)


def delays(onset: BoolArray, faults: IntArray) -> IntArray:
    """Events from each fault's start to the first onset in it, int64[k]; -1 where missed."""
    at = np.flatnonzero(onset)
    first = np.searchsorted(at, faults[:, 0])
    known = np.append(at, np.iinfo(np.int64).max)[first]
    return np.where(known < faults[:, 1], known - faults[:, 0], -1)


def average_precision(score: FloatArray, label: BoolArray) -> float | None:
    """Area under precision over recall by steps, every event on its own; None without faults.

    A nan (no score yet) ranks below every score.
    """
    if not label.any():
        return None
    from sklearn.metrics import average_precision_score  # slow to import

    return float(average_precision_score(label, _ranked(score)))


def vus_pr(score: FloatArray, faults: IntArray, widest: int = 100) -> float | None:
    """Volume under the surface of precision and recall over widths 0 … `widest`, or None.

    Paparrizos et al., Volume Under the Surface, PVLDB 15(11), 2022. For each width ℓ labels get
    slopes √(1 − d/ℓ) at distance d ≤ ℓ/2 from a fault; precision = Σ label·alarm / alarms; recall
    = Σ label·alarm / ((faulty events + Σ label) / 2), at most 1, times the share of faults hit;
    the area is the sum over falling thresholds of precision times the gain in recall. Here every
    distinct score is a threshold, where the authors' code takes 250.
    """
    if not len(faults):
        return None
    ranked = _ranked(score)
    order = np.argsort(-ranked, kind="stable")
    falling = ranked[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    areas = [_area(ranked, order, falling, last, faults, width) for width in range(widest + 1)]
    return float(np.mean(areas))


def slopes(n: int, faults: IntArray, width: int) -> FloatArray:
    """The labels of `vus_pr` for one width, float64[n] in [0, 1]."""
    label = np.zeros(n)
    reach = width // 2
    distance = np.arange(1, reach + 1)
    height = np.sqrt(1.0 - distance / width) if reach else np.zeros(0)
    for start, end in faults.tolist():
        label[start:end] = 1.0
        before = start - distance
        label[before[before >= 0]] += height[before >= 0]
        after = end - 1 + distance
        label[after[after < n]] += height[after < n]
    return np.minimum(label, 1.0)


@dataclass(slots=True)
class Tally:
    """Sums over series, and the figures of all of them.

    `pr_auc` and `vus_pr` are means over series with faults, since scores of one series say nothing
    of another's; all else counts every event, alarm and fault once.
    """

    grace: int = 0
    widest: int = 100
    series: int = 0
    events: int = 0
    duration_s: float = 0.0
    episodes: Hits = field(default_factory=lambda: Hits(found=0))
    single: Hits = field(default_factory=Hits)
    delay_events: list[int] = field(default_factory=list)
    delay_s: list[float] = field(default_factory=list)
    pr_auc: list[float] = field(default_factory=list)
    vus: list[float] = field(default_factory=list)
    faulty: int = 0
    outside: int = 0  # onsets outside faults and their grace

    def add(
        self,
        score: FloatArray,
        onset: BoolArray,
        flagged: BoolArray,
        faults: IntArray,
        time_s: FloatArray,
        start: int = 0,
        *,
        areas: bool = True,
    ) -> None:
        """One series: scores float64[n] (nan: none yet), onsets and alarms bool[n], faults [k, 2].

        Events before `start` don't count; faults must not begin before it. Without `areas` it is
        left out of `pr_auc` and `vus_pr`, which take the most time by far.
        """
        score, time_s = score[start:], time_s[start:]
        onset, flagged = onset[start:], flagged[start:]
        faults = np.asarray(faults, dtype=np.int64).reshape(-1, 2) - start
        label = slopes(len(score), faults, 0) > 0
        self.series += 1
        self.events += len(score)
        self.duration_s += float(time_s[-1] - time_s[0]) if len(time_s) > 1 else 0.0
        hits = by_episode(onset, faults, self.grace)
        self.episodes += hits
        self.outside += hits.wrong
        self.single += by_event(flagged, label)
        self.faulty += int(label.sum())
        for (first, _), delay in zip(faults.tolist(), delays(onset, faults).tolist(), strict=True):
            if delay >= 0:
                self.delay_events.append(delay)
                self.delay_s.append(float(time_s[first + delay] - time_s[first]))
        if not areas:
            return
        area, volume = average_precision(score, label), vus_pr(score, faults, self.widest)
        if area is not None and volume is not None:
            self.pr_auc.append(area)
            self.vus.append(volume)

    def figures(self) -> Figures:
        """What the sums amount to."""
        return Figures(
            series=self.series,
            events=self.events,
            faults=(self.episodes.found or 0) + self.episodes.missed,
            found=self.episodes.found or 0,
            precision=self.episodes.precision,
            recall=self.episodes.recall,
            f1=self.episodes.f1,
            event_precision=self.single.precision,
            event_recall=self.single.recall,
            event_f1=self.single.f1,
            pr_auc=_mean(self.pr_auc),
            vus_pr=_mean(self.vus),
            delay_events=_median(self.delay_events),
            delay_s=_median(self.delay_s),
            false_onsets=self.outside,
            false_alarms_a_day=_ratio(self.outside, self.duration_s / DAY_S),
            false_onsets_per_10000=_ratio(1e4 * self.outside, self.events - self.faulty),
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of an evaluation; None where there is nothing to count.

    Delays are medians over the faults that were found; false alarms a day count per series.
    """

    series: int
    events: int
    faults: int
    found: int
    precision: float | None
    recall: float | None
    f1: float | None
    event_precision: float | None
    event_recall: float | None
    event_f1: float | None
    pr_auc: float | None
    vus_pr: float | None
    delay_events: float | None
    delay_s: float | None
    false_onsets: int
    false_alarms_a_day: float | None
    false_onsets_per_10000: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


# -- private -------------------------------------------------------------------------------------


def _place(at: NDArray[np.intp], faults: IntArray, grace: int) -> tuple[IntArray, BoolArray]:
    """(the fault each index lies in, else -1; whether it lies in the grace after one)."""
    if not len(faults):
        return np.full(len(at), -1, dtype=np.int64), np.zeros(len(at), dtype=np.bool_)
    before = np.searchsorted(faults[:, 0], at, side="right") - 1
    end = np.where(before >= 0, faults[before, 1], -1 - grace)
    inside = np.where(at < end, before, -1)
    return inside.astype(np.int64), (inside < 0) & (at < end + grace)


def _area(
    ranked: FloatArray,
    order: NDArray[np.intp],
    falling: FloatArray,
    last: NDArray[np.intp],
    faults: IntArray,
    width: int,
) -> float:
    label = slopes(len(ranked), faults, width)
    hit = np.cumsum(label[order])[last]
    alarms = last + 1.0
    faulty = float((faults[:, 1] - faults[:, 0]).sum())
    recall = np.minimum(hit / ((faulty + float(label.sum())) / 2.0), 1.0)
    # a fault exists at a threshold if an alarm meets its slopes; slopes that meet are one fault
    edge = np.flatnonzero(np.diff(np.concatenate([[0], label > 0, [0]])))
    peaks = np.sort([float(ranked[a:b].max()) for a, b in edge.reshape(-1, 2).tolist()])
    met = len(peaks) - np.searchsorted(peaks, falling[last], side="left")
    recall = recall * met / len(peaks)
    gain = np.diff(recall, prepend=0.0)
    return float(np.sum(gain * hit / alarms))


def _ranked(score: FloatArray) -> FloatArray:
    """Without nan: no score ranks below every score."""
    return np.where(np.isnan(score), -1.0, score)


def _ratio(part: float, whole: float) -> float | None:
    return None if whole == 0 else part / whole


def _mean(values: Iterable[float]) -> float | None:
    given = list(values)
    return float(np.mean(given)) if given else None


def _median(values: Iterable[float]) -> float | None:
    given = list(values)
    return float(np.median(given)) if given else None
