"""Thresholds that labels speak for, with what they would have done: counted, nothing is scored."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Coalesce

from anomalies.models import Anomaly
from detection.models import ThresholdPolicy
from detection.thresholds import LEVELS, Policy
from detection.versions import policy_table
from streams import audit
from streams.audit import Action, Actor
from streams.models import Series

WEEK = timedelta(days=7)
LABELS_OF = timedelta(days=90)
NAME_LENGTH = 100

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


def policy_of(series: Series) -> Policy:
    """The threshold policy that counts for a series now."""
    given = settings.VIGIL.anomaly_detection
    table = policy_table(
        series.stream,
        {"threshold": given.threshold, "max_onsets_per_day": given.max_onsets_per_day},
    )
    return table.policies[int(table.index([(series.source, series.metric)])[0])]


def propose(series: Series) -> Proposal | None:
    """The lowest threshold that avoids most false alarms and loses nothing that was real.

    None where no false alarm is labelled, or none can be avoided without a loss.
    """
    if series.last_event_at is None:
        return None
    rows = (
        Anomaly.objects.filter(
            series=series, origin=Anomaly.Origin.DETECTOR,
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
    policy = policy_of(series)
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
        series=series, origin=Anomaly.Origin.DETECTOR,
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
    given = policy_of(series)
    fields: dict[str, Any] = {
        name: getattr(given, name)
        for name in ("direction", "min_absolute_deviation", "min_relative_deviation",
                     "medium_from", "high_from", "critical_from", "max_onsets_per_day")
    }  # fmt: skip
    if given.max_onsets_per_day == settings.VIGIL.anomaly_detection.max_onsets_per_day:
        fields["max_onsets_per_day"] = None  # goes on following the configuration
    source, metric = _glob(series.source), _glob(series.metric)
    with transaction.atomic():
        own = (
            ThresholdPolicy.objects.select_for_update()
            .filter(stream=series.stream, source_pattern=source, metric_pattern=metric,
                    enabled=True)
            .order_by("-priority", "-pk").first()
        )  # fmt: skip
        before = audit.facts(own, ThresholdPolicy.FOLLOWS) if own is not None else None
        if own is None:
            own = ThresholdPolicy(
                name=_name(series), stream=series.stream, source_pattern=source,
                metric_pattern=metric,
            )  # fmt: skip
        for name, value in fields.items():
            setattr(own, name, value)
        own.threshold, own.priority = threshold, _first(own, series)
        own.save()
        action = Action.CREATED if before is None else Action.CHANGED
        audit.record(actor, action, own, before, audit.facts(own, ThresholdPolicy.FOLLOWS))
    return own


def _onsets(series: Series, last: datetime) -> tuple[list[int], float]:
    """Onsets of the week up to ``last`` at each of LEVELS, and the days that are stored of it."""
    with connection.cursor() as cursor:
        cursor.execute(_ONSETS, {"series": series.pk, "start": last - WEEK, "end": last})
        counts, first, newest = cursor.fetchone()
    if first is None:
        return [], 0.0
    days = max((newest - first) / timedelta(days=1), 1 / 24)
    return [int(n) for n in counts or [0] * len(LEVELS)], float(days)


def _first(own: ThresholdPolicy, series: Series) -> int:
    """The priority with which it wins against every other policy that matches the series."""
    others = [
        p.priority
        for p in ThresholdPolicy.objects.filter(enabled=True).exclude(pk=own.pk)
        if p.stream_id in (None, series.stream_id)
        and Policy(source_pattern=p.source_pattern, metric_pattern=p.metric_pattern).matches(
            series.source, series.metric
        )
    ]
    # Of equal ones the newer counts.
    return max([own.priority, *(n if own.pk is None else n + 1 for n in others)])


def _glob(name: str) -> str:
    """A pattern that matches this name alone."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _name(series: Series) -> str:
    name = f"Feedback: {series.metric} on {series.source}"[: NAME_LENGTH - 12]
    return f"{name} #{series.pk}"
