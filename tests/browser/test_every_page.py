"""Every page of the address book in one pass: both themes and a phone, by axe-core and by eye.

The list comes from the URL configuration, so a new page is looked at by itself; one that needs a
row to show has to say here which (`ROWS`). Screenshots go to a folder that git ignores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.resources import files
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone
from playwright.sync_api import Browser, Response

from alerts.models import (
    Hours,
    InboundSource,
    Incident,
    Notification,
    Receiver,
    Rule,
    Silence,
    Team,
)
from anomalies.models import Anomaly
from detection.models import ModelVersion, Study
from streams import audit
from streams.models import AuditEntry, ConsumerStatus, DeadLetter, Series
from tests import builders
from tests.alerts import week
from tests.browser import test_receivers
from tests.browser.watched import DESK, PHONE, SHOTS, Watched
from tests.detection import lines

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
BAD = {"serious", "critical"}
MOST_BYTES = 200_000
MOST_SHIFT = 0.02
# Django's admin and the metrics have pages of their own making.
NOT_OURS = {"admin", "prometheus-django-metrics"}
ROWS: dict[str, Callable[[], dict[str, Any]]] = {
    "anomaly": lambda: {"pk": Anomaly.objects.order_by("-score")[0].pk},
    "anomaly-event": lambda: {"pk": Anomaly.objects.order_by("-score")[0].pk},
    "series": lambda: {"pk": Series.objects.earliest("pk").pk},
    "series-policy": lambda: {"pk": Series.objects.earliest("pk").pk},
    "inbound-source": lambda: {"pk": InboundSource.objects.earliest("pk").pk},
    "rule": lambda: {"pk": Rule.objects.earliest("pk").pk},
    "rule-retire": lambda: {"pk": Rule.objects.earliest("pk").pk},
    "rule-history": lambda: {"pk": Rule.objects.earliest("pk").pk},
    "silence": lambda: {"pk": Silence.objects.earliest("pk").pk},
    "incident": lambda: {"number": Incident.objects.earliest("pk").pk},
    "receiver": lambda: {"pk": Receiver.objects.earliest("pk").pk},
    "receiver-new": lambda: {"kind": "webhook"},
    "delivery": lambda: {"pk": Notification.objects.filter(state="dead")[0].pk},
    "hours": lambda: {"pk": Hours.objects.earliest("pk").pk},
    "team": lambda: {"pk": Team.objects.earliest("pk").pk},
    "audit-entry": lambda: {"pk": AuditEntry.objects.earliest("pk").pk},
    "dead-letter": lambda: {"pk": DeadLetter.objects.earliest("pk").pk},
    "stream": lambda: {"name": "raw-data"},
    "study": lambda: {"pk": Study.objects.earliest("pk").pk},
    "model": lambda: {"pk": ModelVersion.objects.earliest("pk").pk},
    "model-shadow": lambda: {"pk": ModelVersion.objects.latest("pk").pk},
    "model-drift": lambda: {"pk": ModelVersion.objects.earliest("pk").pk},
    "model-change": lambda: {
        "pk": ModelVersion.objects.filter(stream__name="raw-data").latest("pk").pk,
        "action": "promote",
    },
    "model-line": lambda: {"pk": ModelVersion.objects.latest("pk").pk},
}
# What a page asks for in its address.
QUERIES = {"series-policy": "?threshold=0.9"}
# Parts of pages, files and links with a signature: not to be opened by themselves.
NO_PAGES = {
    "anomalies-export", "anomalies-since", "view-open", "anomaly-why", "alert-link",
    "api-anomalies-source", "line-run", "rule-preview", "silence-preview", "series-part",
    "series-tail",
}  # fmt: skip
# What is out of date is meant to be faint, and says so in words: its contrast alone is let be.
FAINT = ".stale, [data-stale] :is(.strip .value b, .strip .spark, #feed)"
RUN = """async ([which, faint]) => {
  const { violations } = await axe.run("html", { runOnly: which, resultTypes: ["violations"] });
  const meant = (node) => document.querySelector(node.target[0])?.closest(faint);
  for (const fault of violations)
    if (fault.id === "color-contrast") fault.nodes = fault.nodes.filter((node) => !meant(node));
  return { violations: violations.filter((fault) => fault.nodes.length) };
}"""
WEEK = {"days": ["mon", "tue"], "from": "09:00", "to": "17:00"}
WATCH = """
let pending = 0;
window.shift = 0;
const count = (more) => {
  pending = Math.max(0, pending + more);
  document.documentElement.toggleAttribute("data-pending", pending > 0);
};
addEventListener("htmx:beforeRequest", () => count(1), true);
for (const end of ["htmx:afterSettle", "htmx:responseError", "htmx:sendError", "htmx:abort"])
  addEventListener(end, () => count(-1), true);
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


def world(boss: User) -> None:
    """Rows for every page."""
    builders.world()
    champion = ModelVersion.objects.get()
    ModelVersion.objects.create(
        stream=champion.stream, algorithm=champion.algorithm, version=4, state="challenger",
        run=champion.run, sha256="3f8ad2c6" + "cd" * 28, artefact=b"", manifest=champion.manifest,
        challenged_at=timezone.now(),
    )  # fmt: skip
    lines.world(every_h=6)
    Study.objects.create(
        stream=champion.stream, status="failed", reason="no events", max_trials=9,
        max_seconds=60.0, trials=[], seed=1, objective="share found",
    )  # fmt: skip
    # Alive as long as the pass takes.
    ConsumerStatus.objects.update(beat_at=timezone.now() + timedelta(minutes=30))
    test_receivers.world()
    rule = week.rule()
    week.silence("Deploy", timezone.now(), timezone.now() + timedelta(hours=1))
    InboundSource.objects.create(name="am", token_hash="0" * 64, token_at=timezone.now())
    Team.objects.get_or_create(name="payments")
    Hours.objects.get_or_create(name="office", defaults={"weekly": [WEEK]})
    audit.record(boss, audit.Action.CHANGED, rule, {"enabled": False}, {"enabled": True})


def pages(client: Client) -> list[tuple[str, str]]:
    """Names and addresses of all that answer with a whole page of ours."""
    found, untold = [], []
    for name, pattern in _named(get_resolver().url_patterns):
        if name in NO_PAGES:
            continue
        takes = pattern.pattern.converters
        if takes and name not in ROWS:
            given = {"pk": 1, "number": 1} | dict.fromkeys(takes, "1")
            guess = {key: "0" * 8 + "-0000-0000-0000-" + "0" * 12
                     if type(takes[key]).__name__ == "UUIDConverter" else given[key]
                     for key in takes}  # fmt: skip
            if client.get(reverse(name, kwargs=guess)).status_code != 405:
                untold.append(name)
            continue
        path = reverse(name, kwargs=ROWS[name]() if takes else None) + QUERIES.get(name, "")
        answer = client.get(path)
        is_page = answer.status_code == 200 and b"<!doctype html" in answer.content[:200].lower()
        if is_page:
            found.append((name, path))
        else:
            assert not takes, f"{name}: {path} answered {answer.status_code}, no page"
    assert untold == [], "tell ROWS which row these pages show, or that they are none (NO_PAGES)"
    return found


def _named(patterns: list[Any]) -> Iterator[tuple[str, URLPattern]]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            if pattern.app_name not in NOT_OURS:
                yield from _named(pattern.url_patterns)
        elif pattern.name and pattern.name not in NOT_OURS and not pattern.name.startswith("api-"):
            yield pattern.name, pattern


@pytest.fixture
def raw_data(kafka_admin: AdminClient) -> Iterator[None]:
    """The topic that the stream of the rows reads."""
    kafka_admin.create_topics([NewTopic("raw-data", 4, 1)])["raw-data"].result(30)
    yield
    kafka_admin.delete_topics(["raw-data"])["raw-data"].result(30)


class Pass:
    """One page after the other in one window; what is wrong is kept, not raised."""

    def __init__(self, watched: Watched) -> None:
        self.watched, self.page = watched, watched.page
        self.wrong: list[str] = []
        self.weights: dict[str, int] = {}
        self._asked: list[str] = []
        self.page.on("response", self._weigh)
        SHOTS.mkdir(exist_ok=True)

    def look(self, name: str, path: str) -> None:
        page, self._asked = self.page, []
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size(DESK)
        self.watched.go(path)
        page.wait_for_selector("html:not([data-pending])", state="attached")
        shift = page.evaluate("window.shift")
        if shift > MOST_SHIFT:
            self.wrong.append(f"{name}: its layout shifts by {shift:.3f}")
        weight = sum(self.weights.get(url, 0) for url in set(self._asked))
        if weight > MOST_BYTES:
            self.wrong.append(f"{name}: {weight:,} bytes over the wire")
        page.evaluate(AXE)
        self._check(name, "dark", {"type": "tag", "values": TAGS})
        page.screenshot(path=SHOTS / f"{name}-dark.png", full_page=True, caret="initial")
        # Only colours differ between the themes.
        page.emulate_media(color_scheme="light")
        self._check(name, "light", {"type": "rule", "values": ["color-contrast"]})
        page.screenshot(path=SHOTS / f"{name}-light.png", full_page=True, caret="initial")
        page.set_viewport_size(PHONE)
        wide = self._width()
        if wide > PHONE["width"]:
            self.wrong.append(f"{name}: {wide} px wide on a phone")
        page.screenshot(path=SHOTS / f"{name}-phone.png", full_page=True, caret="initial")
        self.wrong += [f"{name}: {fault}" for fault in self.watched.faults]
        self.watched.faults.clear()

    def _width(self) -> int:
        """How wide the page is once its charts have followed the window."""
        deadline = time.monotonic() + 3
        while True:
            wide = int(self.page.evaluate("document.documentElement.scrollWidth"))
            if wide <= PHONE["width"] or time.monotonic() > deadline:
                return wide
            self.page.wait_for_timeout(50)

    def _check(self, name: str, theme: str, which: dict[str, Any]) -> None:
        found = self.page.evaluate(RUN, [which, FAINT])
        for fault in found["violations"]:
            if fault["impact"] in BAD:
                where = "; ".join(
                    f"{node['target']} {node['html'][:120]} {node['failureSummary'][:240]}"
                    for node in fault["nodes"][:3]
                )
                self.wrong.append(f"{name}, {theme}: {fault['id']} ({fault['impact']}): {where}")

    def _weigh(self, response: Response) -> None:
        url = response.url
        self._asked.append(url)
        length = int(response.headers.get("content-length", "0"))
        self.weights[url] = max(self.weights.get(url, 0), length)


def test_every_page_in_both_themes_and_on_a_phone(
    browser: Browser, site: str, rows: None, raw_data: None
) -> None:
    context = browser.new_context(viewport=DESK, color_scheme="dark", reduced_motion="reduce")
    context.add_init_script(WATCH)
    watched = Watched(context, site)
    looking = Pass(watched)
    looking.look("login", "/login/")
    boss = builders.user("olga", is_staff=True, is_superuser=True, first_name="Olga")
    watched.sign_in("olga")
    looking.look("first-run", "/")
    world(boss)
    signed_in = Client()
    boss.refresh_from_db()  # signing in may have hashed the password anew
    signed_in.force_login(boss)
    every = pages(signed_in)
    assert len(every) > 35
    # The empty states first: their rows come after.
    for name, path in every:
        if name != "login":
            looking.look(name, path)
    context.close()
    assert not looking.wrong, "\n" + "\n".join(looking.wrong)
