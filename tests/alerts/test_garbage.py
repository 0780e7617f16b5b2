"""Whatever is posted to a form of alerts: a field error or a plain refusal, never a 500."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import get_resolver

from alerts import inbound, rules, surroundings
from alerts.models import Hours, InboundSource, Notification, Tag, Team
from alerts.receivers import KINDS
from alerts.spec import RuleSpec
from streams.models import AuditEntry
from tests.alerts import rows, scene
from tests.alerts.test_audit_pages import silence
from tests.alerts.test_rule_pages import fields
from tests.alerts.test_setup_pages import OFFICE

pytestmark = pytest.mark.django_db
JUNK = ["", "\x00", "x" * 5_000, "-1", "1e999", "nan", "9" * 40, "٣", "[]", "<script>", "%",
        "0001-01-01T00:00", "\u202e", "a,b,=", "(" * 300, "FREQ=SECONDLY"]  # fmt: skip
SILENCE = {"name": "x", "series": "a / b", "starts": "2026-11-22T02:00", "ends": "2026-11-22T03:00",
           "time_zone": "UTC", "again": "", "min_severity": "low",
           "max_severity": "critical"}  # fmt: skip
TEAM = {"name": "Payments", "time_zone": "UTC", "budget_per_day": "5", "members": "1"}
TAG = {"key": "team", "value": "a", "stream": "*", "source": "*", "metric": "*"}
RECEIVER = {"name": "ops", "per_minute": "30", "digest_minutes": "0", "team": "", "quiet_hours": "",
            "subject_template": "", "body_template": ""}  # fmt: skip


def world() -> dict[str, Any]:
    """One of each; ids for the addresses."""
    rule = scene.rule("all")
    rules.draft_of(rule, RuleSpec(cooldown_s=60), "anna")
    to = rows.receiver("Slack")
    hours = Hours(name="Office", weekly=[{"days": ["mon"], "from": "09:00", "to": "17:00"}])
    surroundings.save(hours, "anna", None)
    team, tag = Team.objects.create(name="Team"), Tag.objects.create(key="a", value="b")
    source = InboundSource(name="prod")
    inbound.new_token(source)
    source.save()
    quiet = silence()
    incident = scene.incident(1)
    note = rows.notification(to, incident, state=Notification.State.DEAD)
    return {"rule": rule.pk, "receiver": to.pk, "hours": hours.pk, "team": team.pk, "tag": tag.pk,
            "source": source.pk, "silence": quiet.pk, "incident": incident.pk,
            "notification": note.pk, "entry": AuditEntry.objects.order_by("pk")[0].pk}  # fmt: skip


def forms(of: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each address that takes a form, with values that it would take."""
    rule, silence_path = f"/alerts/rules/{of['rule']}", f"/alerts/silences/{of['silence']}"
    incident, setup = f"/incidents/{of['incident']}", "/alerts/setup"
    found: dict[str, dict[str, Any]] = {
        "/alerts/rules/new": {"name": "New", "copy": ""},
        f"{rule}/draft": fields() | {"add": "", "drop": "", "silence": "", "unsilence": ""},
        f"{rule}/draft?as=yaml": {"yaml": "cooldown_s: 60"},
        f"{rule}/live": {"do": "live", "seen": "x"},
        f"{rule}/history": {"number": "1"},
        f"{rule}/describe": {"name": "all", "team": ""},
        f"{rule}/test": {}, f"{rule}/bring-back": {}, f"{rule}/discard": {},
        f"{rule}/retire": {},
        "/alerts/silences/create": SILENCE, "/alerts/silences/preview": SILENCE,
        f"{silence_path}/save": SILENCE, f"{silence_path}/preview": SILENCE,
        f"{silence_path}/switch": {"on": "1"}, f"{silence_path}/end": {},
        f"{setup}/hours/new": OFFICE, f"{setup}/hours/{of['hours']}/": OFFICE,
        f"{setup}/teams/new": TEAM, f"{setup}/teams/{of['team']}/": TEAM,
        f"{setup}/tags/new": TAG,
        f"{setup}/hours/{of['hours']}/delete": {}, f"{setup}/teams/{of['team']}/delete": {},
        f"{setup}/tags/{of['tag']}/delete": {},
        "/alerts/inbound/new": {"name": "x"},
        f"/alerts/inbound/{of['source']}/renew": {},
        f"/alerts/audit/{of['entry']}/revert": {"seen": "x", "anyway": "on"},
        f"/alerts/receivers/{of['receiver']}/": RECEIVER | {"s_url": "https://example.com/"},
        f"/alerts/receivers/{of['receiver']}/test": {},
        f"/alerts/receivers/{of['receiver']}/delete": {"name": "x"},
        "/alerts/receivers/preview": {"subject_template": "a", "body_template": "b",
                                      "notification": str(of["notification"])},
        "/alerts/deliveries/resend": {"receiver": str(of["receiver"])},
        f"/alerts/deliveries/{of['notification']}/resend": {},
    }  # fmt: skip
    for action in ("assign", "comment", "snooze", "label", "merge", "acknowledge", "resolve",
                   "reopen", "nonsense"):  # fmt: skip
        found[f"{incident}/{action}/"] = {"value": "1"}
    for name, kind in KINDS.items():
        own = {f"s_{f.name}": f.usual or "x" for f in kind.fields}
        found[f"/alerts/receivers/new/{name}"] = RECEIVER | own
    return found


def test_no_form_of_alerts_ends_in_a_fault(operator: Client) -> None:
    of = world()
    operator.raise_request_exception = False
    faults = []
    for path, good in forms(of).items():
        names = list(good)
        # Each mistake in each field in turn, beside others; then each field alone, by one of them.
        tries: list[dict[str, Any]] = [{}, good]
        tries += [
            {name: JUNK[(i + j) % len(JUNK)] for j, name in enumerate(names)}
            for i in range(0, len(JUNK) if names else 0, 2)
        ]
        tries += [good | {name: JUNK[j % len(JUNK)]} for j, name in enumerate(names)]
        for given in tries:
            status = operator.post(path, given).status_code
            if status not in (200, 302, 400, 403, 404, 409):
                faults.append((path, given, status))
    assert faults == []


@pytest.mark.parametrize(
    ("path", "given", "field"),
    [
        ("/alerts/setup/hours/new", OFFICE | {"from.0": "25:00"}, "From a time like 08:00."),
        ("/alerts/setup/hours/new", OFFICE | {"days.0": ""}, "Tick at least one day."),
        ("/alerts/setup/hours/new", OFFICE | {"holidays": "XX"}, "no country"),
        ("/alerts/setup/hours/new", OFFICE | {"dates": "Christmas"}, "2026-12-24"),
        ("/alerts/setup/hours/new", OFFICE | {"time_zone": "Mars"}, "no time zone"),
        ("/alerts/setup/teams/new", TEAM | {"budget_per_day": "-1"}, "More than 0"),
        ("/alerts/setup/teams/new", TEAM | {"members": "999999"}, "not there"),
        ("/alerts/setup/tags/new", TAG | {"key": "a=b"}, "Neither a comma"),
        ("/alerts/silences/create", SILENCE | {"ends": "x"}, "A day and a time"),
        ("/alerts/receivers/new/webhook", RECEIVER | {"s_url": "ftp://x"}, "class=\"error\""),
        ("/alerts/inbound/new", {"name": "a b"}, "letters, digits"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_at_its_field(
    operator: Client, path: str, given: dict[str, Any], field: str
) -> None:
    answer = operator.post(path, given)
    page = answer.content.decode().replace("&#x27;", "'")
    assert answer.status_code == 400
    assert field in page


def test_the_table_knows_each_address_that_takes_a_form(db: None) -> None:
    """A form that comes later is to be tried as well."""
    known = [path.partition("?")[0] for path in forms(world())]
    resolver = get_resolver()
    tried = {resolver.resolve(path).url_name for path in known}
    posts = {
        pattern.name
        for module in resolver.url_patterns
        for pattern in getattr(module, "url_patterns", [])
        if _of_alerts(getattr(pattern, "callback", None)) and _posts(pattern.callback)
    }
    assert posts - tried - {"api-alert", "alert-link"} == set()


def _of_alerts(view: Callable[..., Any] | None) -> bool:
    return (
        view is not None
        and view.__module__.startswith("alerts.")
        and not view.__module__.endswith("_api")
    )


def _posts(view: Any) -> bool:
    """Whether a view takes POST: one that says `require_GET` does not."""
    while view is not None:
        for cell in view.__closure__ or ():
            if isinstance(cell.cell_contents, list) and "POST" in cell.cell_contents:
                return True
        view = getattr(view, "__wrapped__", None)
    return False
