"""Budgets are solved anew each day, and what was overspent is reported once."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from alerts import rehearsal, spending
from alerts.models import Incident, Notification, Receiver, Rule, Team
from tests.alerts import week

pytestmark = pytest.mark.django_db


def told(rule: Rule, words: int, *, reason: str = "again") -> None:
    now = timezone.now()
    incident = Incident.objects.create(
        key=uuid.uuid4(), rule=rule, group="g", title="t", severity=3, first_at=now, last_at=now,
        opened_at=now,
    )  # fmt: skip
    for i in range(words):
        for receiver in Receiver.objects.all():  # one word to two receivers is one word
            Notification.objects.create(
                id=uuid.uuid4(), incident=incident, rule_version=rule.live, receiver=receiver,
                reason=reason, severity=3, event_at=now - timedelta(minutes=i), payload={},
                due_at=now,
            )  # fmt: skip


def test_an_overspent_budget_is_reported_once_a_day_and_solved_anew() -> None:
    rehearsal.forget()
    week.seed(timezone.now())
    week.receiver()
    week.receiver("Pager", kind="webhook")
    rule = week.rule(when={"budget_per_day": 3}, group={"by": "source"})
    told(rule, 3)
    told(rule, 20, reason="resolved")
    soon = timezone.now() + timedelta(seconds=5)
    assert spending.watch(soon) == []
    rule.refresh_from_db()
    assert rule.solved_score is not None
    assert rule.solved_score > 0
    told(rule, 1)
    (one,) = spending.watch(soon)
    assert (one.spent, one.budget) == (4, 3)
    spending.watch(soon)
    reports = Notification.objects.filter(reason="budget")
    assert [n.receiver.name for n in reports] == ["Mail on-call"]
    assert "sent 4 notifications in 24 hours; its budget is 3 a day" in reports[0].payload["title"]


def test_a_teams_budget_counts_all_its_rules_and_goes_to_its_receivers() -> None:
    team = Team.objects.create(name="Payments", budget_per_day=5)
    week.receiver()
    week.receiver("Team", team=team)
    rules = [week.rule(name) for name in ("one", "two", "others")]
    Rule.objects.filter(pk__in=[r.pk for r in rules[:2]]).update(team=team)
    for rule in rules:
        told(rule, 3)
    (one,) = spending.watch(timezone.now() + timedelta(seconds=5))
    assert (one.what, one.spent) == ("team", 6)
    report = Notification.objects.get(reason="budget")
    assert report.receiver.name == "Team"
    # Old words are spent no more.
    assert spending.watch(timezone.now() + timedelta(days=2)) == []
