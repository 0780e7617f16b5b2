"""What kind of anomaly it is: a first reading at the onset, a second one once its end is known.

At the onset a level shift looks like a spike: only what comes after tells them apart. Both
readings are rules on a few robust figures, and answer from what they are given alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from anomalies.models import AnomalyType

FloatArray = NDArray[np.float64]

LEAD = 12
"""Points before the onset that may belong to the anomaly already."""
LEAST = 20
"""Points before those from which on the usual spread is worth something."""
SHORT = 5
"""A spike or dip lasts at most so many events."""
WATCHED = 240
"""Points from the onset on that are looked at: of five minutes each they stay within a day."""
RESTLESS = 1.7
"""Times that the usual step grows where the variance or the pattern changed."""


def at_onset(
    reason: str,
    direction: int,
    features: Mapping[str, float],
    tests: Mapping[str, float],
    context: FloatArray,
) -> AnomalyType:
    """The kind by the detector's strongest test and the last events float64[n] up to the onset.

    `reason` is one of ``detection.detectors.online.REASONS``, `tests` its strengths (may be
    empty), `direction` the side of the expected value.
    """
    if reason == "flat" or (tests.get("flat", 0.0) >= 1 and _run(context) >= 8):
        return AnomalyType.FLATLINE
    lone = AnomalyType.DIP if direction < 0 else AnomalyType.SPIKE
    inside = abs(features.get("level", 1.0)) < 0.9
    if len(context) >= LEAST + LEAD:
        before, last = context[:-LEAD], context[-LEAD:]
        centre, size = _centre_and_size(before)
        odd = np.abs(last - centre) > 4 * size
        if not odd[:-SHORT].any() and odd[-1] and reason in ("value", "returned", "residual"):
            return lone
        if _both_ways(last - centre, size):
            return _waves(last - centre)
        if reason == "block" and _climbs(context, _step(context)):
            return AnomalyType.TREND_CHANGE
        if odd.sum() > SHORT and _one_sided(last - centre, odd):
            if _creeps(context[-2 * LEAD :] - centre):
                return AnomalyType.TREND_CHANGE
            if reason == "season" and inside:
                return AnomalyType.CONTEXTUAL
            return AnomalyType.LEVEL_SHIFT
    if reason == "season":
        return AnomalyType.CONTEXTUAL
    spread = features.get("spread", 0.0)
    if reason == "block":
        return AnomalyType.LEVEL_SHIFT if abs(spread) < 1 else AnomalyType.PATTERN
    if reason == "residual" and spread > 1.5:
        return AnomalyType.VARIANCE_CHANGE
    if reason == "pair" and abs(features.get("residual", 0.0)) < 3:
        return AnomalyType.PATTERN
    return lone


def afterwards(
    values: FloatArray,
    usual: FloatArray,
    onset: int,
    *,
    known: tuple[float, float] | None = None,
) -> AnomalyType | None:
    """The kind by the whole course, or None where that does not tell.

    `values` float64[n] and what was `usual` at the same points float64[n]: a level, or where the
    series has a season the day before; then `known` is the range that its values have all day.
    `onset` is the index of the onset; points after it reach as far as the episode was watched.
    """
    values, usual = values[: onset + WATCHED], usual[: onset + WATCHED]
    begin = onset - LEAD
    if begin < LEAST or len(values) - onset < 2:
        return None
    run = _longest_run(values[begin:])
    if run >= 8 and run >= 3 * _longest_run(values[:begin]):
        return AnomalyType.FLATLINE
    gone = values - usual
    centre, size = _centre_and_size(gone[:begin])
    gone = gone - centre
    margin = max(size, 0.15 * float(np.ptp(gone[:begin])))
    odd = (gone > gone[:begin].max() + margin) | (gone < gone[:begin].min() - margin)
    odd[:begin] = False
    if not odd.any():
        return None
    at = np.flatnonzero(odd)
    ends = np.flatnonzero(np.diff(at) > LEAD)
    first, last = int(at[0]), int(at[ends[0]] if len(ends) else at[-1])
    course = gone[first : last + 1]
    returned = len(values) - 1 - last >= 8
    if _climbs(gone[begin:], size):
        return AnomalyType.TREND_CHANGE
    restless = RESTLESS * _step(gone[:begin])
    if len(gone) - onset >= 2 * LEAD and _step(gone[onset : onset + 5 * LEAD]) > restless:
        return _waves(gone[onset : onset + 5 * LEAD])
    if len(course) <= SHORT:
        if not returned:
            return None
        return AnomalyType.DIP if course[np.argmax(np.abs(course))] < 0 else AnomalyType.SPIKE
    if _step(course) > restless:
        return _waves(course)
    if not _one_sided(course, odd[first : last + 1]):
        return AnomalyType.PATTERN
    if _creeps(gone[first - LEAD : last + 1]):
        return AnomalyType.TREND_CHANGE
    middle = _median(values[first : last + 1])
    if known is not None and returned and known[0] <= middle <= known[1]:
        return AnomalyType.CONTEXTUAL
    return AnomalyType.LEVEL_SHIFT


# -- private -------------------------------------------------------------------------------------


def _centre_and_size(values: FloatArray) -> tuple[float, float]:
    """Median, and 1.4826 times the median distance from it (of steps, too), never 0."""
    centre = _median(values)
    size = 1.4826 * _median(np.abs(values - centre))
    if size <= 0:
        size = float(np.mean(np.abs(values - centre)))
    return centre, max(size, 1e-9 * max(1.0, abs(centre)))


def _median(values: FloatArray) -> float:
    """As numpy's, which takes ten times as long for a few dozen values without nan."""
    ordered = np.sort(values)
    n = len(ordered)
    return 0.5 * float(ordered[(n - 1) // 2] + ordered[n // 2])


def _step(gone: FloatArray) -> float:
    """The usual step from point to point."""
    return max(_median(np.abs(gone[1:] - gone[:-1])), 1e-12)


def _run(values: FloatArray) -> int:
    """Equal values at the end."""
    if not len(values):
        return 0
    differ = np.flatnonzero(values != values[-1])
    return len(values) - 1 - int(differ[-1]) if len(differ) else len(values)


def _longest_run(values: FloatArray) -> int:
    changes = np.flatnonzero(np.diff(values) != 0)
    edges = np.concatenate([[-1], changes, [len(values) - 1]])
    return int(np.diff(edges).max())


def _both_ways(gone: FloatArray, size: float) -> bool:
    """Clearly away from usual on both sides, and about as often on each."""
    up, down = int((gone > 2.5 * size).sum()), int((gone < -2.5 * size).sum())
    return min(up, down) >= 2 and min(up, down) >= 0.25 * max(up, down)


def _one_sided(gone: FloatArray, odd: NDArray[np.bool_]) -> bool:
    return abs(float(np.sign(gone[odd]).mean())) > 0.6 if odd.any() else False


def _waves(gone: FloatArray) -> AnomalyType:
    """A pattern goes on from point to point; noise does not."""
    a, b = gone[:-1] - gone[:-1].mean(), gone[1:] - gone[1:].mean()
    scale = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    together = float((a * b).sum()) / scale if scale > 0 else 0.0
    return AnomalyType.PATTERN if together > 0.5 else AnomalyType.VARIANCE_CHANGE


def _climbs(gone: FloatArray, size: float) -> bool:
    """Away from usual bit by bit: the medians of six parts go one way, none of them by a jump."""
    if len(gone) < 6 * 6:
        return False
    level = np.array([_median(part) for part in gone[len(gone) % 6 :].reshape(6, -1)])
    total = float(level[-1] - level[0])
    steps = np.diff(level) * math.copysign(1.0, total)
    far = abs(total) > 2.5 * size
    return far and float(steps.min()) > -0.1 * abs(total) and steps.max() < 0.6 * abs(total)


def _creeps(gone: FloatArray) -> bool:
    """A line fits better than one step wherever it may be."""
    n = len(gone)
    if n < 12:
        return False
    at = np.arange(n) - (n - 1) / 2
    slope = float((at * gone).sum() / (at * at).sum())
    line = float(((gone - gone.mean() - slope * at) ** 2).sum())
    total, squares = np.cumsum(gone), np.cumsum(gone * gone)
    k = np.arange(2, n - 2)
    left = squares[k - 1] - total[k - 1] ** 2 / k
    right = (squares[-1] - squares[k - 1]) - (total[-1] - total[k - 1]) ** 2 / (n - k)
    return line < float((left + right).min())
