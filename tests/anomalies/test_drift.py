"""Drift: equal distributions are steady, what moved is named, and too little says nothing."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest
from django.test import Client

from detection import bins, drift, drift_gauges, succession
from detection.drift import DriftSettings
from detection.features import FEATURE_NAMES
from detection.models import DriftReport, FeatureHour, ModelVersion
from detection.training import train
from streams.models import Stream
from streams.vectors import label_of

HOUR = dt.datetime(2024, 1, 2, 3, tzinfo=dt.UTC)
SETTINGS = DriftSettings(hours=3, min_events=200)


def rows(n: int, seed: int, **shift: float) -> Any:
    """Rows like those that healthy series give, some columns moved by so much."""
    rng = np.random.default_rng(seed)
    made = rng.standard_t(5, (n, len(FEATURE_NAMES)))
    made[:, 1:4] *= 0.2
    made[:, 5:9] = np.abs(made[:, 5:9]) * 0.2
    for name, by in shift.items():
        made[:, FEATURE_NAMES.index(name)] += by
    return made


def counted(features: Any) -> Any:
    return bins.count(features, bins.edges_of(FEATURE_NAMES))[0]


def test_equal_distributions_are_steady_and_shifted_ones_are_not() -> None:
    trained = counted(rows(20_000, 1))
    for name, row, again in zip(FEATURE_NAMES, trained, counted(rows(1_500, 2)), strict=True):
        assert 0 <= drift.psi(row, again) < 0.1, name
        assert drift.ks(row, again) < 0.06
        assert drift.psi(row, row) == drift.ks(row, row) == 0
    moved = counted(rows(1_500, 3, residual=1.0, gap=0.01))
    assert drift.psi(trained[0], moved[0]) > 0.25
    assert drift.ks(trained[0], moved[0]) > 0.25
    assert drift.psi(trained[9], moved[9]) < 0.1


def test_both_distances_are_those_of_the_books() -> None:
    expected, actual = np.array([50, 50]), np.array([90, 10])
    shares = (90.5 / 101, 10.5 / 101)
    by_hand = sum((a - 0.5) * np.log(a / 0.5) for a in shares)
    assert drift.psi(expected, actual) == pytest.approx(by_hand)
    assert drift.ks(expected, actual) == pytest.approx(0.4)


def model(stream: Stream, metric: str = "", **more: Any) -> ModelVersion:
    """A champion trained on two metrics of different shape."""
    cpu, mem = rows(4_000, 5), rows(4_000, 6, level=0.5)
    features = np.concatenate([cpu, mem])
    names = np.repeat(np.array([0, 1], dtype=np.int32), 4_000)
    trained = train(
        "isolation_forest", features, seed=1, params={"n_estimators": 10},
        provenance={"distributions": bins.distributions(features, names, ("cpu", "mem"))},
    )  # fmt: skip
    return ModelVersion.objects.create(
        stream=stream, metric=metric, algorithm="isolation_forest", version=1, state="champion",
        sha256=trained.sha256, artefact=trained.payload, manifest=trained.manifest, **more,
    )  # fmt: skip


def seen(
    stream: Stream, metric: str, features: Any, hours_ago: int = 0, partition: int = 0
) -> None:
    FeatureHour.objects.bulk_create(
        FeatureHour(stream=stream, metric=metric, hour=HOUR - dt.timedelta(hours=hours_ago),
                    partition=partition, feature=name, counts=row.tolist())
        for name, row in zip(FEATURE_NAMES, counted(features), strict=True)
    )  # fmt: skip


@pytest.mark.django_db
def test_a_report_for_each_metric_names_the_feature_that_moved() -> None:
    stream = Stream.objects.create(name="raw", topic="raw")
    champion = model(stream)
    score = FeatureHour(stream=stream, metric="cpu", hour=HOUR, feature=f"score:{champion.pk}")
    score.counts = champion.manifest["score_counts"]
    score.save()
    for partition in (0, 1):
        seen(stream, "cpu", rows(600, 7 + partition), partition=partition)
    seen(stream, "mem", rows(800, 9, level=0.5, spread=0.4), hours_ago=1)
    seen(stream, "mem", rows(800, 10, level=-0.5), hours_ago=3)  # too long ago
    seen(stream, "disk", rows(800, 11))  # never trained on: only in the sum
    drift.measure(stream, SETTINGS)
    found = {report.metric: report for report in drift.latest()}
    assert set(found) == {"", "cpu", "mem"}
    assert found["cpu"].events == 1_200
    assert found["cpu"].worst_psi < 0.1
    assert set(found["cpu"].psi) == set(FEATURE_NAMES)
    assert found[""].psi["score"] == found[""].ks["score"] == 0
    assert found["mem"].worst_feature == "spread"
    assert found["mem"].worst_psi > 0.25
    assert found["mem"].psi["level"] < 0.1
    assert found["mem"].from_hour == HOUR - dt.timedelta(hours=3)
    assert drift.state_of(found["mem"].worst_psi, SETTINGS) == "drifted"
    # asked again: the newest of each counts
    drift.measure(stream, SETTINGS)
    assert len(drift.latest()) == 3
    assert DriftReport.objects.count() == 6


@pytest.mark.django_db
def test_too_few_events_or_a_model_without_counts_say_nothing() -> None:
    stream = Stream.objects.create(name="raw", topic="raw")
    assert drift.measure(stream, SETTINGS) == []
    champion = model(stream, metric="cpu")
    seen(stream, "cpu", rows(150, 7))
    assert drift.measure(stream, SETTINGS) == []
    seen(stream, "cpu", rows(150, 8), partition=1)
    assert [report.metric for report in drift.measure(stream, SETTINGS)] == ["cpu"]
    ModelVersion.objects.filter(pk=champion.pk).update(manifest={"metrics": {}})
    assert drift.measure(stream, SETTINGS) == []


@pytest.mark.django_db
def test_old_counts_go_by_their_streams_newest_hour() -> None:
    stream = Stream.objects.create(name="raw", topic="raw")
    seen(stream, "cpu", rows(10, 1))
    seen(stream, "cpu", rows(10, 2), hours_ago=24 * 40)
    assert drift.prune(SETTINGS, dt.datetime.now(dt.UTC)) == len(FEATURE_NAMES)
    assert set(FeatureHour.objects.values_list("hour", flat=True)) == {HOUR}


@pytest.mark.django_db
def test_it_is_told_by_the_api_and_in_metrics(web: Client) -> None:
    stream = Stream.objects.create(name="raw", topic="raw")
    model(stream)
    seen(stream, "mem", rows(800, 9, level=0.5, spread=0.4))
    drift.measure(stream, SETTINGS)
    answer = web.get("/api/drift").json()
    assert [r["metric"] for r in answer["reports"]] == [None, "mem"]
    mem = answer["reports"][1]
    assert (mem["state"], mem["worst_feature"]) == ("drifted", "spread")
    assert mem["psi"]["spread"] == mem["worst_psi"] > 0.25
    drift_gauges.register()
    text = web.get("/metrics").content.decode()
    wanted = (
        'vigil_drift_psi{algorithm="isolation_forest",feature="spread",metric="mem",stream="raw"}'
    )
    line = next(line for line in text.splitlines() if line.startswith(wanted))
    assert float(line.rpartition(" ")[2]) == mem["worst_psi"]


@pytest.mark.django_db
def test_what_has_drifted_is_trained_anew_once_a_day() -> None:
    stream = Stream.objects.create(name="raw", topic="raw")
    champion = model(stream)
    seen(stream, "mem", rows(800, 9, level=0.5, spread=0.4))
    report = next(r for r in drift.measure(stream, SETTINGS) if r.metric == "mem")
    asked = succession.retrain(report)
    assert asked is not None
    assert (asked.trigger, asked.status, asked.algorithm) == ("drift", "queued", "isolation_forest")
    assert DriftReport.objects.get(pk=report.pk).retraining == asked
    assert succession.retrain(report) is None
    later = asked.started_at + dt.timedelta(days=2)
    ModelVersion.objects.create(stream=stream, algorithm=champion.algorithm, version=2, sha256="x",
                                artefact=b"", state="challenger")  # fmt: skip
    assert succession.retrain(report, later) is None
    ModelVersion.objects.filter(version=2).update(state="retired")
    assert succession.retrain(report, later) is not None


@pytest.mark.django_db
def test_values_of_wide_events_are_compared_each_by_its_name(web: Client) -> None:
    stream = Stream.objects.create(name="raw", topic="raw")
    names = ("level", "score", "x" * 80)  # a feature's name, the score's, one longer than a column
    label, keys = label_of(names), bins.value_keys(3)
    rng = np.random.default_rng(3)

    def counts(features: Any) -> Any:
        return bins.count(features, bins.edges_of(keys))[0]

    usual = rng.normal(size=(4_000, 3))
    made = train(
        "isolation_forest", usual, seed=1, params={"n_estimators": 10}, columns=names,
        space="vector",
        provenance={"distributions": bins.distributions(usual, np.zeros(4_000, dtype=np.int32),
                                                        (label,), keys)},
    )  # fmt: skip
    saved = ModelVersion.objects.create(
        stream=stream, metric=label, algorithm="isolation_forest", version=1, state="champion",
        sha256=made.sha256, artefact=made.payload, manifest=made.manifest,
    )  # fmt: skip
    of_all = model(stream)
    moved = rng.normal(size=(800, 3)) + np.array([0, 0, 2.0])
    scores = [(f"score:{saved.pk}", np.array(made.manifest["score_counts"]))]
    FeatureHour.objects.bulk_create(
        FeatureHour(stream=stream, metric=label, hour=HOUR, feature=key, counts=row.tolist())
        for key, row in [*zip(keys, counts(moved), strict=True), *scores]
    )
    seen(stream, "cpu", rows(600, 7))
    found = {r.metric: r for r in drift.measure(stream, SETTINGS)}
    assert found[""].model == of_all
    assert set(found[""].psi) == set(FEATURE_NAMES)
    wide = found[label]
    assert set(wide.psi) == {"score", "value:level", "value:score", f"value:{'x' * 80}"}
    assert wide.events == 800
    assert max(wide.psi["value:level"], wide.psi["value:score"], wide.psi["score"]) < 0.1
    (told,) = [r for r in web.get("/api/drift").json()["reports"] if r["metric"] == label]
    assert (told["state"], told["worst_feature"]) == ("drifted", f"value:{'x' * 80}")
    page = web.get(f"/models/{saved.pk}/drift/").content.decode()
    assert f">{'x' * 80}<" in page
    assert "value:" not in page
