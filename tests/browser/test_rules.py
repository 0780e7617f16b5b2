"""A rule's editor with its preview, silences and lists, in both themes and on a phone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Browser, expect

from alerts.models import Receiver, Rule
from anomalies.models import Anomaly
from tests.alerts import week
from tests.browser.watched import PHONE, SHOTS, as_operator

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def world() -> Rule:
    now = timezone.now()
    week.seed(now, sources=14, metrics=3, each=22)
    week.receiver()
    week.receiver("Slack #payments", kind="slack", last_ok_at=now)
    week.receiver("PagerDuty Checkout", kind="pagerduty", last_ok_at=now)
    Receiver.objects.filter(name="Slack #payments").update(failures_in_a_row=3, last_error="no")
    sunday = now - timedelta(days=(now.weekday() + 1) % 7 + 28)
    start = sunday.replace(hour=0, minute=0, second=0, microsecond=0)
    week.silence("Sunday maintenance", start, start + timedelta(hours=14), "FREQ=WEEKLY;BYDAY=SU")
    rule = week.rule(
        match={"streams": ["webshop"], "sources": ["checkout-*"], "min_severity": "medium"},
        silences=["Sunday maintenance"],
    )
    rule.draft = {
        "match": {"streams": ["webshop"], "sources": ["checkout-*"], "min_severity": "high"},
        "when": {"count": 2, "within_s": 60},
        "send": [
            {"receiver": "Slack #payments"},
            {"receiver": "PagerDuty Checkout", "min_severity": "critical"},
            {"receiver": "Mail on-call", "after_s": 600},
        ],
        "silences": ["Sunday maintenance"],
    }
    rule.draft_at = now
    rule.save()
    for i, pk in enumerate(Anomaly.objects.order_by("onset_at").values_list("pk", flat=True)[::40]):
        label = ("real", "real", "false_alarm")[i % 3]
        Anomaly.objects.filter(pk=pk).update(label=label)
    week.rule("Database", live=False, send=[])
    return rule


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_rule_is_edited_beside_its_preview_and_made_live(
    browser: Browser, site: str, rows: None, theme: str
) -> None:
    rule = world()
    context, watched = as_operator(browser, site, theme)
    page = watched.page
    path = f"/alerts/rules/{rule.pk}/"
    watched.go(path)
    expect(page.locator("#preview svg rect").first).to_be_visible(timeout=30_000)
    # To hide the caret, a screenshot leaves style="" on fields, which htmx would then copy.
    page.screenshot(path=SHOTS / f"rule-{theme}.png", full_page=True, caret="initial")
    # A mistake is said at its field, and goes again.
    page.get_by_label("At least so many").fill("none")
    expect(page.locator("[id='e-when.count']")).to_have_text("A whole number.", timeout=20_000)
    expect(page.get_by_role("button", name="Make v2 live")).to_be_disabled()
    page.get_by_label("At least so many").fill("1")
    expect(page.get_by_role("button", name="Make v2 live")).to_be_enabled(timeout=20_000)
    expect(page.locator("#draft-said")).to_contain_text("Draft saved")
    page.get_by_role("button", name="Remove Mail on-call").click()
    expect(page.locator(".receiver .bold")).to_have_count(2)
    page.get_by_role("button", name="Add a receiver").click()
    expect(page.locator(".receiver .bold")).to_have_count(3)
    expect(page.get_by_role("button", name="Make v2 live")).to_be_enabled(timeout=20_000)
    page.get_by_role("link", name="Compare with v1").click()
    expect(page.get_by_text("as v1 would")).to_be_visible(timeout=20_000)
    page.screenshot(path=SHOTS / f"rule-compared-{theme}.png", full_page=True, caret="initial")
    page.get_by_role("link", name="YAML").click()
    expect(page.get_by_label("The rule as YAML")).to_contain_text("checkout-*")
    expect(page.get_by_role("button", name="Make v2 live")).to_be_enabled(timeout=30_000)
    page.get_by_role("button", name="Make v2 live").click()
    expect(page.get_by_text("v2 is live")).to_be_visible(timeout=20_000)
    for name, where in (("rules", "/alerts/"), ("rule-history", f"{path}history"),
                        ("silences", "/alerts/silences/"), ("silence", "")):  # fmt: skip
        if name == "silence":
            watched.go("/alerts/silences/")
            page.get_by_role("link", name="Sunday maintenance").click()
            expect(page.get_by_role("heading", name="Kept back")).to_be_visible(timeout=30_000)
        else:
            watched.go(where)
        page.screenshot(path=SHOTS / f"{name}-{theme}.png", full_page=True)
    page.set_viewport_size(PHONE)
    for name, where in (("rule", path), ("rules", "/alerts/"), ("silences", "/alerts/silences/"),
                        ("silence-new", "/alerts/silences/new")):  # fmt: skip
        watched.go(where)
        if name == "rule":
            expect(page.locator("#preview svg rect").first).to_be_visible(timeout=30_000)
        wide = page.evaluate("document.documentElement.scrollWidth")
        page.screenshot(path=SHOTS / f"{name}-phone-{theme}.png", full_page=True)
        assert wide <= PHONE["width"], (where, wide)
    context.close()
    assert watched.faults == []
