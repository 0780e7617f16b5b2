"""What a budget of onsets a day held back: of one series, and of all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, F, Q, Sum

from anomalies.models import Anomaly, Candidate
from detection.models import VersionLog
from detection.thresholds import HELD_BACK, WOULD_OPEN, Policy, PolicyTable
from streams.models import Series

WINDOW = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Quiet:
    """The last seven days of a series' own event time under its policy.

    ``threshold`` is the one in effect, ``raised`` the anomalies there were, ``without`` the onsets
    there would have been at the policy's own threshold, ``held`` those of them held back. A series
    that was held back first and raised as it grew worse counts in all three.
    """

    policy: Policy
    threshold: float
    days: float
    raised: int
    without: int
    held: int

    @property
    def limited(self) -> bool:
        return self.policy.max_onsets_per_day > 0

    @property
    def acts(self) -> bool:
        """Whether there is anything to tell."""
        return self.held > 0 or self.threshold > self.policy.threshold

    @property
    def raised_a_day(self) -> float:
        return self.raised / self.days

    @property
    def without_a_day(self) -> float:
        return self.without / self.days


def policy_of(series: Series) -> Policy | None:
    """The policy by which consumers score the series now; None where none ran yet."""
    newest = (
        VersionLog.objects.filter(incarnation__stream=series.stream_id)
        .select_related("scoring_version").order_by("-created_at", "-pk").first()
    )  # fmt: skip
    if newest is None:
        return None
    table = PolicyTable([Policy(**p) for p in newest.scoring_version.payload["policies"]])
    return next(p for p in table.policies if p.matches(series.source, series.metric))


def of_series(series: Series) -> Quiet | None:
    """None where nothing was scored yet."""
    policy, first, last = policy_of(series), series.first_event_at, series.last_event_at
    if policy is None or first is None or last is None:
        return None
    start = max(first, last - WINDOW)
    counted = (
        Candidate.objects.filter(series=series, event_at__gte=start)
        .annotate(
            would=F("levels").bitand(WOULD_OPEN), withheld=F("levels").bitand(HELD_BACK)
        )
        .aggregate(without=Count("pk", Q(would__gt=0)), held=Count("pk", Q(withheld__gt=0)))
    )  # fmt: skip
    raised = Anomaly.objects.filter(
        series=series, origin=Anomaly.Origin.DETECTOR, kind="episode", onset_at__gte=start
    ).count()
    return Quiet(
        policy=policy,
        threshold=max(policy.threshold, series.raised_threshold or 0.0),
        days=max(1.0, (last - start) / timedelta(days=1)),
        raised=raised,
        without=counted["without"],
        held=counted["held"],
    )


def totals() -> dict[str, Any]:
    """How many series have a raised threshold now, and the onsets held back so far."""
    found = Series.objects.aggregate(
        series_raised=Count("raised_threshold"), held_back=Sum("held_back")
    )
    return {"series_raised": found["series_raised"], "held_back": found["held_back"] or 0}
