"""Budgets of notifications, watched daily: scores solved anew, what was overspent reported."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection
from django.utils import timezone

from alerts import past, rehearsal, rules
from alerts.models import Notification, Receiver, Rule, RuleVersion, Team
from alerts.rules import live_spec
from anomalies.models import Severity

_NAMESPACE = uuid.UUID("b52a3c8e-30a5-5f0e-8d5b-0f6f6f1d7a42")

_SPENT = """
SELECT v.rule_id, count(*) FROM (
    SELECT DISTINCT n.rule_version_id, n.incident_id, n.reason, n.event_at
    FROM alerts_notification n
    WHERE n.created_at >= %s AND n.created_at < %s AND n.state <> 'cancelled'
        AND n.incident_id IS NOT NULL AND n.reason = ANY(%s)) AS words
JOIN alerts_ruleversion v ON v.id = words.rule_version_id GROUP BY 1
"""


@dataclass(frozen=True, slots=True)
class Overspent:
    """A rule or a team that sent more within a day than it may."""

    what: str
    name: str
    spent: int
    budget: float
    receivers: tuple[Receiver, ...]
    version: RuleVersion | None = None

    @property
    def sentence(self) -> str:
        """For people."""
        return (
            f"{self.what.capitalize()} {self.name} sent {self.spent} notifications in 24 hours;"
            f" its budget is {self.budget:g} a day."
        )


def spent(start: datetime, end: datetime) -> dict[int, int]:
    """Words of trouble by rule, by when they were decided, whoever heard them."""
    with connection.cursor() as cursor:
        cursor.execute(_SPENT, [start, end, list(past.TROUBLE)])
        return {rule: int(count) for rule, count in cursor.fetchall()}


def by_team(now: datetime) -> dict[int, int]:
    """Words of trouble of the last 24 hours by team, of the rules that are theirs."""
    words = spent(now - timedelta(days=1), now)
    owners = dict(Rule.objects.exclude(team=None).values_list("pk", "team_id"))
    found: dict[int, int] = {}
    for rule, count in words.items():
        if (team := owners.get(rule)) is not None:
            found[team] = found.get(team, 0) + count
    return found


def watch(now: datetime | None = None) -> list[Overspent]:
    """Solve each budget anew, and tell the receivers of those that were overspent.

    Once a day for each: a repeat on the same day (UTC) meets the same notification.
    """
    now = now or timezone.now()
    words = spent(now - timedelta(days=1), now)
    found: list[Overspent] = []
    for rule in Rule.objects.exclude(live=None).select_related("live").order_by("pk"):
        count = words.get(rule.pk, 0)
        spec = live_spec(rule)
        if spec is None or spec.when.budget_per_day is None or not rule.enabled:
            continue
        solved = rehearsal.of_rule(rule, spec, now=now).solved
        if solved is not None:
            rules.keep_solved(rule, solved.score)
        if count > spec.when.budget_per_day:
            names = [s.receiver for s in spec.send if s.after_s <= 0]
            told = tuple(Receiver.objects.filter(name__in=names, enabled=True).order_by("pk"))
            found.append(
                Overspent("rule", rule.name, count, spec.when.budget_per_day, told, rule.live)
            )
    teams = by_team(now)
    for team in Team.objects.exclude(budget_per_day=None).order_by("pk"):
        count = teams.get(team.pk, 0)
        if team.budget_per_day is not None and count > team.budget_per_day:
            told = tuple(Receiver.objects.filter(team=team, enabled=True).order_by("pk"))
            found.append(Overspent("team", team.name, count, team.budget_per_day, told))
    _report(found, now)
    return found


def _report(found: Sequence[Overspent], now: datetime) -> None:
    rows = [
        Notification(
            id=uuid.uuid5(_NAMESPACE, f"{one.what}/{one.name}/{now:%Y-%m-%d}/{receiver.pk}"),
            receiver=receiver, rule_version=one.version, reason=Notification.Reason.BUDGET,
            severity=Severity.MEDIUM, event_at=now, due_at=now,
            payload={
                "reason": "budget", "title": one.sentence, "what": one.what, "name": one.name,
                "spent": one.spent, "budget": one.budget, "event_at": now.isoformat(),
                "severity": "medium",
            },
        )
        for one in found for receiver in one.receivers
    ]  # fmt: skip
    Notification.objects.bulk_create(rows, ignore_conflicts=True)
