"""Rules as a file: what is exported applies to an empty installation, and twice changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from alerts.models import Hours, Receiver, Rule, Silence, Team
from streams.models import AuditEntry
from tests.alerts import week

pytestmark = pytest.mark.django_db


def run(action: str, *more: str) -> str:
    out = StringIO()
    call_command("rules", action, *more, stdout=out)
    return out.getvalue()


def everything() -> None:
    team = Team.objects.create(name="Payments", budget_per_day=5)
    Hours.objects.create(name="Work", time_zone="Europe/Berlin", holidays="DE-BY", weekly=[
        {"days": ["mon"], "from": "08:00", "to": "18:00"}], dates=["2026-12-24"])  # fmt: skip
    week.receiver(team=team, secrets="encrypted", settings={"to": ["secret@example.org"]})
    at = datetime(2026, 11, 22, 2, tzinfo=UTC)
    week.silence("Sunday", at, at.replace(hour=5), "FREQ=WEEKLY", sources=["checkout-*"])
    rule = week.rule(match={"sources": ["checkout-*"]}, silences=["Sunday"], send=[
        {"receiver": "Mail on-call", "hours": "Work", "after_s": 600}])  # fmt: skip
    Rule.objects.filter(pk=rule.pk).update(team=team)
    week.rule("Only a draft", live=False)


def test_what_is_exported_makes_the_same_elsewhere_and_a_second_apply_nothing(
    tmp_path: Path,
) -> None:
    everything()
    text = run("export")
    assert "secret" not in text
    assert "encrypted" not in text
    assert "Only a draft" not in text
    file = tmp_path / "rules.yaml"
    file.write_text(text, encoding="utf-8")
    assert "Nothing to change" in run("apply", str(file))
    Rule.objects.update(live=None)
    for model in (Rule, Silence, Hours):
        model.objects.all().delete()
    Receiver.objects.update(team=None)
    Team.objects.all().delete()
    assert run("diff", str(file)).startswith("new team 'Payments'")
    assert not Rule.objects.exists()
    assert "new rule 'Checkout paging'" in run("apply", str(file))
    Receiver.objects.update(team=Team.objects.get())
    assert run("export") == text
    audited = AuditEntry.objects.count()
    assert "Nothing to change" in run("apply", str(file))
    assert AuditEntry.objects.count() == audited
    assert Rule.objects.get().versions.count() == 1


def test_a_change_is_a_new_version_and_told_by_line(tmp_path: Path) -> None:
    everything()
    file = tmp_path / "rules.yaml"
    file.write_text(run("export").replace("checkout-*", "shop-*"), encoding="utf-8")
    said = run("diff", str(file))
    assert "changed rule 'Checkout paging'" in said
    assert "  -   - checkout-*\n  +   - shop-*" in said
    run("apply", str(file))
    rule = Rule.objects.get(name="Checkout paging")
    assert rule.live is not None
    assert rule.live.number == 2
    assert rule.live.spec["match"]["sources"] == ["shop-*"]


NEVER = "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"
SPAN = "from: 2026-01-01T00:00:00Z, to: 2026-01-01T01:00:00Z"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rules: {A: {spec: {cooldown_s: soon}}}",
         "rules.A.spec.cooldown_s: found 'soon'; allowed: a number"),
        ("rules: {A: {spec: {whenn: {}}}}", "rules.A.spec.whenn"),
        ("rules: {A: {spec: {send: [{receiver: Nobody}]}}}",
         "rules.A.spec.send.0.receiver: found 'Nobody'; allowed: the name of a receiver: Mail"),
        ("rules: {A: {team: Ghosts}}", "rules.A.team: found 'Ghosts'; allowed: Payments"),
        ("receivers: {Slack: {kind: slack}}",
         "receivers.Slack: found 'slack'; allowed: a receiver made"),
        ("silences: {S: {from: 2026-01-01T00:00:00Z}}", "silences.S.to: found nothing"),
        ("silences: {S: {from: 2026-01-02T00:00:00Z, to: 2026-01-01T00:00:00Z}}", "silences.S.to"),
        (f"silences: {{S: {{{SPAN}, again: {NEVER}}}}}", "silences.S.again"),
        ("silences: {S: {from: 2026-01-01T00:00:00, to: 2026-01-01T01:00:00Z}}", "with a zone"),
        ("hours: {H: {time_zone: Mars}}", "hours.H.time_zone: found 'Mars'"),
        ("teams: {T: {budget_per_day: -1}}",
         "teams.T.budget_per_day: found -1; allowed: more than 0"),
        ("nonsense: {}", "one of teams, hours, receivers, silences, rules"),
        ("rules: [", "line 1"),
        ("- a", "a section with fields"),
    ],
)  # fmt: skip
def test_a_mistake_names_file_path_found_and_allowed_and_changes_nothing(
    tmp_path: Path, text: str, says: str
) -> None:
    everything()
    before = run("export")
    file = tmp_path / "wrong.yaml"
    file.write_text(text, encoding="utf-8")
    for action in ("diff", "apply"):
        with pytest.raises(CommandError) as error:
            run(action, str(file))
        assert says in str(error.value)
        assert "wrong.yaml" in str(error.value)
    assert run("export") == before


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        run("apply", str(tmp_path / "none.yaml"))
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CommandError, match="UTF-8"):
        run("apply", str(bad))
