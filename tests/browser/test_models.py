"""An operator's way through the models: train, look, promote past the gate, roll back."""

from __future__ import annotations

import re
from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone
from playwright.sync_api import Browser, expect

from detection import model_store
from detection.features import FEATURE_NAMES
from detection.models import ModelVersion, ScoringVersion, TrainingRun, VersionLog
from detection.training import Trained, train
from streams.models import Stream
from tests import builders
from tests.browser.watched import PHONE, SHOTS, as_operator
from tests.detection import lines

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def trained(seed: int) -> Trained:
    rows = np.random.default_rng(seed).normal(0, 1, (900, len(FEATURE_NAMES)))
    now = timezone.now()
    times = {"first_event": (now - timedelta(days=7)).isoformat(), "last_event": now.isoformat(),
             "events": 1_204_000, "series": 38, "events_in_anomalies": 1_204,
             "offsets": {"0": [0, 600_000], "1": [0, 604_000]}}  # fmt: skip
    return train("isolation_forest", rows, seed=seed, params={"n_estimators": 20},
                 provenance=times)  # fmt: skip


def world() -> ModelVersion:
    """Three lines, a challenger, a run at work, one that failed, and a log of versions."""
    builders.world()
    stream = Stream.objects.get(name="webshop")
    for metric in ("", "payment_latency_ms"):
        saved = [
            model_store.save(trained(seed), stream=stream, algorithm="isolation_forest",
                             metric=metric)
            for seed in range(3)
        ]  # fmt: skip
        model_store.promote(saved[0].pk, actor="anna", reason="first model")
        model_store.promote(saved[1].pk, actor="anna", reason="fewer alarms on weekends")
        if metric:
            model_store.challenge(saved[2].pk, actor="anna")
    now = timezone.now()
    TrainingRun.objects.create(stream=stream, algorithm="isolation_forest", status="running",
                               stage="fitting", progress=0.78, heartbeat_at=now)  # fmt: skip
    TrainingRun.objects.create(stream=stream, algorithm="isolation_forest", status="failed",
                               reason="the worker ended before the training did while reading",
                               finished_at=now)  # fmt: skip
    policies = [{"name": "nights", "version": 3, "source_pattern": "web-*", "threshold": 0.9},
                {"name": "configuration", "threshold": 0.8}]  # fmt: skip
    payload = {"combine": "max", "policies": policies,
               "detectors": {"online": {"enabled": True}, "isolation_forest": {"enabled": True}},
               "models": [{"id": saved[1].pk, "algorithm": "isolation_forest",
                           "metric": "payment_latency_ms", "version": 2,
                           "sha256": saved[1].sha256}]}  # fmt: skip
    version = ScoringVersion.objects.create(stream=stream, sha256="ab" * 32, payload=payload)
    for partition in range(4):
        VersionLog.objects.create(incarnation=builders.incarnation(stream), partition=partition,
                                  from_offset=48_000_000 + partition,
                                  scoring_version=version)  # fmt: skip
    return saved[1]


def test_one_line_shows_everything_at_once(browser: Browser, site: str, rows: None) -> None:
    builders.world()
    saved = lines.world(every_h=6)
    context, watched = as_operator(browser, site, "dark")
    page = watched.page
    watched.go("/models/")
    page.get_by_role("link", name="webshop · payment_latency_ms · isolation forest").click()
    for name, cell in (("Drift of the inputs", "residual"),
                       ("Scores, live against training", "training")):  # fmt: skip
        card = page.locator("section", has=page.get_by_role("heading", name=name))
        expect(card.locator("canvas")).to_be_visible()
        expect(card.locator("[data-chart]")).to_have_attribute("aria-label", re.compile(r"\w"))
        card.get_by_text("Show as a table").click()
        expect(card.locator("th", has_text=cell)).to_be_visible()
        assert card.locator("tbody tr").count() > 10
    disabled = page.locator("[aria-disabled]", has_text="Promote v4")
    expect(disabled).to_have_attribute("aria-describedby", "not-ready")
    # The run goes on and ends; the card hears of it, and the table with the new version too.
    TrainingRun.objects.filter(status="running").update(progress=0.96, stage="storing")
    expect(page.locator("#line-run")).to_contain_text("96 %", timeout=10_000)
    made = model_store.save(trained(9), stream=saved[0].stream, metric=lines.METRIC,
                            algorithm="isolation_forest")  # fmt: skip
    TrainingRun.objects.filter(status="running").update(status="done", finished_at=timezone.now())
    ModelVersion.objects.filter(pk=made.pk).update(run=TrainingRun.objects.latest("pk"))
    expect(page.locator("#line-run")).to_contain_text("v5 came of it", timeout=10_000)
    expect(page.locator("#line-versions")).to_contain_text("Let it challenge")
    page.get_by_label("Which version was live at").fill("2026-11-17T03:12")
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_url(re.compile(r"/models/live/\?at=2026-11-17T03%3A12&by=clock"))
    page.set_viewport_size(PHONE)
    watched.go(f"/models/lines/{saved[0].pk}/")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    context.close()
    assert watched.faults == []


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_an_operator_trains_promotes_and_rolls_back(
    browser: Browser, site: str, rows: None, theme: str
) -> None:
    champion = world()
    context, watched = as_operator(browser, site, theme)
    page = watched.page

    watched.go("/models/")
    expect(page.get_by_role("heading", name="Training runs")).to_be_visible()
    expect(page.locator("#runs .run")).to_contain_text("78 %")
    page.screenshot(path=SHOTS / f"models-{theme}.png", full_page=True)
    # The card asks by itself, and is told that the run has gone on.
    TrainingRun.objects.filter(status="running").update(progress=0.91, stage="testing")
    expect(page.locator("#runs .run")).to_contain_text("91 %", timeout=10_000)
    page.get_by_role("button", name="Cancel run").click()
    expect(page.locator("#runs .run")).to_contain_text("ending")
    page.get_by_label("Metric").fill("payment_latency_ms")
    page.get_by_label("Stream").select_option("webshop")
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.locator("#runs")).to_contain_text("waiting for a worker")

    watched.go(f"/models/{champion.pk}/")
    page.screenshot(path=SHOTS / f"model-{theme}.png", full_page=True)
    page.get_by_role("link", name="Roll back to v1").first.click()
    page.screenshot(path=SHOTS / f"model-change-{theme}.png", full_page=True)
    page.get_by_label("Reason").fill("alarms at night")
    page.get_by_role("button", name="Roll back to v1").click()
    expect(page.get_by_text("v1 is the champion again")).to_be_visible()

    watched.go(f"/models/live/?at={timezone.now():%Y-%m-%dT%H:%M}")
    watched.go("/models/live/")
    expect(page.get_by_text("scoring version")).to_be_visible()
    page.screenshot(path=SHOTS / f"models-live-{theme}.png", full_page=True)

    page.set_viewport_size(PHONE)
    for name, path in (("models", "/models/"), ("model", f"/models/{champion.pk}/"),
                       ("models-live", "/models/live/")):  # fmt: skip
        watched.go(path)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE["width"], (path, wide)
        page.screenshot(path=SHOTS / f"{name}-phone-{theme}.png", full_page=True)
    context.close()
    assert watched.faults == []
