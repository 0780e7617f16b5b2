"""A threshold saved from a series' page: for it, its metric or its stream; and taken back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Count, F

from anomalies.models import Anomaly, Candidate
from detection.models import ThresholdPolicy, VersionLog
from detection.thresholds import LEVELS, Policy, PolicyTable
from detection.versions import policy_table
from streams import audit
from streams.audit import Action, Actor
from streams.models import AuditEntry, Series

NAME_LENGTH = 100
WEEK = timedelta(days=7)
SHOWN_FOR = timedelta(days=1)
SCOPES = {"series": "this series", "metric": "this metric in the stream", "stream": "the stream"}
WIDE_PRIORITY = -10
"""Of a new policy for a metric: below those that name one series, which keep theirs."""
RULE = ("threshold", "direction", "min_absolute_deviation", "min_relative_deviation",
        "medium_from", "high_from", "critical_from", "max_onsets_per_day")  # fmt: skip
KIND = ThresholdPolicy._meta.label


class ChangedSinceError(Exception):
    """The policy was changed by somebody else meanwhile, so there is nothing to take back."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to count; None is as in the policy that counts now."""

    threshold: float
    direction: str | None = None
    least: float | None = None
    budget: float | None = None
    scope: str = "series"


@dataclass(frozen=True, slots=True)
class Reach:
    """What saving would do: ``counts`` for so many of ``series``; the others have narrower ones.

    ``stored`` anomalies of the last week there were on those, ``onsets`` there would have been
    before any budget; None where that is not counted.
    """

    name: str
    version: int
    made: bool
    series: int
    counts: int
    for_this: bool
    winner: str
    others: list[tuple[str, int]]
    stored: int
    onsets: int | None


def counting(series: Series) -> Policy:
    """The threshold policy that counts for a series now, by the rows of now."""
    table = _table(series)
    return table.policies[int(table.index([(series.source, series.metric)])[0])]


def matching(series: Series) -> list[Policy]:
    """Every policy that speaks of the series, the one that counts first."""
    policies = _table(series).policies
    return [p for p in policies if p.matches(series.source, series.metric)]


def is_own(policy: ThresholdPolicy, series: Series) -> bool:
    """Whether it speaks of this series alone."""
    patterns = pattern_of(series.source), pattern_of(series.metric)
    return (policy.source_pattern, policy.metric_pattern) == patterns and (
        policy.stream_id == series.stream_id
    )


def save(series: Series, wish: Wish, actor: Actor = None) -> ThresholdPolicy:
    """Make it the policy of the series, its metric or its stream; consumers take it up by itself.

    What the wish leaves open is as in the policy that counts for the series now.
    """
    given = counting(series)
    with transaction.atomic():
        own = _own(series, wish.scope)
        before = audit.facts(own, ThresholdPolicy.FOLLOWS) if own.pk is not None else None
        for name, value in _fields(given, wish).items():
            setattr(own, name, value)
        own.enabled = True
        if wish.scope == "series":
            own.priority = _first(own, series)
        own.save()
        action = Action.CREATED if before is None else Action.CHANGED
        audit.record(actor, action, own, before, audit.facts(own, ThresholdPolicy.FOLLOWS))
    return own


def undo(entry: AuditEntry, actor: Actor) -> ThresholdPolicy:
    """Take a change back: the policy as it was, or disabled where the change made it.

    Raises:
        ChangedSinceError: it is not as the change left it.
    """
    with transaction.atomic(), audit.taking_back(entry):
        policy = ThresholdPolicy.objects.select_for_update().filter(pk=entry.object_id).first()
        if policy is None:
            raise ChangedSinceError(entry.object_name)
        now = audit.facts(policy, ThresholdPolicy.FOLLOWS)
        if now != entry.after:
            raise ChangedSinceError(policy.name)
        before = entry.before or {"enabled": False}
        for name in (*RULE, "priority", "enabled"):
            if name in before:
                setattr(policy, name, before[name])
        policy.save()
        audit.record(actor, Action.CHANGED, policy, now,
                     audit.facts(policy, ThresholdPolicy.FOLLOWS))  # fmt: skip
    return policy


@dataclass(frozen=True, slots=True)
class Latest:
    """The last change of a policy that speaks of the series, whether consumers score by it, and
    since when where that is known."""

    entry: AuditEntry
    policy: ThresholdPolicy
    live: bool
    live_since: datetime | None


def latest(series: Series, now: datetime) -> Latest | None:
    """The newest change of the last day, if it still stands and can be taken back."""
    names = [policy.name for policy in matching(series)]
    policies = {str(p.pk): p for p in ThresholdPolicy.objects.filter(name__in=names)}
    entry = (
        AuditEntry.objects.filter(kind=KIND, object_id__in=list(policies), at__gte=now - SHOWN_FOR)
        .order_by("-pk").first()
    )  # fmt: skip
    if entry is None or entry.reverts_id is not None:
        return None
    policy = policies[entry.object_id]
    if entry.after != audit.facts(policy, ThresholdPolicy.FOLLOWS):
        return None
    version = (
        VersionLog.objects.filter(incarnation__stream=series.stream_id)
        .select_related("scoring_version").order_by("-created_at", "-pk").first()
    )  # fmt: skip
    known = version is not None and any(
        (p["name"], p["version"]) == (policy.name, policy.version)
        for p in version.scoring_version.payload["policies"]
    )
    # Where no event came between two versions, the log's row is older than what it names.
    since = version.created_at if version is not None and known else None
    return Latest(entry, policy, known, since if since and since >= entry.at else None)


def reach(series: Series, wish: Wish) -> Reach:
    """What saving would do: it is tried and rolled back, so that it is what saving does."""
    scope: dict[str, Any] = {"stream": series.stream}
    if wish.scope == "metric":
        scope["metric"] = series.metric
    elif wish.scope == "series":
        scope["pk"] = series.pk
    rows = list(Series.objects.filter(**scope).values_list("pk", "source", "metric"))
    with _tried(series, wish) as policy:
        table = _table(series)
        index = table.index([(source, metric) for _, source, metric in rows]).tolist()
        made = policy.version == 1
        winner = counting(series)
    names = [table.policies[i].name for i in index]
    mine = [pk for (pk, _, _), name in zip(rows, names, strict=True) if name == policy.name]
    others = Counter(name for name in names if name != policy.name).most_common(3)
    stored, onsets = _effect(series, wish, scope, mine)
    return Reach(
        name=policy.name, version=policy.version, made=made, series=len(rows), counts=len(mine),
        for_this=series.pk in mine, winner=winner.name, others=others, stored=stored, onsets=onsets,
    )  # fmt: skip


def _effect(series: Series, wish: Wish, scope: dict[str, Any], mine: list[int]) -> tuple[int, int]:
    """Anomalies of the last week of these series, and onsets at the wished threshold."""
    start = (series.last_event_at or series.created_at) - WEEK
    level = int(abs(LEVELS - wish.threshold).argmin())
    of = {f"series__{name}": value for name, value in scope.items()}
    anomalies = Anomaly.objects.filter(
        origin=Anomaly.Origin.DETECTOR, onset_at__gte=start, **of
    ).order_by()
    near = (
        Candidate.objects.filter(event_at__gte=start, **of)
        .annotate(at_level=F("levels").bitand(1 << level)).filter(at_level__gt=0).order_by()
    )  # fmt: skip
    if wish.direction in ("up", "down"):
        near = near.filter(direction=1 if wish.direction == "up" else -1)
    counted = set(mine)
    return (
        sum(n for pk, n in anomalies.values_list("series").annotate(n=Count("pk"))
            if pk in counted),
        sum(n for pk, n in near.values_list("series").annotate(n=Count("pk")) if pk in counted),
    )  # fmt: skip


@contextmanager
def _tried(series: Series, wish: Wish) -> Iterator[ThresholdPolicy]:
    with transaction.atomic():
        yield save(series, wish)
        transaction.set_rollback(True)


def _table(series: Series) -> PolicyTable:
    given = settings.VIGIL.anomaly_detection
    return policy_table(
        series.stream,
        {"threshold": given.threshold, "max_onsets_per_day": given.max_onsets_per_day},
    )


def _own(series: Series, scope: str) -> ThresholdPolicy:
    """The policy of exactly this scope, or a new one."""
    source = pattern_of(series.source) if scope == "series" else ""
    metric = "" if scope == "stream" else pattern_of(series.metric)
    found = (
        ThresholdPolicy.objects.select_for_update()
        .filter(stream=series.stream, source_pattern=source, metric_pattern=metric)
        .order_by("-enabled", "-priority", "-pk").first()
    )  # fmt: skip
    return found or ThresholdPolicy(
        name=_name(series, scope), stream=series.stream, source_pattern=source,
        metric_pattern=metric, priority=WIDE_PRIORITY if scope == "metric" else 0,
    )  # fmt: skip


def _fields(given: Policy, wish: Wish) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(given, name) for name in RULE}
    if given.max_onsets_per_day == settings.VIGIL.anomaly_detection.max_onsets_per_day:
        fields["max_onsets_per_day"] = None  # goes on following the configuration
    fields["threshold"] = wish.threshold
    if wish.direction is not None:
        fields["direction"] = wish.direction
    if wish.least is not None:
        fields["min_absolute_deviation"] = wish.least
    if wish.budget is not None and wish.budget != given.max_onsets_per_day:
        fields["max_onsets_per_day"] = wish.budget
    return fields


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


def pattern_of(name: str) -> str:
    """A pattern that matches this name alone."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _name(series: Series, scope: str) -> str:
    if scope == "stream":
        return f"Stream {series.stream.name}"[: NAME_LENGTH - 12] + f" #{series.stream_id}"
    what = series.metric if scope == "metric" else f"{series.metric} on {series.source}"
    kind = "Metric" if scope == "metric" else "Series"
    return f"{kind}: {what}"[: NAME_LENGTH - 12] + f" #{series.pk}"
