"""Thresholds that labels speak for, with what they would have done: counted, nothing is scored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection
from django.db.models.functions import Coalesce

from anomalies import own_policy
from anomalies.models import Anomaly
from detection.models import ThresholdPolicy
from detection.thresholds import LEVELS, Policy
from streams.audit import Actor
from streams.models import Series

WEEK = timedelta(days=7)
LABELS_OF = timedelta(days=90)

_ONSETS = """
SELECT (SELECT array_agg(n ORDER BY i) FROM (
          SELECT u.i, sum(u.n) AS n
            FROM streams_rollup r CROSS JOIN LATERAL unnest(r.onset_counts) WITH ORDINALITY u(n, i)
           WHERE r.series_id = %(series)s AND r.minute >= %(start)s AND r.minute <= %(end)s
             AND r.onset_counts IS NOT NULL
           GROUP BY u.i) levels),
       min(minute), max(minute)
  FROM streams_rollup
 WHERE series_id = %(series)s AND minute >= %(start)s AND minute <= %(end)s
"""


@dataclass(frozen=True, slots=True)
class Preview:
    """What one threshold would have done of what is stored.

    ``onsets`` are of the last week of the series, labelled ones of 90 days.
    """

    threshold: float
    onsets: int
    real_lost: int
    false_alarms_left: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """A higher threshold for one series, beside the one of now."""

    series: Series
    policy: Policy
    now: Preview
    then: Preview
    levels: tuple[Preview, ...]
    real: int
    false_alarms: int
    days: float

    @property
    def avoided(self) -> int:
        """False alarms of now that the threshold would have spared."""
        return self.now.false_alarms_left - self.then.false_alarms_left


def propose(series: Series) -> Proposal | None:
    """The lowest threshold that avoids most false alarms and loses nothing that was real.

    None where no false alarm is labelled, or none can be avoided without a loss.
    """
    if series.last_event_at is None:
        return None
    rows = (
        Anomaly.objects.filter(
            series=series, origin=Anomaly.Origin.DETECTOR, kind="episode",
            label__in=[Anomaly.Label.REAL, Anomaly.Label.FALSE_ALARM],
            onset_at__gte=series.last_event_at - LABELS_OF,
        )
        .order_by()
        .values_list("label", Coalesce("peak_score", "score"))
    )  # fmt: skip
    labelled = [(label, score) for label, score in rows if score is not None]
    real = [score for label, score in labelled if label == Anomaly.Label.REAL]
    wrong = [score for label, score in labelled if label == Anomaly.Label.FALSE_ALARM]
    if not wrong:
        return None
    policy = own_policy.counting(series)
    onsets, days = _onsets(series, series.last_event_at)
    if not onsets:
        return None
    levels = [
        Preview(float(level), onsets[i], sum(s < level for s in real),
                sum(s >= level for s in wrong))
        for i, level in enumerate(LEVELS.tolist())
    ]  # fmt: skip
    # A budget of onsets may have raised it beyond the policy's own.
    present = max(policy.threshold, series.raised_threshold or 0.0)
    stored = Anomaly.objects.filter(
        series=series, origin=Anomaly.Origin.DETECTOR, kind="episode",
        onset_at__gte=series.last_event_at - WEEK, onset_at__lte=series.last_event_at,
    ).count()  # fmt: skip
    now = Preview(present, stored, sum(s < present for s in real), sum(s >= present for s in wrong))
    higher = [p for p in levels if p.threshold > present + 1e-9 and p.onsets <= stored]
    harmless = [p for p in higher if p.real_lost <= now.real_lost]
    if not harmless:
        return None
    then = min(harmless, key=lambda p: (p.false_alarms_left, p.threshold))
    if then.false_alarms_left >= now.false_alarms_left:
        return None
    return Proposal(series, policy, now, then, tuple(higher), len(real), len(wrong), days)


def apply(series: Series, threshold: float, actor: Actor = None) -> ThresholdPolicy:
    """Make this threshold the series' own policy; the rest is as in the one of now.

    Raises:
        ValueError: it is none of the levels that were counted.
    """
    if not any(abs(threshold - level) < 1e-9 for level in LEVELS.tolist()):
        raise ValueError("a threshold of the levels that are counted")
    return own_policy.save(series, own_policy.Wish(threshold), actor)


def _onsets(series: Series, last: datetime) -> tuple[list[int], float]:
    """Onsets of the week up to ``last`` at each of LEVELS, and the days that are stored of it."""
    with connection.cursor() as cursor:
        cursor.execute(_ONSETS, {"series": series.pk, "start": last - WEEK, "end": last})
        counts, first, newest = cursor.fetchone()
    if first is None:
        return [], 0.0
    days = max((newest - first) / timedelta(days=1), 1 / 24)
    return [int(n) for n in counts or [0] * len(LEVELS)], float(days)
