"""A person's way through the pages in a real browser, in both themes and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Browser, expect

from anomalies.live import LivePublisher
from anomalies.models import Anomaly
from anomalies.results import result_of
from tests import builders
from tests.browser.watched import DESK, Watched

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def watched(browser: Browser, site: str, rows: None) -> Iterator[Watched]:
    context = browser.new_context(viewport=DESK, color_scheme="dark")
    watching = Watched(context, site)
    yield watching
    context.close()
    assert watching.faults == []


def test_from_login_over_a_live_anomaly_to_its_label(watched: Watched, redis_url: str) -> None:
    builders.user(is_staff=True)
    series = builders.world()
    page = watched.sign_in()
    expect(page.locator("html[data-connected]")).to_be_attached()
    expect(page.locator("#components li")).to_have_count(6)
    fresh = builders.anomaly(series, score=0.98, at=datetime.now(UTC), anomaly_type="spike")
    push = LivePublisher(redis_url)
    push.publish({"type": "update", "at": "now", "events": 5, "events_per_s": 987.0, "lag": 4,
                  "latency_p95_ms": 55.0, "rejects": 0,
                  "anomalies": [result_of(fresh) | {"change": "onset"}]})  # fmt: skip
    row = page.locator(f"#feed [data-id='{fresh.pk}']")
    expect(row).to_be_visible()
    expect(page.locator("#n-rate")).to_have_text("987")
    row.get_by_role("link").click()
    page.wait_for_url(f"**/anomalies/{fresh.pk}/")
    expect(page.locator(".uplot canvas")).to_be_visible()
    page.get_by_role("button", name="False alarm").click()
    expect(page.get_by_role("button", name="False alarm")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("1")
    expect(page.get_by_role("button", name="Real")).to_have_attribute("aria-pressed", "true")
    stored = Anomaly.objects.select_related("labelled_by").get(pk=fresh.pk)
    assert stored.labelled_by is not None
    assert (stored.label, stored.labelled_by.username) == ("real", "anna")
    push.close()


def test_paused_counts_and_shows_what_came(watched: Watched, redis_url: str) -> None:
    builders.user()
    series = builders.world()
    page = watched.sign_in()
    expect(page.locator("html[data-connected]")).to_be_attached()
    page.get_by_role("button", name="Paused").click()
    push = LivePublisher(redis_url)
    found = [builders.anomaly(series, at=datetime.now(UTC)) for _ in range(3)]
    push.publish(
        {"type": "update", "anomalies": [result_of(a) | {"change": "onset"} for a in found]}
    )
    button = page.locator("#feed-show")
    expect(button).to_have_text("3 new, show")
    assert page.locator(f"#feed [data-id='{found[0].pk}']").count() == 0
    button.click()
    expect(page.locator(f"#feed [data-id='{found[0].pk}']")).to_be_visible()
    expect(page.locator("#feed li")).to_have_count(8)
    push.close()


def test_a_page_that_was_cut_off_catches_up(watched: Watched) -> None:
    builders.user()
    series = builders.world()
    page = watched.sign_in()
    expect(page.locator("html[data-connected]")).to_be_attached()
    # Stored while nothing is pushed: only the cursor can find it.
    missed = builders.anomaly(series, score=0.96, at=datetime.now(UTC))
    page.get_by_role("button", name="Paused").click()
    page.get_by_role("button", name="Live").click()
    expect(page.locator(f"#feed [data-id='{missed.pk}']")).to_be_visible()


def test_first_run_opens_with_the_first_event(watched: Watched) -> None:
    builders.user()
    page = watched.sign_in()
    expect(page.get_by_role("heading", name="No events yet")).to_be_visible()
    builders.series()
    expect(page.locator("#strip")).to_be_visible(timeout=10_000)


def test_lanes_are_walked_by_keys(watched: Watched) -> None:
    builders.user()
    builders.world()
    page = watched.sign_in()
    cell = page.locator(".lane a.cell[tabindex='0']")
    cell.focus()
    note = page.locator(".lane-note")
    expect(note).to_contain_text("anomal")
    # The worst is asked for once somebody looks, and is then part of the cell's sentence.
    worst = re.compile(r"Worst: \w+, [\d.,]+.*, expected 181 to 312")
    expect(note).to_contain_text(worst)
    expect(cell).to_have_accessible_name(worst)
    expect(note.locator("kbd")).to_have_text(["Enter", "←", "→", "↑", "↓"])
    # The card comes anew every few seconds; who walks in it keeps the place.
    with page.expect_response("**/?*"):
        page.evaluate("htmx.trigger(document.body, 'vigil:slow')")
    page.evaluate("new Promise((done) => setTimeout(done, 100))")
    expect(page.locator(".lane a.cell:focus")).to_have_count(1)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url("**/anomalies/?start=*")
    expect(page.locator("tbody tr").first).to_be_visible()


def test_filters_live_in_the_address(watched: Watched) -> None:
    builders.user()
    builders.world()
    watched.sign_in()
    page = watched.go("/anomalies/")
    page.locator("select[name=severity]").select_option("4")
    page.wait_for_url("**severity=4**")
    expect(page.locator("tbody tr").first.locator(".sev-word")).to_have_text("Critical")
    page.reload()
    expect(page.locator("select[name=severity]")).to_have_value("4")


def test_a_long_name_leaves_room_to_sign_out(watched: Watched) -> None:
    builders.user("w", first_name="Wilhelmina Maria", last_name="Oosterhuis-van den Berg")
    page = watched.sign_in("w")
    name = page.get_by_role("link", name="Wilhelmina Maria Oosterhuis-van den Berg")
    leave = page.locator(".side").get_by_role("button", name="Sign out")
    for width, side in ((1440, 200), (900, 52)):  # a phone signs out in its sheet
        page.set_viewport_size({"width": width, "height": 800})
        for part in (name, leave):
            box = part.bounding_box()
            assert box is not None
            assert box["x"] + box["width"] <= side, (width, box)
            assert box["height"] < 40, box
    leave.click()
    page.wait_for_url("**/login/")
