"""An anomaly's reasons, its label with undo, and the threshold that labels speak for."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from anomalies.explain import vector_sentence
from anomalies.models import Anomaly
from detection import model_store
from detection.features import FEATURE_NAMES
from detection.models import QuarantineRelease, ThresholdPolicy
from detection.thresholds import LEVELS
from detection.training import train
from streams.models import Rollup, Series
from streams.vectors import label_of
from tests import builders
from tests.browser.watched import DESK, PHONE, SHOTS, Watched

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def told_anomaly() -> tuple[Series, Anomaly]:
    """A series with a past, its neighbours, a model, and one anomaly with all its evidence."""
    series = builders.series("checkout-eu", "payment_latency_ms")
    rows = builders.rollups(series, 1_440)
    onset = rows[-12].minute
    for i, score in enumerate((0.82, 0.84, 0.86, 0.97)):
        row = rows[900 + 100 * i] if i < 3 else rows[-12]
        counts = [int(score >= level) for level in LEVELS.tolist()]
        Rollup.objects.filter(series=series, minute=row.minute).update(
            max=1_284.0, max_score=score, score_counts=counts, onset_counts=counts
        )
    for name in ("declined_ratio", "orders_per_min", "errors"):
        near = builders.series("checkout-eu", name)
        builders.rollups(near, 60, seed=len(name))
    odd_near = Series.objects.get(metric="declined_ratio")
    Rollup.objects.filter(series=odd_near, minute=onset).update(max=900.0, max_score=0.93)
    past = [[(onset - timedelta(minutes=60 - i)).timestamp() * 1e3, 240 + 20 * math.sin(i / 3)]
            for i in range(60)]  # fmt: skip
    kinds = (("false_alarm", 0.82, "spike"), ("false_alarm", 0.84, "spike"),
             ("real", 0.96, "level_shift"))  # fmt: skip
    features = dict.fromkeys(FEATURE_NAMES, 0.2) | {"novelty": 8.1, "residual": 9.7, "gap": 0.9}
    for i, (label, score, kind) in enumerate(kinds):
        alike = features | {"novelty": 5.0 + i}
        context = [*past[:-1], [past[-1][0], 900.0]]
        builders.anomaly(
            series, at=rows[900 + 100 * i].minute, label=label, score=score, anomaly_type=kind,
            state="closed", context=context, features=alike,
        )  # fmt: skip
    noise = np.random.default_rng(3).normal(0, 1, (900, len(FEATURE_NAMES)))
    trained = train("isolation_forest", noise, seed=1, params={"n_estimators": 50})
    model = model_store.save(trained, stream=series.stream, algorithm="isolation_forest")
    odd = builders.anomaly(
        series, score=0.97, at=onset + timedelta(seconds=20), end_at=onset + timedelta(minutes=8),
        count=28, features=features, context=past,
        models_used={"isolation_forest": {"version": model.version, "sha256": model.sha256,
                                          "metric": ""}},
        evidence={"event": 8_000, "reason": "value", "tests": {
            "value": 5.2, "pair": 2.1, "block": 0.6, "residual": 3.3, "season": 0.9, "flat": 0.1}},
    )  # fmt: skip
    return series, odd


def test_reasons_label_undo_and_threshold(browser: Browser, site: str, rows: None) -> None:
    SHOTS.mkdir(exist_ok=True)
    builders.user(is_staff=True)
    series, odd = told_anomaly()
    context = browser.new_context(viewport=DESK, color_scheme="dark")
    watched = Watched(context, site)
    watched.sign_in()
    page = watched.go(f"/anomalies/{odd.pk}/")
    why = page.locator("#why")
    expect(why).to_contain_text("scored events of 1 day in this series")
    expect(why).to_contain_text("a value never seen")
    expect(why).to_contain_text("Isolation Forest")
    expect(why).to_contain_text("1 neighbour moved in the same minute: declined_ratio")
    expect(why.get_by_role("heading", name="Seen before")).to_be_visible()
    page.keyboard.press("3")
    expect(page.get_by_role("button", name="Expected")).to_have_attribute("aria-pressed", "true")
    assert QuarantineRelease.objects.count() == 1
    page.keyboard.press("u")
    expect(page.locator("#label")).to_contain_text("not labelled yet")
    assert QuarantineRelease.objects.count() == 0
    page.keyboard.press("1")
    expect(page.locator("#label")).to_contain_text("none of the 2 you marked real lost")
    for theme in ("dark", "light"):
        context.add_cookies([{"name": "vigil_theme", "value": theme, "url": site}])
        for name, path in {"why": f"/anomalies/{odd.pk}/", "feedback": "/feedback/",
                           "proposal": f"/series/{series.pk}/"}.items():  # fmt: skip
            watched.go(path)
            page.wait_for_load_state("networkidle")
            page.screenshot(path=SHOTS / f"{name}-{theme}.png", full_page=True)
    page.set_viewport_size(PHONE)
    for name, path in {"why": f"/anomalies/{odd.pk}/", "feedback": "/feedback/",
                       "proposal": f"/series/{series.pk}/"}.items():  # fmt: skip
        watched.go(path)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=SHOTS / f"{name}-phone.png", full_page=True)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE["width"], f"{name} is {wide} px wide on a phone"
    page.set_viewport_size(DESK)
    page = watched.go(f"/series/{series.pk}/")
    page.get_by_text("Other thresholds, and set it").click()
    page.get_by_role("button", name="Set 0.85 for this series").click()
    expect(page.get_by_role("status").first).to_contain_text("an anomaly from 0.85 on")
    assert ThresholdPolicy.objects.get().threshold == 0.85
    context.close()
    assert watched.faults == []


def test_a_wide_anomaly_is_told_value_by_value(browser: Browser, site: str, rows: None) -> None:
    SHOTS.mkdir(exist_ok=True)
    builders.user(is_staff=True)
    names = ("amps", "flow", "heat", "load", "pressure", "rpm")
    metric = label_of(names)
    series = builders.series("pump-07", metric)
    made = builders.rollups(series, 240, level=0.9)
    for name in ("flow", "rpm"):
        builders.rollups(builders.series("pump-07", name), 60)
    onset = made[-12].minute + timedelta(seconds=20)
    z = dict(zip(names, (0.4, 9.3, -1.2, 0.1, 4.8, 0.2), strict=True))
    total = sum(x * x for x in z.values())
    values = {
        n: {"value": None if n == "load" else 40 + 3 * x + 0.2, "level": 40 + 3 * x,
            "usual": 40.0, "expected": 40 + 0.1 * x} for n, x in z.items()
    }  # fmt: skip
    shares = {n: x * x / total for n, x in z.items()}
    for hours, score in ((9, 0.91), (0, 0.97)):
        odd = builders.anomaly(
            series, score=score, at=onset - timedelta(hours=hours), anomaly_type="multivariate",
            features=z, detectors={"vector": score}, models_used={}, value=8.13, peak_value=8.13,
            expected_low=0.0, expected_mid=0.93, expected_high=3.2,
            evidence={"shares": shares, "values": values},
            explanation=vector_sentence("pump-07", 8.13, 0.93, 3.2, shares, values),
            context=[[(onset - timedelta(seconds=10 * i)).timestamp() * 1e3, 0.9] for i in
                     range(60, 0, -1)],
        )  # fmt: skip
    context = browser.new_context(viewport=DESK, color_scheme="dark")
    watched = Watched(context, site)
    watched.sign_in()
    page = watched.go(f"/anomalies/{odd.pk}/")
    card = page.get_by_role("region", name="Value by value")
    expect(card.get_by_role("row")).to_have_count(7)
    expect(card.get_by_role("row").nth(1)).to_contain_text("flow")
    expect(card).to_contain_text("missing")
    expect(page.get_by_role("heading", name="Seen before")).to_be_visible()
    for theme in ("dark", "light"):
        context.add_cookies([{"name": "vigil_theme", "value": theme, "url": site}])
        watched.go(f"/anomalies/{odd.pk}/")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=SHOTS / f"wide-{theme}.png", full_page=True)
    page.set_viewport_size(PHONE)
    watched.go(f"/anomalies/{odd.pk}/")
    page.wait_for_load_state("networkidle")
    page.screenshot(path=SHOTS / "wide-phone.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    context.close()
    assert watched.faults == []
