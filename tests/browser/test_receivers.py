"""Receivers, their form with its preview, and deliveries, in both themes and on a phone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Browser, expect

from alerts import links
from alerts.models import Attempt, Notification, Receiver
from tests.alerts import rows as alert_rows
from tests.browser.watched import PHONE, SHOTS, as_operator

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def world() -> tuple[Receiver, Notification]:
    now = timezone.now()
    slack = alert_rows.receiver("Slack #payments", kind="slack", settings={}, last_ok_at=now)
    alert_rows.receiver("PagerDuty Checkout", kind="pagerduty", settings={"region": "eu"},
                  failures_in_a_row=7, last_error="500: down")  # fmt: skip
    alert_rows.receiver("Mail on-call", kind="email", settings={"to": "on-call@example.com"},
                  enabled=False)  # fmt: skip
    for reason in ("opened", "worse", "resolved"):
        alert_rows.notification(slack, reason=reason, state="sent", attempts=1, sent_at=now)
    dead = alert_rows.notification(slack, state="dead", attempts=3, last_error="404: no_service")
    for number, (outcome, status, said) in enumerate(
        [("transient", "500", "rollup_error"), ("unknown", "", ""),
         ("permanent", "404", "no_service")], 1,
    ):  # fmt: skip
        Attempt.objects.create(notification=dead, number=number, outcome=outcome, status=status,
                               excerpt=said, latency_ms=84.0 if status else None,
                               started_at=now - timedelta(minutes=9 - number))  # fmt: skip
    return slack, dead


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_a_receiver_is_made_seen_and_its_deliveries_sent_again(
    browser: Browser, site: str, rows: None, theme: str
) -> None:
    slack, dead = world()
    context, watched = as_operator(browser, site, theme)
    page = watched.page
    watched.go("/alerts/receivers/")
    expect(page.get_by_text("broken, 7 failures in a row")).to_be_visible()
    page.screenshot(path=SHOTS / f"receivers-{theme}.png", full_page=True)
    page.get_by_role("link", name="Webhook (signed)").click()
    page.get_by_label("Name", exact=True).fill("Hook")
    page.get_by_label("Address").fill("https://example.com/hook")
    page.get_by_label("Text").fill("{% for s in sources %}{{ s|upper }} {% endfor %}")
    expect(page.locator("#template-preview")).to_contain_text("CHECKOUT-EU PAYMENTS-GW")
    page.get_by_label("Signing secret").fill("short")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("At least 16 characters, so that")).to_be_visible()
    page.screenshot(path=SHOTS / f"receiver-wrong-{theme}.png", full_page=True)
    watched.faults.clear()  # the browser tells of an answer with 400
    page.get_by_label("Signing secret").fill("long-enough-for-anybody")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Hook is saved")).to_be_visible()
    assert Receiver.objects.filter(name="Hook").exists()
    watched.go(f"/alerts/receivers/{slack.pk}/")
    expect(page.locator("#template-preview h3")).to_be_visible()
    page.screenshot(path=SHOTS / f"receiver-{theme}.png", full_page=True)
    watched.go("/alerts/deliveries/")
    page.get_by_label("State").select_option("dead")
    expect(page.locator("#deliveries tbody tr")).to_have_count(1)
    page.screenshot(path=SHOTS / f"deliveries-{theme}.png", full_page=True)
    watched.go(f"/alerts/deliveries/{dead.pk}/")
    page.screenshot(path=SHOTS / f"delivery-{theme}.png", full_page=True)
    page.get_by_role("button", name="Send it again").click()
    expect(page.get_by_text("under the same key")).to_be_visible()
    # The page asks by itself, and is told of the end.
    Notification.objects.filter(pk=dead.pk).update(state="sent")
    expect(page.locator("#delivery .head .tag")).to_have_text("Sent", timeout=10_000)
    page.set_viewport_size(PHONE)
    token = links.token(dead.incident_id or 0, "ack")
    for name, path in (("receivers", "/alerts/receivers/"), ("deliveries", "/alerts/deliveries/"),
                       ("receiver", f"/alerts/receivers/{slack.pk}/"), ("link", f"/act/{token}"),
                       ("delivery", f"/alerts/deliveries/{dead.pk}/")):  # fmt: skip
        watched.go(path)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE["width"], (path, wide)
        page.screenshot(path=SHOTS / f"{name}-phone-{theme}.png", full_page=True)
    context.close()
    assert watched.faults == []
