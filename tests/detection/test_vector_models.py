"""Stored models of wide events: trained on the smoothed vector, scored beside the distance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from django.conf import settings
from numpy.typing import NDArray

from config.wiring import load_model, scoring_base
from detection.history import Interval, TrainingRows, feature_rows
from detection.registry import MODEL_DETECTORS
from detection.scoring import LoadedModel, ScoredBatch, ScoringEngine
from detection.training import restore, train
from detection.versions import compile_version
from streams.batch import EventBatch
from streams.series import SeriesIndex
from streams.vectors import label_of

START = 1_704_067_200_000_000
NAMES = ("amps", "flow", "heat", "rpm")
LABEL = label_of(NAMES)
STEPS = 2_400
FAULT = slice(2_000, 2_060)


def values(seed: int, fault: bool) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    swing = np.stack([np.sin(np.arange(STEPS) / p + seed) for p in (7, 19, 53)], axis=1)
    mix = np.random.default_rng(5).normal(0, 1, (3, 4))  # one kind of pump
    found = (swing @ mix + rng.normal(0, 0.2, (STEPS, 4))) * 10.0**seed + 100 * seed
    if fault:
        found[FAULT, 1] += 12 * 10.0**seed
    return found


def batches(index: SeriesIndex, size: int, fault: bool = False) -> list[EventBatch]:
    """Events of three pumps in turn, in units of their own."""
    every = np.stack([values(s, fault and s == 1) for s in range(3)], axis=1).reshape(-1, 4)
    codes = np.array([index.code(f"pump-{s}", LABEL) for s in range(3)], dtype=np.int32)
    at = np.arange(len(every), dtype=np.int64)
    whole = EventBatch(
        START + at // 3 * 1_000_000, codes[at % 3], every, np.zeros(len(at), dtype=np.int32), at,
        NAMES, {0: len(at)},
    )  # fmt: skip
    return [whole.take(at[start : start + size]) for start in range(0, len(at), size)]


def rows(size: int = 10_000, **more: object) -> TrainingRows:
    index = SeriesIndex()
    return feature_rows(batches(index, size), index, metric=LABEL, **more)


def test_rows_are_the_features_of_live_scoring_from_each_sources_training_on() -> None:
    found = rows()
    assert found.columns == NAMES
    assert found.space == "vector"
    assert len(found) == 3 * (STEPS - 400)
    assert (found.events, found.series, found.warming) == (3 * STEPS, 3, 1_200)
    assert np.abs(found.features.mean(axis=0)).max() < 0.5  # whatever the source's units
    engine = ScoringEngine(SeriesIndex())
    engine.attach(0)
    live = score(engine, ())
    assert live.detail.features.tobytes() == found.features.tobytes()
    for size in (1_000, 7_000):
        assert rows(size).features.tobytes() == found.features.tobytes()


def test_confirmed_anomalies_of_a_vector_are_left_out() -> None:
    gone = Interval("pump-1", LABEL, START + 500_000_000, START + 599_000_000)
    found = rows(exclude=[gone])
    assert found.excluded == 100
    assert len(found) == 3 * (STEPS - 400) - 100


def test_of_another_schema_there_are_no_rows() -> None:
    index = SeriesIndex()
    found = feature_rows(batches(index, 10_000), index, metric="vector: other + one")
    assert len(found) == found.events == 0


def score(engine: ScoringEngine, models: tuple[LoadedModel, ...], fault: bool = False,
          size: int = 10_000) -> ScoredBatch:  # fmt: skip
    payload = {
        **scoring_base(settings.VIGIL), "time_zone": "UTC", "policies": [], "models": [],
    }  # fmt: skip
    version = replace(compile_version(0, payload, load_model), vector_models=models)
    parts = [engine.process(b, version, {}) for b in batches(engine.index, size, fault)]
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        score=np.concatenate([p.score for p in parts]),
        votes=np.concatenate([p.votes for p in parts]),
    )


def model(name: str) -> LoadedModel:
    made = train(name, rows().features, seed=2, columns=NAMES, space="vector")
    detector, manifest = restore(made.payload, made.sha256)
    assert manifest["feature_names"] == list(NAMES)
    return LoadedModel(name, LABEL, 1, made.sha256, detector)


@pytest.mark.parametrize("name", sorted(MODEL_DETECTORS))
def test_a_model_of_the_schema_scores_its_vectors_in_any_batches(name: str) -> None:
    loaded, other = model(name), replace(model(name), metric="vector: other + one")
    engine = ScoringEngine(SeriesIndex())
    engine.attach(0)
    found = score(engine, (loaded, other), fault=True)
    assert found.version.names == ("vector", name)
    votes = found.votes[:, 1]
    assert np.isfinite(votes).all()
    pump = np.array([source == "pump-1" for source, _ in engine.index.names])[found.events.series]
    step = found.events.offset // 3
    odd = pump & (step >= FAULT.start + 5) & (step < FAULT.stop)
    calm = step < FAULT.start
    assert np.median(votes[odd]) > np.quantile(votes[calm], 0.9)
    for size in (97, 1_000):
        again = ScoringEngine(SeriesIndex())
        again.attach(0)
        cut = score(again, (loaded,), fault=True, size=size)
        assert cut.votes.tobytes() == found.votes.tobytes()
        assert cut.score.tobytes() == found.score.tobytes()


def test_models_of_series_and_of_vectors_keep_apart() -> None:
    payload = {**scoring_base(settings.VIGIL), "time_zone": "UTC", "policies": [],
               "models": [{"id": 1, "algorithm": "isolation_forest"},
                          {"id": 2, "algorithm": "isolation_forest"}]}  # fmt: skip
    one, other = replace(model("isolation_forest"), metric=""), model("isolation_forest")
    version = compile_version(0, payload, {1: one, 2: other}.__getitem__)
    assert version.models == (one,)
    assert version.vector_models == (other,)
    assert version.vector is not None
    assert version.for_vectors(version.vector).models == (other,)
