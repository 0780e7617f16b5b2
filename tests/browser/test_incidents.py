"""Incidents in a browser: they change by themselves, go by keyboard, and without JavaScript."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Browser, expect

from alerts import incidents
from alerts.evaluator import Evaluator
from alerts.models import Incident
from anomalies.models import Outbox
from tests.alerts import rows as made
from tests.alerts import scene
from tests.browser.watched import PHONE, SHOTS, as_operator

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def fresh(n: int, **more: object) -> Incident:
    now = timezone.now()
    more = {"opened_at": now - timedelta(minutes=7 * n), "first_at": now - timedelta(minutes=7 * n),
            "last_at": now - timedelta(minutes=n)} | more  # fmt: skip
    return scene.incident(n, **more)


def test_what_changes_appears_by_itself_and_takes_nothing_from_who_writes(
    browser: Browser, site: str, rows: None
) -> None:
    scene.rule(group={"by": "source"})
    scene.watermark(100)
    for n in (1, 2, 3):
        fresh(n, severity=n + 1, members=n)
    Outbox.objects.update(evaluated_at=timezone.now())
    context, watched = as_operator(browser, site, "light")
    page = watched.go("/incidents/")
    connected = page.locator("html[data-connected=yes]")
    expect(connected).to_have_count(1)
    page.evaluate("window.same = true")
    expect(page.locator("#table tbody tr")).to_have_count(3)
    scene.anomaly(50, "web-new")
    Evaluator("browser").step()
    expect(page.get_by_text("Spike of cpu on web-new")).to_be_visible()
    # Somebody is amid the list: a button says so, and the list stays under their hands.
    page.locator("#table a.cover").first.focus()
    incidents.resolve(Incident.objects.get(title__contains="web-new").pk, None)
    expect(page.locator("#incidents-show")).to_have_text("1 changed, show")
    expect(page.locator("#table tbody tr")).to_have_count(4)
    page.locator("#incidents-show").click()
    expect(page.locator("#table tbody tr")).to_have_count(3)
    assert page.evaluate("window.same")
    page.screenshot(path=SHOTS / "incidents-light.png")

    one = Incident.objects.filter(state="open").order_by("-severity").first()
    assert one is not None
    made.notification(made.receiver("Slack #payments"), one, state="sent", sent_at=timezone.now())
    watched.go(f"/incidents/{one.pk}/")
    expect(connected).to_have_count(1)
    page.locator("#comment").fill("Half a sen")
    incidents.comment(one.pk, "The provider is slow.", None)
    expect(page.locator(".timeline")).to_contain_text("The provider is slow.")
    expect(page.locator("#comment")).to_have_value("Half a sen")
    expect(page.locator("#comment")).to_be_focused()
    incidents.acknowledge(one.pk, None)
    expect(page.locator("#incident-head")).to_contain_text("acknowledged")
    page.screenshot(path=SHOTS / "incident-light.png", full_page=True)
    assert watched.faults == []
    context.close()


def test_all_that_is_done_with_one_goes_by_keyboard(
    browser: Browser, site: str, rows: None
) -> None:
    one, other = fresh(1), fresh(2)
    context, watched = as_operator(browser, site, "dark")
    page = watched.go(f"/incidents/{one.pk}/")
    page.keyboard.press("a")
    expect(page.locator("#incident-head")).to_contain_text("acknowledged")
    page.locator("#assignee").focus()
    page.keyboard.type(str(page.locator("#assignee option").nth(1).inner_text()))
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".timeline")).to_contain_text("assigned it to")
    page.locator("#snooze").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#incident-head")).to_contain_text("snoozed until")
    page.locator("#comment").focus()
    page.keyboard.type("By keyboard")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".timeline")).to_contain_text("By keyboard")
    page.screenshot(path=SHOTS / "incident-dark.png", full_page=True)
    page.locator("#into").focus()
    page.keyboard.type(f"INC-{other.pk}")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(f"INC-{other.pk}")
    assert watched.faults == []
    context.close()


def test_all_of_it_works_without_javascript(browser: Browser, site: str, rows: None) -> None:
    one, other = fresh(1), fresh(2)
    signed, _ = as_operator(browser, site, "light")
    cookies = signed.storage_state()
    signed.close()
    context = browser.new_context(java_script_enabled=False, storage_state=cookies, viewport=PHONE)
    page = context.new_page()
    page.goto(f"{site}/incidents/")
    page.screenshot(path=SHOTS / "incidents-phone.png", full_page=True)
    page.goto(f"{site}/incidents/{one.pk}/")
    page.locator("#assignee").select_option(index=1)
    page.get_by_role("button", name="Assign", exact=True).click()
    expect(page.locator(".timeline")).to_contain_text("assigned it to")
    page.get_by_role("button", name="Snooze", exact=True).click()
    expect(page.locator("#incident-head")).to_contain_text("snoozed until")
    page.locator("#comment").fill("No script")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".timeline")).to_contain_text("No script")
    page.screenshot(path=SHOTS / "incident-phone.png", full_page=True)
    page.locator("#into").fill(str(other.pk))
    page.get_by_role("button", name="Merge", exact=True).click()
    expect(page.locator(".timeline")).to_contain_text("into it")
    context.close()
