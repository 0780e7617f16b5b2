"""Rules' and silences' pages: drafts, previews before anything counts, mistakes at their fields."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from alerts import rehearsal
from alerts.models import Rule, Silence
from alerts.rules import make_live
from alerts.spec import RuleSpec
from streams.models import AuditEntry
from tests import builders
from tests.alerts import week

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


@pytest.fixture
def olga(db: None) -> Client:
    """An operator's client, with a week of anomalies and a receiver."""
    rehearsal.forget()
    week.seed(timezone.now())
    week.receiver()
    client = Client()
    client.force_login(builders.user("olga", is_staff=True))
    return client


def fields(**more: Any) -> dict[str, Any]:
    """A form as a browser sends it."""
    usual = {
        "match.streams": "webshop", "match.series": "checkout-* / *", "match.types": "",
        "match.tags": "", "match.min_severity": "medium", "when.kind": "anomaly",
        "when.count": "1", "when.within_s": "300", "when.on": "source", "when.min_score": "",
        "when.budget_per_day": "", "when.direction": "both", "when.min_duration_s": "0",
        "when.share_of_series": "", "group.by": "incident", "group.join_s": "300",
        "group.wait_s": "0", "group.resolve_after_s": "900", "group.reopen_within_s": "3600",
        "cooldown_s": "1800", "remind_s": "0", "at_once_if_worse": "on", "tell_resolved": "on",
        "send.receiver": ["Mail on-call"], "send.min_severity": ["low"], "send.after_s": ["0"],
        "send.hours": [""],
    }  # fmt: skip
    return usual | more


def seen(client: Client, rule: Rule) -> str:
    page = client.get(f"/alerts/rules/{rule.pk}/preview").content.decode()
    found = re.search(r'name="seen" value="([^"]+)"', page)
    assert found, page[:2_000]
    return found[1]


def test_a_draft_is_kept_previewed_and_made_live(olga: Client) -> None:
    olga.post("/alerts/rules/new", {"name": "Paging"})
    rule = Rule.objects.get()
    assert (rule.live, rule.enabled) == (None, False)
    answer = olga.post(f"/alerts/rules/{rule.pk}/draft", fields(), headers=HTMX)
    page = answer.content.decode()
    assert answer.status_code == 200
    assert "What it would have sent" in page
    rule.refresh_from_db()
    spec = RuleSpec.read(rule.draft)
    assert (spec.match.sources, spec.match.min_severity) == (("checkout-*",), "medium")
    assert not rule.enabled
    answer = olga.post(f"/alerts/rules/{rule.pk}/live", {"do": "live", "seen": seen(olga, rule)})
    rule.refresh_from_db()
    assert rule.enabled
    assert rule.live
    assert rule.live.number == 1
    assert rule.draft is None
    assert AuditEntry.objects.filter(object_id=str(rule.pk)).count() == 2
    assert olga.get("/alerts/").status_code == 200
    assert olga.get(f"/alerts/rules/{rule.pk}/history").status_code == 200


def test_nothing_is_made_live_that_was_not_previewed(olga: Client) -> None:
    rule = week.rule(live=False)
    path = f"/alerts/rules/{rule.pk}/live"
    olga.post(path, {"do": "live"})
    olga.post(path, {"do": "live", "seen": "forged"})
    token = seen(olga, rule)
    # The draft changes after its preview.
    olga.post(f"/alerts/rules/{rule.pk}/draft", fields(), headers=HTMX)
    olga.post(path, {"do": "live", "seen": token})
    rule.refresh_from_db()
    assert rule.live is None
    # Nor is another rule's preview good for this one.
    other = week.rule("Other", live=False, cooldown_s=60)
    olga.post(f"/alerts/rules/{other.pk}/live", {"do": "live", "seen": seen(olga, rule)})
    other.refresh_from_db()
    assert other.live is None


def test_switching_off_and_on_goes_through_the_preview(olga: Client) -> None:
    rule = week.rule()
    path = f"/alerts/rules/{rule.pk}/live"
    olga.post(path, {"do": "off"})
    rule.refresh_from_db()
    assert rule.enabled
    olga.post(path, {"do": "off", "seen": seen(olga, rule)})
    rule.refresh_from_db()
    assert not rule.enabled
    olga.post(path, {"do": "on", "seen": seen(olga, rule)})
    rule.refresh_from_db()
    assert rule.enabled


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("when.count", "two", "A whole number"),
        ("when.count", "0", "At least 1"),
        ("when.count", "9" * 400, "e-when.count"),
        ("when.min_score", "1.5", "At most 1"),
        ("when.min_score", "nan", "e-when.min_score"),
        ("when.budget_per_day", "-1", "More than 0"),
        ("when.within_s", "1e99", "At most"),
        ("match.min_severity", "terrible", "One of low, medium, high or critical"),
        ("match.tags", "team", "Tags are written like"),
        ("match.series", "x" * 300, "at most 255 characters"),
        ("when.share_of_series", "2", "At most 1"),
        ("send.receiver", ["Nobody"], "The name of a receiver: Mail on-call"),
        ("send.after_s", ["soon"], "A number"),
        ("send.hours", ["+Nights"], "The name of a timetable"),
        ("silences", ["Nothing"], "The name of a silence"),
    ],
)
def test_a_mistake_is_said_at_its_field_and_not_saved(
    olga: Client, name: str, value: Any, says: str
) -> None:
    rule = week.rule(live=False)
    before = rule.draft
    for headers, status in ((HTMX, 200), ({}, 400)):
        answer = olga.post(
            f"/alerts/rules/{rule.pk}/draft", fields(**{name: value}), headers=headers
        )
        page = answer.content.decode()
        assert answer.status_code == status
        assert says in page
    rule.refresh_from_db()
    assert rule.draft == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("match: [", "line 1"),
        ("a: &x [1]\nb: *x", "an alias"),
        ("match:\n  severity: high", "one of streams, sources"),
        ("cooldown_s: soon", "cooldown_s: found &#x27;soon&#x27;; allowed: a number"),
        ("[1, 2]", "a section with fields"),
        ("just text", "a section with fields"),
        ("send:\n- receiver: Nobody", "the name of a receiver"),
        ("when: {min_score: 0.9, budget_per_day: 5}", "not both"),
        ("a: " * 40_000, "at most 64,000 characters"),
        ("\x00", "YAML"),
        ("when: {count: !!python/object:os.system x}", "constructor"),
    ],
)
def test_wrong_yaml_says_path_found_and_allowed(olga: Client, text: str, says: str) -> None:
    rule = week.rule(live=False)
    path = f"/alerts/rules/{rule.pk}/draft"
    for headers, status in ((HTMX, 200), ({}, 400)):
        answer = olga.post(path, {"yaml": text}, headers=headers)
        assert answer.status_code == status
        assert says in answer.content.decode()
    assert olga.post(path, {"yaml": "cooldown_s: 60"}, headers=HTMX).status_code == 200
    rule.refresh_from_db()
    assert rule.draft == {"cooldown_s": 60.0}


def test_receivers_and_silences_are_added_and_taken_away(olga: Client) -> None:
    rule = week.rule(live=False, send=[])
    week.receiver("Slack", kind="slack")
    now = timezone.now()
    week.silence("Sunday", now, now + timedelta(hours=3), "FREQ=WEEKLY")
    path = f"/alerts/rules/{rule.pk}/draft"
    bare = {name: value for name, value in fields().items() if not name.startswith("send")}
    card = HTMX | {"HX-Target": "rule-card"}
    assert olga.post(path, bare | {"add": "send"}, headers=card)["HX-Trigger"] == "drafted"
    olga.post(path, fields(add="send"), headers=card)
    rule.refresh_from_db()
    assert [s.receiver for s in RuleSpec.read(rule.draft).send] == ["Mail on-call", "Slack"]
    olga.post(path, fields(silence="Sunday"), headers=card)
    rule.refresh_from_db()
    assert RuleSpec.read(rule.draft).silences == ("Sunday",)
    olga.post(path, fields(drop="0", silences=["Sunday"], unsilence="Sunday"), headers=card)
    rule.refresh_from_db()
    assert (RuleSpec.read(rule.draft).send, RuleSpec.read(rule.draft).silences) == ((), ())


def test_an_old_version_comes_back_as_a_draft(olga: Client) -> None:
    rule = week.rule(cooldown_s=60)
    assert rule.live
    first = rule.live.spec
    make_live(rule, RuleSpec.read({"cooldown_s": 120}), None)
    page = olga.get(f"/alerts/rules/{rule.pk}/history").content.decode()
    assert "- cooldown_s: 60.0" in page
    assert "+ cooldown_s: 120.0" in page
    olga.post(f"/alerts/rules/{rule.pk}/history", {"number": "1"})
    rule.refresh_from_db()
    assert rule.draft == first
    assert rule.live
    assert rule.live.number == 2
    assert olga.post(f"/alerts/rules/{rule.pk}/history", {"number": "99"}).status_code == 404
    assert olga.post(f"/alerts/rules/{rule.pk}/history", {"number": "²"}).status_code in (400, 404)


def test_the_preview_compares_with_what_is_live(olga: Client) -> None:
    rule = week.rule()
    olga.post(f"/alerts/rules/{rule.pk}/draft", fields(**{"match.min_severity": "critical"}),
              headers=HTMX)  # fmt: skip
    page = olga.get(f"/alerts/rules/{rule.pk}/preview?compare=live&days=30").content.decode()
    assert "only v1" in page
    assert olga.get(f"/alerts/rules/{rule.pk}/preview?days=x&show=all").status_code == 200


def test_viewers_look_and_change_nothing(olga: Client) -> None:
    rule = week.rule()
    viewer = Client()
    viewer.force_login(builders.user("vera"))
    assert viewer.get(f"/alerts/rules/{rule.pk}/").status_code == 200
    assert viewer.get(f"/alerts/rules/{rule.pk}/preview").status_code == 200
    assert viewer.get("/alerts/silences/").status_code == 200
    for path in (f"/alerts/rules/{rule.pk}/draft", f"/alerts/rules/{rule.pk}/live",
                 f"/alerts/rules/{rule.pk}/discard", "/alerts/rules/new",
                 "/alerts/silences/create", f"/alerts/rules/{rule.pk}/describe"):  # fmt: skip
        assert viewer.post(path, {"name": "x", "do": "off"}).status_code == 403
    assert viewer.post(f"/alerts/rules/{rule.pk}/history", {"number": "1"}).status_code == 403


# ---- Silences ------------------------------------------------------------------------------------
def quiet(**more: Any) -> dict[str, Any]:
    return {
        "name": "Works", "streams": "", "series": "checkout-1 / *", "types": "", "tags": "",
        "min_severity": "low", "max_severity": "critical", "rules": "",
        "starts": "2026-03-01T02:00", "ends": "2026-03-01T05:00", "time_zone": "Europe/Berlin",
        "again": "FREQ=DAILY", "recurrence": "", "comment": "",
    } | more  # fmt: skip


def test_a_silence_is_made_previewed_ended_and_copied(olga: Client) -> None:
    week.rule(group={"by": "source"})
    page = olga.post("/alerts/silences/preview", quiet(), headers=HTMX).content.decode()
    assert "What it would have hidden" in page
    assert "Speaks of</dt><dd>2 series" in page
    assert olga.post("/alerts/silences/create", quiet()).status_code == 302
    row = Silence.objects.get()
    assert row.starts_at.hour == 1  # 02:00 in Berlin
    assert olga.get(f"/alerts/silences/{row.pk}/").status_code == 200
    assert "Works copy" in olga.get(f"/alerts/silences/new?copy={row.pk}").content.decode()
    olga.post(f"/alerts/silences/{row.pk}/end")
    row.refresh_from_db()
    assert not row.enabled  # it comes again, so it is switched off
    now = timezone.now()
    once = week.silence("Once", now - timedelta(hours=1), now + timedelta(hours=1))
    olga.post(f"/alerts/silences/{once.pk}/end")
    once.refresh_from_db()
    assert once.enabled
    assert once.ends_at <= timezone.now()
    assert olga.get("/alerts/silences/").status_code == 200


def test_what_a_silence_would_have_hidden_is_what_the_rules_would_have_sent(olga: Client) -> None:
    week.rule(group={"by": "source"})
    everything = quiet(series="* / *", starts="2026-01-01T00:00", ends="2026-01-02T00:00")
    page = olga.post("/alerts/silences/preview", everything, headers=HTMX).content.decode()
    found = re.search(r"<b>([\d,]+)</b> notification.*?of <b>([\d,]+)</b>", page, re.S)
    assert found
    assert found[1] == found[2] != "0"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("name", "", "1 to 140"),
        ("starts", "tomorrow", "A day and a time"),
        ("starts", "9999-12-31T23:59", "A day and a time"),
        ("ends", "2026-03-01T01:00", "It ends before it starts"),
        ("time_zone", "../../etc/passwd", "is no time zone"),
        ("again", "custom", "A rule of RFC 5545"),
        ("min_severity", "worst", "One of low"),
        ("max_severity", "nothing", "One of low"),
        ("rules", "Unheard of", "There is no rule"),
        ("tags", "x", "Tags are written"),
        ("series", "y" * 400, "at most 255"),
    ],
)
def test_a_silences_mistake_is_said_at_its_field(
    olga: Client, name: str, value: str, says: str
) -> None:
    given = quiet(**{name: value})
    answer = olga.post("/alerts/silences/create", given)
    assert answer.status_code == 400
    assert says in answer.content.decode()
    preview = olga.post("/alerts/silences/preview", given, headers=HTMX)
    assert preview.status_code == 200
    assert says in preview.content.decode()
    assert not Silence.objects.exists()


def test_a_hostile_recurrence_is_refused(olga: Client) -> None:
    given = quiet(again="custom", recurrence="FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30")
    answer = olga.post("/alerts/silences/create", given)
    assert answer.status_code == 400
    assert "never comes" in answer.content.decode()
