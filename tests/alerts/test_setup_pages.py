"""Pages of teams, hours and tags, and a rule's life: team, test, retiring and coming back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from alerts import rules
from alerts.models import Hours, Notification, Receiver, Rule, RuleVersion, Tag, Team
from alerts.spec import RuleSpec
from tests import builders
from tests.alerts import rows, scene

pytestmark = pytest.mark.django_db
OFFICE = {"name": "Office", "time_zone": "Europe/Berlin", "holidays": "de-by",
          "dates": "2026-12-24, 2026-12-31", "days.0": ["mon", "fri"], "from.0": "09:00",
          "to.0": "17:00", "days.1": ["sat"], "from.1": "22:00", "to.1": "06:00"}  # fmt: skip


def test_hours_are_made_changed_and_deleted_once_nothing_needs_them(operator: Client) -> None:
    assert operator.post("/alerts/setup/hours/new", OFFICE).status_code == 302
    row = Hours.objects.get()
    assert (row.holidays, row.dates) == ("DE-BY", ["2026-12-24", "2026-12-31"])
    assert row.weekly[1] == {"days": ["sat"], "from": "22:00", "to": "06:00"}
    page = operator.get("/alerts/setup/").content.decode()
    assert "Mon, Fri 09:00–17:00, Sat 22:00–06:00, not on holidays of DE-BY" in page
    path = f"/alerts/setup/hours/{row.pk}/"
    assert "2026-12-24, 2026-12-31" in operator.get(path).content.decode()

    quiet = rows.receiver("Pager", quiet_hours=row)
    rules.make("Paging", RuleSpec.read({"send": [{"receiver": "Pager", "hours": "Office"}]}), "a")
    operator.post(f"{path}delete")
    answer = operator.post(path, OFFICE | {"name": "Other"})
    assert answer.status_code == 400
    assert "Paging names it so" in answer.content.decode().replace("&#x27;", "'")
    Rule.objects.all().delete()
    quiet.delete()
    operator.post(path, OFFICE | {"name": "Other"})
    row.refresh_from_db()
    assert row.name == "Other"
    operator.post(f"{path}delete")
    assert not Hours.objects.exists()


def test_a_team_has_members_and_a_budget_that_is_watched(operator: Client) -> None:
    anna = builders.user("anna")
    given = {"name": "Payments", "time_zone": "UTC", "budget_per_day": "1", "members": [anna.pk]}
    assert operator.post("/alerts/setup/teams/new", given).status_code == 302
    team = Team.objects.get()
    assert (team.budget_per_day, list(team.members.all())) == (1, [anna])
    version = rows.version()
    Rule.objects.update(team=team)
    to = rows.receiver()
    for minutes in (1, 2):
        rows.notification(to, rule_version=version,
                          event_at=timezone.now() - timedelta(minutes=minutes))  # fmt: skip
    assert "2 of 1" in operator.get("/alerts/setup/").content.decode()
    operator.post(f"/alerts/setup/teams/{team.pk}/delete")
    assert Team.objects.exists()
    operator.post(f"/alerts/setup/teams/{team.pk}/", given | {"budget_per_day": "", "members": []})
    team.refresh_from_db()
    assert (team.budget_per_day, team.members.count()) == (None, 0)


def test_tags_come_and_go(operator: Client) -> None:
    given = {"key": "team", "value": "payments", "stream": "*", "source": "checkout-*",
             "metric": "*"}  # fmt: skip
    operator.post("/alerts/setup/tags/new", given)
    tag = Tag.objects.get()
    twice = operator.post("/alerts/setup/tags/new", given)
    assert (twice.status_code, Tag.objects.count()) == (400, 1)
    operator.post(f"/alerts/setup/tags/{tag.pk}/delete")
    assert not Tag.objects.exists()


def test_viewers_look_and_change_nothing(viewer: Client) -> None:
    row = Hours.objects.create(name="Office", weekly=[])
    for path in ("/alerts/setup/", f"/alerts/setup/hours/{row.pk}/", "/alerts/setup/teams/new"):
        assert viewer.get(path).status_code == 200
    for path in ("hours/new", f"hours/{row.pk}/", f"hours/{row.pk}/delete", "teams/new",
                 "tags/new"):  # fmt: skip
        assert viewer.post(f"/alerts/setup/{path}", OFFICE).status_code == 403
    assert Hours.objects.get().weekly == []


def test_a_rule_gets_a_team_and_keeps_what_names_it(operator: Client) -> None:
    team = Team.objects.create(name="Payments")
    rule = scene.rule("Paging")
    path = f"/alerts/rules/{rule.pk}/describe"
    operator.post(path, {"name": "Paging EU", "team": str(team.pk)})
    rule.refresh_from_db()
    assert (rule.name, rule.team) == ("Paging EU", team)
    assert operator.post(path, {"name": "", "team": ""}).status_code == 400
    assert operator.post(path, {"name": "x", "team": "٣"}).status_code == 400


def test_a_rules_test_goes_to_whom_it_would_tell_and_says_what_it_is(operator: Client) -> None:
    for name in ("Slack", "Pager", "Mail"):
        rows.receiver(name)
    Receiver.objects.filter(name="Mail").update(enabled=False)
    rule = scene.rule("Paging", send=[{"receiver": n} for n in ("Slack", "Mail", "Slack")])
    answer = operator.post(f"/alerts/rules/{rule.pk}/test", follow=True)
    row = Notification.objects.get()
    assert (row.receiver.name, row.reason, row.payload["rule"]) == ("Slack", "test", "Paging")
    assert "Switched off or gone: Mail" in answer.content.decode()
    detail = operator.get(f"/alerts/deliveries/{row.pk}/").content.decode()
    assert "This is a test, nothing is wrong. The rule Paging would tell this receiver." in detail
    silent = scene.rule("Silent")
    answer = operator.post(f"/alerts/rules/{silent.pk}/test", follow=True)
    assert "No test was sent" in answer.content.decode()


def test_a_rule_retires_with_its_history_and_comes_back_switched_off(operator: Client) -> None:
    incident = scene.incident(1, opened_at=timezone.now())
    rule = incident.rule
    assert rule is not None
    to = rows.receiver("Slack")
    rows.notification(to, incident, rule_version=rule.live)
    page = operator.get(f"/alerts/rules/{rule.pk}/retire").content.decode()
    assert "1 notification</b>, nobody is told any more; <b>1 incident</b> no other rule" in page
    operator.post(f"/alerts/rules/{rule.pk}/retire")
    rule.refresh_from_db()
    assert (rule.enabled, rule.retired_at is None) == (False, False)
    assert RuleVersion.objects.filter(rule=rule).exists()
    incident.refresh_from_db()
    assert incident.rule == rule
    assert f"/alerts/rules/{rule.pk}/" not in operator.get("/alerts/").content.decode()
    assert f"/alerts/rules/{rule.pk}/" in operator.get("/alerts/?retired=1").content.decode()
    assert "retired rule" in operator.post("/alerts/rules/new", {"name": "all"}).content.decode()
    assert operator.get(f"/alerts/rules/{rule.pk}/").status_code == 200
    operator.post(f"/alerts/rules/{rule.pk}/bring-back")
    rule.refresh_from_db()
    assert (rule.enabled, rule.retired_at) == (False, None)
