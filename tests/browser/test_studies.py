"""A study's page in both themes and on a phone, with a form that queues one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from detection import tuning
from detection.injection import KINDS
from detection.models import Study
from tests import builders
from tests.browser.watched import PHONE, SHOTS, as_operator

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def study() -> Study:
    rng = np.random.default_rng(5)
    trials: list[dict[str, Any]] = []
    for number in range(20):
        name = list(tuning.RANGES)[number % 3 if number < 9 else 2]
        value = float(0.6 + 0.1 * (name != "isolation_forest") + 0.2 * rng.random())
        params = dict(tuning._DEFAULTS[name]) | ({"nu": 0.0123456} if number == 14 else {})
        figures = {"recall": {kind: float(rng.random()) for kind in KINDS},
                   "false_onsets_per_10000": 2.78}  # fmt: skip
        trials.append(tuning.Trial(number, name, params, value, figures, 0.5).as_dict())
    best = max(trials, key=lambda t: t["value"])
    shares = {"algorithm": 0.71, "one_class_svm.gamma": 0.19, "one_class_svm.nu": 0.06,
              "local_outlier_factor.n_neighbors": 0.03}  # fmt: skip
    model = builders.model()
    return Study.objects.create(
        stream=model.stream, status="done", max_trials=20, max_seconds=600.0, trials=trials,
        best=best, importance=shares, model=model, seed=4,
        objective="share found of 144 injected faults, mean over 8 kinds, at 3 false onsets in"
        " 10,000 events",
    )  # fmt: skip


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_a_study_is_looked_at_and_another_one_asked_for(
    browser: Browser, site: str, rows: None, theme: str
) -> None:
    made = study()
    context, watched = as_operator(browser, site, theme)
    page = watched.page
    watched.go(f"/models/studies/{made.pk}/")
    expect(page.locator("svg circle")).to_have_count(20)
    page.screenshot(path=SHOTS / f"study-{theme}.png", full_page=True)
    watched.go("/models/studies/")
    page.screenshot(path=SHOTS / f"studies-{theme}.png", full_page=True)
    page.get_by_label("Trials, at most").fill("7")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_text("It waits for a worker")).to_be_visible()
    assert Study.objects.latest("pk").max_trials == 7
    # The page asks by itself, and is told of the end.
    Study.objects.filter(max_trials=7).update(status="failed", reason="no events")
    expect(page.locator("#study")).to_contain_text("No events", timeout=10_000)
    page.set_viewport_size(PHONE)
    for name, path in (("study", f"/models/studies/{made.pk}/"), ("studies", "/models/studies/")):
        watched.go(path)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE["width"], (path, wide)
        page.screenshot(path=SHOTS / f"{name}-phone-{theme}.png", full_page=True)
    context.close()
    assert watched.faults == []
