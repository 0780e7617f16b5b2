"""A socket that is lost and comes back, a window at 200 %, forced colours and paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from anomalies.models import Anomaly
from streams.models import Series
from tests import builders
from tests.browser.watched import DESK, SHOTS, Watched

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

# A socket that a test can cut, and tries that it can count; jitter is half of its range: none.
SOCKET = """
const Real = window.WebSocket;
window.cut = false; window.tried = []; window.open_sockets = [];
Math.random = () => 0.5;
window.WebSocket = function (url) {
  if (!window.cut) { const real = new Real(url); window.open_sockets.push(real); return real; }
  window.tried.push(Date.now());
  const refused = { close() {} };
  setTimeout(() => refused.onclose && refused.onclose(), 0);
  return refused;
};
"""
# What can be read or used, by name (the search box becomes a link); and what sticks out of the
# window without a box to scroll it.
SEEN = """() => {
  const seen = new Set();
  for (const e of document.querySelectorAll("h1, h2, h3, th, a, button, select, input, summary"))
    if (e.checkVisibility() && !e.matches(".cell, #q, [type=hidden]"))
      seen.add((e.getAttribute("aria-label") || e.title || e.textContent).trim() || e.outerHTML);
  return [...seen].sort();
}"""
OUTSIDE = """() => [...document.querySelectorAll("body *")]
  .filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1
    && !e.closest(".scroll, .filters, .subtabs, .sr, svg, .uplot"))
  .map((e) => e.outerHTML.slice(0, 90))"""
ZOOMED = ViewportSize(width=DESK["width"] // 2, height=DESK["height"] // 2)


@pytest.fixture
def watched(browser: Browser, site: str, rows: None) -> Iterator[Watched]:
    context = browser.new_context(viewport=DESK, color_scheme="dark", reduced_motion="reduce")
    watching = Watched(context, site)
    yield watching
    context.close()
    assert watching.faults == []


def test_a_lost_socket_is_told_of_tried_again_and_caught_up(watched: Watched) -> None:
    builders.user()
    series = builders.world()
    page = watched.page
    page.add_init_script(SOCKET)
    watched.sign_in()
    expect(page.locator("html[data-connected]")).to_be_attached()
    page.clock.install()
    page.clock.pause_at(datetime.now(UTC))
    page.evaluate("window.cut = true; window.began = Date.now();"
                  "window.open_sockets.forEach((s) => s.close())")  # fmt: skip
    expect(page.locator("html[data-connected]")).to_have_count(0)
    line = page.locator("#connection")
    page.clock.run_for(2_500)
    expect(line).to_have_count(0)
    expect(page.locator("#live-dot")).to_have_attribute("class", "dot")
    page.clock.run_for(2_000)
    said = r"Disconnected for [45] s\. Trying again in [23] s\. Nothing is lost\."
    expect(line).to_contain_text(re.compile(said))
    page.clock.run_for(59_000)
    tried = page.evaluate("window.tried.map((at) => Math.round((at - window.began) / 1000))")
    # After 1, 2, 4 … s more, and never more than 30.
    assert tried == [1, 3, 7, 15, 31, 61], tried
    missed = [builders.anomaly(series, score=0.96, at=datetime.now(UTC)) for _ in range(2)]
    page.evaluate("window.cut = false")
    line.get_by_role("button", name="Now").click()
    expect(page.locator("html[data-connected]")).to_be_attached()
    expect(line).to_contain_text("Back. 2 anomalies from the gap were added.")
    page.clock.run_for(1_000)
    for one in missed:
        expect(page.locator(f"#feed [data-id='{one.pk}']")).to_be_visible()
    page.clock.run_for(7_000)
    expect(line).to_have_count(0)


def opened(watched: Watched) -> Iterator[tuple[str, Page]]:
    """Overview, an anomaly and a series, each with what it fetches after itself."""
    builders.user("olga", is_staff=True, first_name="Olga")
    builders.world()
    watched.sign_in("olga")
    odd = Anomaly.objects.exclude(series=None).order_by("-score")[0]
    paths = {"overview": "/", "anomaly": f"/anomalies/{odd.pk}/",
             "series": f"/series/{Series.objects.earliest('pk').pk}/"}  # fmt: skip
    for name, path in paths.items():
        page = watched.go(path)
        ready = "#components li" if name == "overview" else ".uplot canvas"
        expect(page.locator(ready).first).to_be_visible()
        page.wait_for_load_state("networkidle")
        yield name, page


def test_at_200_percent_nothing_is_lost_and_nothing_sticks_out(watched: Watched) -> None:
    for name, page in opened(watched):
        before = set(page.evaluate(SEEN))
        page.set_viewport_size(ZOOMED)
        page.wait_for_timeout(200)  # charts follow the window
        page.screenshot(path=SHOTS / f"{name}-zoomed.png", full_page=True, caret="initial")
        assert before - set(page.evaluate(SEEN)) == set(), name
        assert page.evaluate(OUTSIDE) == [], name
        assert page.evaluate("document.documentElement.scrollWidth") <= ZOOMED["width"], name
        # Lower than its icons, the sidebar scrolls; it squeezes none.
        brand, leave = page.locator(".brand"), page.get_by_role("button", name="Sign out").first
        box = brand.bounding_box()
        assert box is not None
        assert box["height"] == 48, name
        leave.scroll_into_view_if_needed()
        expect(leave).to_be_in_viewport()
        page.set_viewport_size(DESK)


def test_forced_colours_keep_what_colour_and_height_say(watched: Watched) -> None:
    def colour(page: Page, of: str, what: str = "backgroundColor", part: str = "") -> str:
        script = "([of, what, part]) => getComputedStyle(document.querySelector(of), part)[what]"
        return str(page.evaluate(script, [of, what, part]))

    for name, page in opened(watched):
        page.emulate_media(forced_colors="active")
        page.screenshot(path=SHOTS / f"{name}-forced.png", full_page=True, caret="initial")
        assert colour(page, ".item[aria-current]", "outlineStyle") == "solid", name
        if name == "overview":
            severities = {colour(page, f".cell.s{n}", part="::after") for n in (1, 2, 3, 4)}
            assert len(severities | {colour(page, ".card")}) == 5
            assert colour(page, "#go-live", "outlineStyle") == "solid"
        else:
            assert page.locator(".chart .summary, .chart summary").first.is_visible(), name
            assert colour(page, ".legend .band-key") != colour(page, ".card"), name
        if name == "anomaly":
            assert colour(page, ".bar .full", "fill") != colour(page, ".bar .rail", "fill")
        page.emulate_media(forced_colors="none")


def test_paper_has_the_content_alone(watched: Watched) -> None:
    for name, page in opened(watched):
        page.emulate_media(media="print")
        for tool in (".side", ".top", ".tabs", ".head .end, .filters .end"):
            for one in page.locator(tool).all():
                expect(one).to_be_hidden()
        expect(page.locator("main .card").first).to_be_visible()
        page.screenshot(path=SHOTS / f"{name}-paper.png", full_page=True, caret="initial")
        page.emulate_media(media="screen")
