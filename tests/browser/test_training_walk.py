"""The life of a model by button: a real worker trains from a real topic what the page asks for."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from detection.models import ModelVersion, TrainingRun
from detection.training_queue import look_after
from streams.models import Stream
from tests.browser.watched import SHOTS, Watched, as_operator
from tests.conftest import MakeTopic
from tests.detection.test_train_command import fill
from tests.detection.test_training_queue import Worker, kill, until
from tests.detection.test_training_queue import worker as worker

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]
SOON = 90_000  # on a busy machine
STEPS = 8_000  # of six series


def ask(page: Page, *, share: float) -> TrainingRun:
    """Press Train while no worker runs; it will read with this share of a core."""
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.locator("#runs .run")).to_contain_text("waiting for a worker")
    run = TrainingRun.objects.latest("pk")
    TrainingRun.objects.filter(pk=run.pk).update(order=run.order | {"share": share})
    return run


def percent(page: Page) -> Locator:
    return page.locator("#runs .run-figure b")


def row(page: Page, run: TrainingRun) -> Locator:
    """An ended run's line on the page."""
    return page.locator(f"#runs tbody tr:has(td:first-child b:text-is('{run.pk}'))")


def change(watched: Watched, model: ModelVersion, link: str, reason: str) -> Page:
    """From a version's page to the question whether it is meant, with a reason given."""
    page = watched.go(f"/models/{model.pk}/")
    page.get_by_role("link", name=link).first.click()
    page.get_by_label(re.compile("^Reason")).fill(reason)
    return page


def test_a_model_is_trained_cancelled_promoted_and_rolled_back_by_button(
    browser: Browser, site: str, rows: None, worker: Worker, topic: MakeTopic, kafka: str
) -> None:
    place = topic(2)
    fill(kafka, place, steps=STEPS)
    Stream.objects.create(name="raw", topic=place)
    context, watched = as_operator(browser, site, "dark")
    page = watched.go("/models/")

    # A slow one: its progress moves, and Cancel ends it.
    first = ask(page, share=0.1)
    at_work = worker()
    expect(percent(page)).to_be_visible(timeout=SOON)
    seen = percent(page).inner_text()
    expect(percent(page)).not_to_have_text(seen, timeout=SOON)
    page.get_by_role("button", name=f"Cancel run {first.pk}").click()
    expect(row(page, first)).to_contain_text("cancelled by olga", timeout=SOON)
    assert not ModelVersion.objects.exists()

    # Asked for again it is done, and the first of its line is champion; the second one waits.
    for number, state in ((1, "champion"), (2, "candidate")):
        page.get_by_role("button", name="Train", exact=True).click()
        line = page.locator("#lines tr.rowlink").filter(has_text=f"v{number}")
        expect(line).to_contain_text(state, timeout=SOON)
    expect(row(page, TrainingRun.objects.latest("pk"))).to_contain_text("done")
    _, v2 = ModelVersion.objects.order_by("version")

    # Promotion is asked with figures of both, and the gate's reasons; past it goes a reason only.
    change(watched, v2, "Promote", "measured by hand")
    for figures in (page.locator("table.compare tr").nth(n) for n in (1, 2)):
        expect(figures).to_contain_text(re.compile(r"\d.*\d", re.DOTALL))
    expect(page.locator(".gate")).to_contain_text("0 of 24 hours of events beside the champion")
    expect(page.locator(".gate")).to_contain_text("not been tested on injected faults yet")
    page.screenshot(path=SHOTS / "walk-promote.png", full_page=True)
    page.get_by_role("button", name="Promote v2 anyway").click()
    expect(page.get_by_text("is the champion. Consumers")).to_be_visible()
    change(watched, v2, "Roll back to v1", "it was not better")
    page.get_by_role("button", name="Roll back to v1").click()
    expect(page.get_by_text("v1 is the champion again")).to_be_visible()
    assert dict(ModelVersion.objects.values_list("version", "state")) == {
        1: "champion", 2: "retired",
    }  # fmt: skip

    # A worker that dies: the page says so, and the next worker does it once more.
    kill(at_work)
    page = watched.go("/models/")
    dying = ask(page, share=0.1)
    at_work = worker()
    expect(percent(page)).to_be_visible(timeout=SOON)
    kill(at_work)
    until(lambda: bool(look_after()))  # as the scheduler does every ten seconds
    expect(row(page, dying)).to_contain_text("failed", timeout=SOON)
    expect(row(page, dying)).to_contain_text("the worker ended before the training did while")
    again = TrainingRun.objects.get(retry_of=dying)
    expect(page.locator("#runs .run")).to_contain_text(f"Run {again.pk}")
    page.screenshot(path=SHOTS / "walk-retry.png", full_page=True)
    TrainingRun.objects.filter(pk=again.pk).update(order=again.order | {"share": 0.5})
    worker()
    expect(row(page, again)).to_contain_text("done", timeout=SOON)
    expect(row(page, again)).to_contain_text(f"retry of {dying.pk}")
    assert ModelVersion.objects.get(run=again).state == "candidate"
    context.close()
    assert watched.faults == []
