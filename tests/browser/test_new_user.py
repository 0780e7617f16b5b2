"""A new user's way from signing in to a labelled anomaly, by keys in the dark and by touch."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Browser, Page, expect

from anomalies.models import Anomaly, BulkLabel, Note, SavedView
from tests import builders
from tests.browser.watched import DESK, PHONE, SHOTS, Watched

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def watched(browser: Browser, site: str, rows: None) -> Iterator[Watched]:
    context = browser.new_context(viewport=DESK, color_scheme="dark", timezone_id="Europe/Berlin")
    watching = Watched(context, site)
    yield watching
    context.close()
    assert watching.faults == []


def test_from_signing_in_to_a_labelled_anomaly_by_keys(watched: Watched) -> None:
    SHOTS.mkdir(exist_ok=True)
    builders.user(is_staff=True, first_name="Anna", last_name="Keller")
    page = watched.go("/login/")
    page.keyboard.type("anna")
    page.keyboard.press("Tab")
    page.keyboard.type(builders.PASSWORD)
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#password")).to_have_attribute("type", "text")
    page.keyboard.press("Enter")
    # Nothing was sent yet; the page opens with the first event.
    expect(page.get_by_role("heading", name="No events yet")).to_be_visible()
    series = builders.world()
    expect(page.locator("#strip")).to_be_visible(timeout=15_000)
    assert page.locator("main").evaluate("e => getComputedStyle(e.parentElement).color") == (
        "rgb(231, 235, 241)"
    )
    page.keyboard.press("g")
    page.keyboard.press("a")
    page.wait_for_url("**/anomalies/")
    _list(page)
    _found(page, series.source)
    _detail(page)


def _list(page: Page) -> None:
    """Filter, save, label by key, label two at once and take that back."""
    page.get_by_label("Severity").select_option("3")
    page.wait_for_url("**/anomalies/?severity=3")
    expect(page.get_by_role("link", name="Without severity")).to_be_visible()
    page.keyboard.press("Escape")
    page.locator("#views summary").click()
    page.get_by_label("Save this list as").fill("Urgent")
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_url("**view=*")
    expect(page.get_by_role("heading", name="Urgent")).to_be_visible()
    assert SavedView.objects.get().query == "severity=3"
    page.keyboard.press("j")
    row = page.locator("tr.rowlink").first
    expect(row.get_by_role("link")).to_be_focused()
    page.keyboard.press("1")
    expect(row.locator(".labelled")).to_have_text("Real")
    page.keyboard.press("u")
    expect(row.locator(".labelled")).to_have_text("none")
    page.keyboard.press("x")
    page.locator("tr.rowlink").nth(1).get_by_role("checkbox").check()
    expect(page.locator("[data-chosen]")).to_have_text("2 ticked")
    page.locator("#bulk").get_by_role("button", name="Expected").click()
    question = page.get_by_role("dialog")
    expect(question.get_by_role("heading")).to_contain_text("expected?")
    question.get_by_role("button", name="Label").click()
    page.wait_for_url("**done=*")
    expect(row.locator(".labelled")).to_have_text("Expected")
    page.keyboard.press("u")
    page.wait_for_url(lambda url: "done=" not in url)
    expect(row.locator(".labelled")).to_have_text("none")
    assert BulkLabel.objects.get().undone_at is not None


def _found(page: Page, source: str) -> None:
    """Help and search; the newest anomaly of a source is opened from there."""
    page.keyboard.press("?")
    help = page.get_by_role("dialog", name="Keyboard")
    expect(help).to_contain_text("Next, previous row")
    page.keyboard.press("Escape")
    expect(help).to_be_hidden()
    page.keyboard.press("/")
    page.keyboard.type(source)
    hits = page.get_by_role("listbox")
    expect(hits.get_by_role("group", name="Newest anomalies")).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(hits.get_by_role("option").first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Escape")
    expect(hits).to_be_hidden()
    newest = Anomaly.objects.filter(source=source).latest("onset_at")
    page.locator("#q").fill(str(newest.pk)[:8])
    expect(hits.get_by_role("option").first).to_contain_text(newest.metric)
    expect(hits.get_by_role("option")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/anomalies/{newest.pk}/")


def _detail(page: Page) -> None:
    expect(page.locator(".uplot canvas")).to_be_visible()
    page.keyboard.press("3")
    expect(page.get_by_role("button", name="Expected")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("u")
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)
    page.keyboard.press("1")
    expect(page.get_by_role("button", name="Real")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("n")
    # Letters are letters while one writes.
    page.keyboard.type("j3: provider <is> down")
    page.get_by_role("button", name="Add").click()
    expect(page.locator(".notes .said")).to_have_text("j3: provider <is> down")
    assert Note.objects.get().text == "j3: provider <is> down"
    page.get_by_role("link", name="Change").click()
    page.locator(".notes textarea").fill("provider is back")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".notes .said")).to_have_text("provider is back")
    page.screenshot(path=SHOTS / "anomaly-labelled-dark.png", full_page=True)
    page.goto(page.url.split("/anomalies/")[0] + "/settings/")
    page.get_by_role("button", name="Off").click()
    expect(page.get_by_text("Keyboard shortcuts are off.")).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("a")
    page.keyboard.press("/")
    expect(page.locator("#q")).not_to_be_focused()
    assert page.url.endswith("/settings/")


def test_the_same_on_a_phone(watched: Watched) -> None:
    builders.user(is_staff=True)
    fresh = builders.anomaly(builders.world(), score=0.99, at=datetime.now(UTC))
    page = watched.page
    page.set_viewport_size(PHONE)
    watched.sign_in()
    page.locator(".tabs").get_by_role("link", name="Anomalies").click()
    page.wait_for_url("**/anomalies/")
    page.locator("#more-filters summary").click()
    page.get_by_label("Series like").fill("checkout-*/payment*")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**series=checkout**")
    expect(page.locator("tr.rowlink .source").first).to_have_text(fresh.source)
    page.screenshot(path=SHOTS / "anomalies-narrowed-phone.png")
    for path in ("/anomalies/?range=all", f"/anomalies/{fresh.pk}/", "/search/?q=checkout"):
        watched.go(path)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
    watched.go(f"/anomalies/{fresh.pk}/")
    page.get_by_role("button", name="Real").click()
    expect(page.get_by_role("button", name="Real")).to_have_attribute("aria-pressed", "true")
    fresh.refresh_from_db()
    assert fresh.label == "real"
