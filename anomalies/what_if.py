"""What another threshold would do to one series: counted from what is stored, nothing is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isfinite
from typing import Any

from django.db import connection

from anomalies.models import Anomaly, Candidate
from detection.past_budget import Near, told
from detection.thresholds import CANDIDATE_FROM, LEVELS, Policy
from streams.models import Series

SPANS = (7, 30)
DIRECTIONS = ("both", "up", "down")
LABELS_OF = timedelta(days=90)
MOST_A_DAY = 10_000.0
MOST = 5_000
"""Near misses of a series that are looked at, the newest."""
CHOICES = [float(level) for level in LEVELS[CANDIDATE_FROM:]]
"""Thresholds that can be tried: below them no near miss is kept."""
ALL_LEVELS = [float(level) for level in LEVELS]

_COUNTS = """
WITH rows AS (
    SELECT minute AS at, scored, score_counts, onset_counts FROM streams_rollup
     WHERE series_id = %(series)s AND minute >= %(start)s AND minute <= %(end)s
    UNION ALL
    SELECT hour, scored, score_counts, onset_counts FROM streams_rolluphour
     WHERE series_id = %(series)s AND hour >= %(start)s AND hour <= %(end)s AND sealed)
SELECT (SELECT array_agg(n ORDER BY i) FROM (
          SELECT u.i, sum(u.n) AS n FROM rows CROSS JOIN LATERAL
                 unnest(rows.score_counts) WITH ORDINALITY AS u (n, i)
           WHERE rows.score_counts IS NOT NULL GROUP BY u.i) AS scores),
       (SELECT array_agg(n ORDER BY i) FROM (
          SELECT u.i, sum(u.n) AS n FROM rows CROSS JOIN LATERAL
                 unnest(rows.onset_counts) WITH ORDINALITY AS u (n, i)
           WHERE rows.onset_counts IS NOT NULL GROUP BY u.i) AS onsets),
       sum(scored), min(at)
  FROM rows
"""


@dataclass(frozen=True, slots=True)
class Draft:
    """What is tried: a threshold of CHOICES, a direction, a least distance from the expected.

    ``relative`` is the policy's own least share of the expected value, ``budget`` its onsets a day
    (0: no limit).
    """

    threshold: float
    direction: str = "both"
    least: float = 0.0
    relative: float = 0.0
    budget: float = 0.0

    @property
    def level(self) -> int:
        return CHOICES.index(self.threshold) + CANDIDATE_FROM

    @property
    def takes_all(self) -> bool:
        """Whether the score alone decides."""
        return self.direction == "both" and self.least == 0 and self.relative == 0

    def means(self, direction: int, deviation: float | None, mid: float | None) -> bool:
        """As a policy does: in its direction, and far enough."""
        if self.takes_all:
            return True
        if deviation is None:
            return self.direction == "both" and self.least == 0
        side = direction or (deviation > 0) - (deviation < 0)
        if (self.direction == "up" and side < 0) or (self.direction == "down" and side > 0):
            return False
        return abs(deviation) >= max(self.least, self.relative * abs(mid or 0.0))


def draft_of(policy: Policy, query: Any) -> tuple[Draft, bool]:
    """The draft in a query, and whether it asks for anything else than the policy."""
    given = _number(query.get("threshold", ""))
    nearest = snapped(policy.threshold if given is None else given)
    direction = query.get("direction", "")
    least, budget = _number(query.get("least", "")), _number(query.get("budget", ""))
    draft = Draft(
        nearest,
        direction if direction in DIRECTIONS else policy.direction,
        policy.min_absolute_deviation if least is None or least < 0 else least,
        policy.min_relative_deviation,
        policy.max_onsets_per_day if budget is None or not 0 <= budget <= MOST_A_DAY else budget,
    )
    changed = (
        (given is not None and abs(nearest - policy.threshold) > 1e-9)
        or draft.direction != policy.direction
        or draft.least != policy.min_absolute_deviation
        or draft.budget != policy.max_onsets_per_day
    )
    return draft, changed


def snapped(threshold: float) -> float:
    """The nearest threshold that is counted.

    >>> snapped(0.861), snapped(0.1)
    (0.85, 0.6)
    """
    return min(CHOICES, key=lambda level: (abs(level - threshold), level))


@dataclass(frozen=True, slots=True)
class Bar:
    """Scored events between two counted thresholds."""

    low: float
    high: float
    events: int


@dataclass(frozen=True, slots=True)
class Judged:
    """A labelled anomaly, and whether the draft would still have found it."""

    anomaly: Anomaly
    found: bool


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A draft beside what is, over the last ``span`` days of the series' own event time.

    ``stored`` anomalies were told; ``told`` would have been, with the budget (an estimate where
    there is one), and ``onsets`` without it. ``hidden`` of the stored ones would not be found.
    """

    draft: Draft
    policy: Policy
    present: float
    span: int
    days: float
    scored: int
    below: int
    bars: list[Bar]
    stored: int
    onsets: int
    told: int
    added: int
    hidden: int
    hidden_unlabelled: int
    labelled: list[Judged]

    @property
    def per_day(self) -> float:
        return self.told / self.days

    @property
    def days_said(self) -> str:
        days = round(self.days, 1)
        return f"{days:g} day{'s' * (days != 1)}"

    @property
    def stored_per_day(self) -> float:
        return self.stored / self.days

    @property
    def held(self) -> int:
        """Onsets that the budget would have held back."""
        return max(0, self.onsets - self.told)

    @property
    def known(self) -> bool:
        return self.scored > 0

    def _count(self, label: str, found: bool | None = None) -> int:
        return sum(j.anomaly.label == label and (found is None or j.found == found)
                   for j in self.labelled)  # fmt: skip

    @property
    def real(self) -> int:
        return self._count(Anomaly.Label.REAL)

    @property
    def real_found(self) -> int:
        return self._count(Anomaly.Label.REAL, True)

    @property
    def wrong(self) -> int:
        return self._count(Anomaly.Label.FALSE_ALARM)

    @property
    def wrong_avoided(self) -> int:
        return self._count(Anomaly.Label.FALSE_ALARM, False)


def look(series: Series, policy: Policy, draft: Draft, span: int) -> WhatIf:
    """Count what the draft would have done of what is stored."""
    last = series.last_event_at or series.created_at
    start = last - timedelta(days=span)
    scores, onsets, scored, oldest = _scores(series, start, last)
    days = max(1.0, (last - max(start, oldest or start)) / timedelta(days=1))
    anomalies = list(
        Anomaly.objects.filter(
            series=series, origin=Anomaly.Origin.DETECTOR,
            onset_at__gte=last - LABELS_OF, onset_at__lte=last,
        )
        .only("id", "onset_at", "end_at", "score", "peak_score", "label", "direction", "value",
              "expected_mid", "severity", "anomaly_type", "source", "metric")
        .order_by("-onset_at")[:MOST]
    )  # fmt: skip
    stored = [a for a in anomalies if a.onset_at >= start]
    hidden = [a for a in stored if not finds(draft, a)]
    near = near_misses(series, start, last)
    meant = [c for c in near if draft.means(c.direction, c.deviation, c.expected_mid)]
    rows = [Near(c.event_at.timestamp(), c.score, c.levels) for c in meant]
    first = (series.first_event_at or start).timestamp()
    opens = told(rows, draft.level, draft.budget, first)
    # The stored onsets know of scores alone; what a policy leaves out only near misses tell.
    reached = onsets[draft.level] if draft.takes_all else sum(
        bool(c.levels >> draft.level & 1) for c in meant
    )  # fmt: skip
    spans = [(a.onset_at, a.end_at) for a in stored]
    added = [c for c, yes in zip(meant, opens, strict=True)
             if yes and not any(begin <= c.event_at <= end for begin, end in spans)]  # fmt: skip
    bars = [
        Bar(float(low), float(high), scores[i] - (scores[i + 1] if i + 1 < len(scores) else 0))
        for i, (low, high) in enumerate(zip(LEVELS, [*LEVELS[1:], 1.0], strict=True))
    ]
    unchanged = draft == Draft(
        policy.threshold, policy.direction, policy.min_absolute_deviation,
        policy.min_relative_deviation, policy.max_onsets_per_day,
    )  # fmt: skip
    return WhatIf(
        draft=draft, policy=policy, present=max(policy.threshold, series.raised_threshold or 0.0),
        span=span, days=days, scored=scored, below=scored - scores[0], bars=bars,
        stored=len(stored), onsets=reached,
        told=len(stored) if unchanged else sum(opens),
        added=0 if unchanged else len(added), hidden=len(hidden),
        hidden_unlabelled=sum(not a.label for a in hidden),
        labelled=[Judged(a, finds(draft, a)) for a in anomalies if a.label],
    )  # fmt: skip


def near_misses(series: Series, start: datetime, end: datetime) -> list[Candidate]:
    """Would-be onsets of the time, oldest first."""
    rows = (
        Candidate.objects.filter(series=series, event_at__gte=start, event_at__lte=end)
        .only("event_at", "score", "levels", "direction", "deviation", "value", "expected_mid",
              "series_id")
        .order_by("-event_at")[:MOST]
    )  # fmt: skip
    return list(rows)[::-1]


def finds(draft: Draft, anomaly: Anomaly) -> bool:
    """Whether an anomaly reached the draft's threshold, and is one that it speaks of."""
    score = anomaly.score if anomaly.peak_score is None else anomaly.peak_score
    if score is None or score < draft.threshold:
        return False
    deviation = None
    if anomaly.value is not None and anomaly.expected_mid is not None:
        deviation = anomaly.value - anomaly.expected_mid
    return draft.means(anomaly.direction, deviation, anomaly.expected_mid)


def _scores(series: Series, start: datetime, end: datetime
            ) -> tuple[Sequence[int], Sequence[int], int, datetime | None]:  # fmt: skip
    """Scores and onsets at each of LEVELS, scored events in all, and the oldest minute."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNTS, {"series": series.pk, "start": start, "end": end})
        scores, onsets, scored, oldest = cursor.fetchone()
    none = [0] * len(LEVELS)
    return ([int(n) for n in scores or none], [int(n) for n in onsets or none], int(scored or 0),
            oldest)  # fmt: skip


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None
