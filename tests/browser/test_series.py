"""One series in a browser: a threshold by keyboard to a policy and back, zoom in the address."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect

from anomalies import own_policy
from anomalies.models import Candidate
from detection.models import ThresholdPolicy
from detection.thresholds import LEVELS
from streams.models import Rollup, Series
from tests import builders
from tests.browser.watched import PHONE, SHOTS, as_operator

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def restless() -> Series:
    """Two days of minutes with a silence, anomalies of each severity, and near misses."""
    now = timezone.now()
    series = builders.series("checkout-eu", "orders_per_min", events=17_280)
    rows = builders.rollups(series, 2_880, level=120, skip=(1_900, 1_960))
    scores = [0.97, 0.91, 0.87, 0.82, 0.81, 0.77, 0.72, 0.66]
    for i, score in enumerate(scores):
        row = rows[300 + 320 * i]
        reached = [int(score >= level) for level in LEVELS.tolist()]
        Rollup.objects.filter(series=series, minute=row.minute).update(
            onset_counts=reached, score_counts=[20 * n for n in reached]
        )
        Candidate.objects.create(
            series=series, incarnation=builders.incarnation(), partition=0, offset=i, score=score,
            event_at=row.minute, value=180.0, direction=1, deviation=60.0, expected_mid=120.0,
            levels=sum(1 << k for k, n in enumerate(reached) if n),
        )  # fmt: skip
        if score >= 0.8:
            builders.anomaly(
                series, score=score, at=row.minute, value=180.0, state="closed",
                expected_low=100.0, expected_mid=120.0, expected_high=140.0,
                label=("real", "", "false_alarm")[i % 3],
            )  # fmt: skip
    assert series.last_event_at is not None
    assert series.last_event_at <= now + timedelta(seconds=1)
    return series


def settled(page: Page) -> None:
    """Every part has come: a page that is left before counts as failed requests."""
    expect(page.locator("[aria-busy]")).to_have_count(0)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_a_threshold_is_tried_saved_and_taken_back(
    browser: Browser, site: str, rows: None, theme: str
) -> None:
    series = restless()
    context, watched = as_operator(browser, site, theme)
    page = watched.go(f"/series/{series.pk}/?window=7d")
    slider = page.locator("#threshold-range")
    expect(slider).to_have_value("0.8")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "0.87")
    expect(page.locator("#effect")).to_contain_text("At 0.87")
    expect(page.locator("#effect")).to_contain_text("of 5 would go")
    expect(page.locator("#draft-key")).to_contain_text("no longer flagged at 0.87")
    assert "threshold=0.875" in page.url
    expect(page.locator("#season .plot")).to_be_visible()
    expect(page.locator("#facts")).to_contain_text("curl")
    expect(page.locator(".beat.silent").first).to_be_visible()
    page.screenshot(path=SHOTS / f"series-threshold-{theme}.png", full_page=True)
    page.locator("#save").click()
    dialog = page.locator("#dialog")
    expect(dialog).to_be_visible()
    expect(dialog).to_contain_text("instead of 5")
    page.screenshot(path=SHOTS / f"series-save-{theme}.png")
    dialog.get_by_role("button").first.click()
    expect(page.get_by_text("Saved as")).to_be_visible()
    settled(page)
    assert own_policy.counting(series).threshold == 0.875
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Taken back")).to_be_visible()
    settled(page)
    assert own_policy.counting(series).threshold == 0.8
    assert ThresholdPolicy.objects.get().enabled is False
    context.close()
    assert watched.faults == []


def test_dragging_zooms_in_the_address_and_back_leads_out(
    browser: Browser, site: str, rows: None
) -> None:
    series = restless()
    context, watched = as_operator(browser, site, "dark")
    page = watched.go(f"/series/{series.pk}/?window=24h&threshold=0.9")
    settled(page)
    over = page.locator("#chart .u-over")
    box = over.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 60, steps=5)
    page.mouse.up()
    page.wait_for_url("**start=*")
    assert "threshold=0.9" in page.url
    expect(page.get_by_role("link", name="Reset zoom")).to_be_visible()
    title = page.locator("#chart-title")
    zoomed = title.text_content()
    page.reload()
    settled(page)
    expect(title).to_have_text(zoomed or "")
    page.go_back()
    expect(title).to_contain_text("Last 24 h")
    settled(page)
    page.get_by_role("link", name="7 d", exact=True).first.click()
    page.wait_for_url("**window=7d**")
    expect(page.locator("#beats .beat.silent").first).to_be_visible()
    page.locator("#chart details summary").click()
    expect(page.locator("#chart .table tr").nth(5)).to_be_visible()
    page.set_viewport_size(PHONE)
    page.reload()
    settled(page)
    page.screenshot(path=SHOTS / "series-threshold-phone.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    context.close()
    assert watched.faults == []


def test_it_works_without_scripts(browser: Browser, site: str, rows: None) -> None:
    series = restless()
    builders.user("olga", is_staff=True)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}/login/?next=/series/{series.pk}/")
    page.get_by_label("User name").fill("olga")
    page.get_by_label("Password").fill(builders.PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Show threshold, season and facts").click()
    page.locator("#threshold-range").focus()
    for _ in range(15):
        page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Show what it would do").click()
    expect(page.locator("#effect")).to_contain_text("At 0.87")
    page.locator("#save").click()
    page.get_by_role("button", name="Make it").click()
    assert own_policy.counting(series).threshold == 0.875
    context.close()
