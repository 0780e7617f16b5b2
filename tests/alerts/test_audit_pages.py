"""The audit's pages: what changed in words, filters, keyset pages, and taking a change back."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from alerts import rules, silences, surroundings
from alerts.audit_words import changes_of, sentence
from alerts.models import Hours, Receiver, Rule, Silence, Team
from alerts.spec import RuleSpec
from detection import model_store
from detection.models import ThresholdPolicy
from streams import audit
from streams.audit import Action
from streams.models import AuditEntry
from tests import builders
from tests.alerts import rows
from tests.detection.test_model_store import save

pytestmark = pytest.mark.django_db


def newest(**of: Any) -> AuditEntry:
    found = AuditEntry.objects.filter(**of).order_by("-pk").first()
    assert found is not None
    return found


def revert(client: Client, entry: AuditEntry, **more: str) -> Any:
    """As the page's button does it."""
    page = client.get(f"/alerts/audit/{entry.pk}/").content.decode()
    seen = re.search(r'name="seen" value="([^"]+)"', page)
    given = {"seen": seen[1] if seen else ""} | more
    return client.post(f"/alerts/audit/{entry.pk}/revert", given)


def silence(name: str = "Sunday") -> Silence:
    now = timezone.now()
    row = Silence(name=name, starts_at=now, ends_at=now + timedelta(hours=2), matcher={})
    silences.save(row, "anna", None)
    return row


def test_a_change_is_told_field_by_field_in_words(operator: Client) -> None:
    rows.receiver("Slack")
    rule = rules.make("Paging", RuleSpec(), "anna")
    rules.make_live(rule, RuleSpec(), "anna")
    changed = RuleSpec.read({"cooldown_s": 600, "match": {"min_severity": "high"},
                             "send": [{"receiver": "Slack", "after_s": 300}]})  # fmt: skip
    rules.make_live(rule, changed, "anna")
    entry = newest()
    assert [(c.name, c.before, c.after) for c in changes_of(entry)] == [
        ("version", "1", "2"), ("severity from", "low", "high"), ("cool-down", "30 min", "10 min"),
        ("sends to", "none", "Slack (after 5 min)"),
    ]  # fmt: skip
    assert sentence(entry) == "made v2 live, 3 fields changed"
    page = operator.get(f"/alerts/audit/{entry.pk}/").content.decode()
    assert "cool-down" in page
    assert "10 min" in page


def test_the_list_is_narrowed_by_what_stands_in_the_url(viewer: Client) -> None:
    row = silence("Sunday")
    with audit.through("api"):
        audit.record(builders.user("anna"), Action.ACTED, row)
    policy = ThresholdPolicy.objects.create(name="Night")
    with audit.through("admin"):
        audit.record("olga", Action.CREATED, policy)

    def names(query: str) -> list[str]:
        page = viewer.get(f"/alerts/audit/?{query}").content.decode()
        return re.findall(r"<td class=\"clip\"><b>([^<]+)</b>", page)

    assert names("") == ["Night v1", "Sunday", "Sunday"]
    assert names("kind=alerts.Silence&via=api") == ["Sunday"]
    assert names("who=olga") == ["Night v1"]
    assert names("q=night") == ["Night v1"]
    assert names(f"kind=detection.ThresholdPolicy&object={policy.pk}") == ["Night v1"]
    assert names("days=1") == names("days=nonsense") == names("")
    assert names("who=nobody") == []
    # What nobody can mean narrows nothing, or finds nothing: never an error.
    for query in ("kind=%00&before=x&after=-1", "before=99999999999999999999", "q=%00", "via=a"):
        assert viewer.get(f"/alerts/audit/?{query}").status_code == 200


def test_pages_follow_each_other_by_key(viewer: Client) -> None:
    stream = builders.stream("shop")
    for n in range(120):
        audit.record("anna", Action.CHANGED, stream, n, n + 1)
    seen: list[str] = []
    path: str | None = "/alerts/audit/"
    while path:
        page = viewer.get(path).content.decode()
        seen += re.findall(r'href="/alerts/audit/(\d+)/"', page)
        older = re.search(r'href="(\?[^"]+)">Older', page)
        path = f"/alerts/audit/{older[1]}" if older else None
    keys = [int(k) for k in seen]
    assert len(keys) == 120
    assert keys == sorted(keys, reverse=True)
    page = viewer.get(f"/alerts/audit/?after={keys[-1]}").content.decode()
    assert re.findall(r'href="/alerts/audit/(\d+)/"', page)[-1] == str(keys[-2])


def test_a_threshold_goes_back_as_a_new_version_that_is_written_down(admin_client: Client) -> None:
    policy = ThresholdPolicy.objects.create(name="Night", threshold=0.9)
    before = audit.facts(policy, ThresholdPolicy.FOLLOWS)
    policy.threshold = 0.95
    policy.save()
    audit.record("anna", Action.CHANGED, policy, before,
                 audit.facts(policy, ThresholdPolicy.FOLLOWS))  # fmt: skip
    entry = newest()
    assert revert(admin_client, entry).status_code == 302
    policy.refresh_from_db()
    assert (policy.threshold, policy.version) == (0.9, 3)
    assert newest().reverts_id == entry.pk
    assert newest().actor_name == "admin"
    # Taken back twice: there is nothing more to do, and it says so.
    page = admin_client.get(f"/alerts/audit/{entry.pk}/").content.decode()
    assert "nothing to take back" in page
    # The taking back can be taken back.
    revert(admin_client, newest())
    policy.refresh_from_db()
    assert policy.threshold == 0.95


def test_operators_take_no_threshold_back_and_viewers_nothing(
    operator: Client, viewer: Client
) -> None:
    policy = ThresholdPolicy.objects.create(name="Night")
    audit.record("anna", Action.CHANGED, policy, {"priority": 1}, {"priority": 0})
    assert revert(operator, newest()).status_code == 403
    row = silence()
    silences.end_now(row, "anna")
    assert revert(viewer, newest()).status_code == 403
    row.refresh_from_db()
    assert row.ends_at <= timezone.now()


def test_a_later_change_is_said_and_goes_only_with_leave(operator: Client) -> None:
    row = silence()
    for comment, by in (("first", "anna"), ("second", "olaf")):
        before = silences.facts(row)
        row.comment = comment
        silences.save(row, by, before)
    entry = AuditEntry.objects.get(actor_name="anna", action="changed")
    page = operator.get(f"/alerts/audit/{entry.pk}/").content.decode()
    assert "Changed again since" in page
    assert "olaf" in page
    assert revert(operator, entry).status_code == 409
    row.refresh_from_db()
    assert row.comment == "second"
    assert revert(operator, entry, anyway="on").status_code == 302
    row.refresh_from_db()
    assert row.comment == ""


def test_what_changed_since_it_was_looked_at_stays(operator: Client) -> None:
    row = silence()
    before = silences.facts(row)
    row.comment = "first"
    silences.save(row, "anna", before)
    entry = newest()
    answer = operator.post(f"/alerts/audit/{entry.pk}/revert", {"seen": "another"})
    assert answer.status_code == 409
    assert "changed since you looked" in answer.content.decode()


def test_a_rules_text_goes_back_through_draft_and_preview(operator: Client) -> None:
    rule = rules.make("Paging", RuleSpec(), "anna")
    rules.make_live(rule, RuleSpec(), "anna")
    rules.make_live(rule, RuleSpec(cooldown_s=60), "anna")
    entry = newest()
    assert revert(operator, entry).url == f"/alerts/rules/{rule.pk}/"
    rule.refresh_from_db()
    assert rule.live is not None
    assert rule.live.number == 2  # nothing counts yet
    assert RuleSpec.read(rule.draft) == RuleSpec()
    page = operator.get(f"/alerts/rules/{rule.pk}/preview").content.decode()
    seen = re.search(r'name="seen" value="([^"]+)"', page)
    assert seen is not None
    operator.post(f"/alerts/rules/{rule.pk}/live", {"do": "live", "seen": seen[1]})
    rule.refresh_from_db()
    assert rule.live.number == 3
    assert rules.live_spec(rule) == RuleSpec()
    assert newest(action="changed").reverts_id == entry.pk


def test_switching_and_retiring_of_rules(operator: Client) -> None:
    rule = rules.make("Paging", RuleSpec(), "anna")
    rules.make_live(rule, RuleSpec(), "anna")
    rules.set_enabled(rule, False, "anna")
    assert "switched on and off on their page" in operator.get(
        f"/alerts/audit/{newest().pk}/"
    ).content.decode()  # fmt: skip
    rules.retire(rule, "anna")
    revert(operator, newest())
    rule.refresh_from_db()
    assert (rule.retired_at, rule.enabled) == (None, False)


def test_secrets_stand_nowhere_and_stay_when_a_receiver_goes_back(operator: Client) -> None:
    given = {"name": "Hook", "s_url": "https://hooks.example.com/a", "per_minute": "30",
             "s_secret": "a-secret-of-16-characters", "digest_minutes": "0",
             "enabled": "on"}  # fmt: skip
    operator.post("/alerts/receivers/new/webhook", given)
    hook = Receiver.objects.get()
    changed = {"s_secret": "another-secret-of-16", "s_url": "https://hooks.example.com/b"}
    operator.post(f"/alerts/receivers/{hook.pk}/", given | changed)
    entry = newest()
    said = str(list(AuditEntry.objects.values_list("before", "after")))
    assert "secret-of-16" not in said
    assert entry.after["secrets"] == ["secret (another one)"]
    hook.refresh_from_db()
    sealed = hook.secrets
    assert revert(operator, entry).status_code == 302
    hook.refresh_from_db()
    assert (hook.settings["url"], hook.secrets) == ("https://hooks.example.com/a", sealed)
    operator.post(f"/alerts/receivers/{hook.pk}/", given | {"s_secret": "a-third-one-of-16-chars"})
    assert "kept nowhere else" in operator.get(f"/alerts/audit/{newest().pk}/").content.decode()


def test_deleted_hours_and_teams_are_made_again(operator: Client) -> None:
    anna = builders.user("anna")
    team = Team(name="Payments", budget_per_day=5)
    surroundings.save(team, "olga", None, [anna])
    hours = Hours(name="Office", weekly=[{"days": ["mon"], "from": "09:00", "to": "17:00"}])
    surroundings.save(hours, "olga", None)
    for row in (team, hours):
        surroundings.delete(row, "olga")
        assert revert(operator, newest()).status_code == 302
    again = Team.objects.get()
    assert (again.budget_per_day, list(again.members.all())) == (5, [anna])
    assert Hours.objects.get().weekly[0]["days"] == ["mon"]


def test_a_promotion_goes_back_to_the_champion_before(operator: Client) -> None:
    first, second = (save(builders.stream(), seed) for seed in (0, 1))
    for row in (first, second):
        model_store.promote(row.pk, actor="anna", reason="better")
    entry = newest()
    assert (entry.before["champion"], entry.after["champion"]) == ("v1", "v2")
    assert sentence(entry) == "champion v1 → v2"
    assert revert(operator, entry).status_code == 302
    first.refresh_from_db()
    assert first.state == "champion"
    assert newest().reverts_id == entry.pk
    # It is v1's turn now: what made v2 champion is not to be taken back twice.
    page = operator.get(f"/alerts/audit/{entry.pk}/").content.decode()
    assert "The champion has changed since" in page


def test_a_command_says_who_sat_there(tmp_path: Any) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules:\n  Paging:\n    spec: {cooldown_s: 60}\n")
    call_command("rules", "apply", str(file))
    assert set(AuditEntry.objects.values_list("via", flat=True)) == {"command"}
    assert "(command)" in newest().actor_name


def test_the_api_leaves_entries_too(operator: Client) -> None:
    row = save(builders.stream())
    answer = operator.post(f"/api/models/{row.pk}/retire", "{}", content_type="application/json")
    assert answer.status_code == 200, answer.content
    assert (newest().via, newest().actor_name) == ("api", "olga")


def test_entries_of_things_that_are_gone_can_be_read(viewer: Client) -> None:
    rule = rules.make("Old", RuleSpec(), "anna")
    audit.record("anna", Action.CHANGED, rule, rules.facts(rule), {"name": "Older"})
    entry = newest()
    Rule.objects.all().delete()
    assert "discarded since" in viewer.get(f"/alerts/audit/{entry.pk}/").content.decode()
    assert viewer.get("/alerts/audit/999999/").status_code == 404
