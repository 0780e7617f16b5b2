"""A page that keeps what goes wrong in it, and an operator who is signed in to one."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Response,
    ViewportSize,
)

from tests import builders

SHOTS = Path(__file__).parent / "screenshots"
DESK, PHONE = ViewportSize(width=1440, height=900), ViewportSize(width=390, height=844)


class Watched:
    """A page whose console errors, refused and foreign requests are kept."""

    def __init__(self, context: BrowserContext, site: str) -> None:
        self.site, self.faults = site, list[str]()
        self.page = context.new_page()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self._check(request.url))
        self.page.on("response", self._weigh)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.faults.append(message.text)

    def _check(self, url: str) -> None:
        host = self.site.removeprefix("http://")
        if not re.match(rf"(http|ws)://{re.escape(host)}/|data:|blob:", url):
            self.faults.append(f"foreign request: {url}")

    def _weigh(self, response: Response) -> None:
        if response.status >= 400:
            self.faults.append(f"{response.status} for {response.request.method} {response.url}")

    def go(self, path: str) -> Page:
        self.page.goto(self.site + path)
        return self.page

    def sign_in(self, name: str = "anna") -> Page:
        self.go("/login/")
        self.page.get_by_label("User name").fill(name)
        self.page.get_by_label("Password").fill(builders.PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(self.site + "/")
        return self.page


def as_operator(browser: Browser, site: str, theme: str) -> tuple[BrowserContext, Watched]:
    """A wide window in this theme, with an operator signed in."""
    builders.user("olga", is_staff=True, first_name="Olga")
    scheme = "dark" if theme == "dark" else "light"
    context = browser.new_context(viewport=DESK, color_scheme=scheme)
    watched = Watched(context, site)
    watched.sign_in("olga")
    SHOTS.mkdir(exist_ok=True)
    return context, watched
