"""A model of wide events from its first training to its rollback, on a real topic and consumer."""

from __future__ import annotations

import json
import uuid
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from django.test import override_settings

from anomalies.models import Anomaly
from detection import drift, gate, gate_faults, model_store, succession
from detection.drift import DriftSettings
from detection.models import Evaluation, ModelVersion, ShadowHour, TrainingRun, VersionLog
from detection.registry import MODEL_DETECTORS
from detection.tasks import schemas_of, train_models
from detection.wide_injection import KINDS
from streams.models import PartitionOffset, Stream
from streams.vectors import label_of
from tests.conftest import MakeTopic
from tests.integration.harness import Consumer, Message, await_until, produce

PARTITIONS = 2
SOURCES = 4
NAMES = ("amps", "flow", "heat", "load", "rpm", "volt")
LABEL = label_of(NAMES)
STEP_S = 9
FOREST = "isolation_forest"

pytestmark = pytest.mark.django_db(transaction=True)


def plants(
    start: int, end: int, fault: tuple[int, int] = (0, 0), shift: float = 0
) -> list[Message]:
    """Steps start … end − 1 of four plants, six values that go together; flow leaves in a fault."""
    mix = np.random.default_rng(4).normal(0, 1, (3, len(NAMES)))
    out = []
    for step in range(start, end):
        rng = np.random.default_rng(step)
        for source in range(SOURCES):
            hidden = np.sin(step / np.array([11.0, 23.0, 57.0]) + source)
            x = hidden @ mix + rng.normal(0, 0.2, len(NAMES)) + 20 * source
            if fault[0] <= step < fault[1]:
                x[1] += 25
            x[4] += shift
            body = {
                "source": f"plant-{source}",
                "values": dict(zip(NAMES, x.tolist(), strict=True)),
                "timestamp": 1_704_067_200 + step * STEP_S,
            }
            out.append((source % PARTITIONS, json.dumps(body).encode()))
    return out


def taken(topic: str) -> int:
    """Messages whose effects are committed."""
    rows = PartitionOffset.objects.filter(incarnation__stream__topic=topic)
    return sum(rows.values_list("next_offset", flat=True))


def rules(**registry: Any) -> Any:
    """The settings with another section `registry`."""
    detection = settings.VIGIL.anomaly_detection
    section = detection.registry.model_copy(update=registry)
    changed = detection.model_copy(update={"registry": section})
    return override_settings(VIGIL=settings.VIGIL.model_copy(update={"anomaly_detection": changed}))


def live(stream: Stream) -> set[tuple[str, str]]:
    """(metric, sha256) of every champion and challenger that counts for events to come."""
    newest = (
        VersionLog.objects.filter(incarnation__stream=stream)
        .order_by("partition", "-from_offset")
        .distinct("partition")
        .select_related("scoring_version")
    )
    every = [
        frozenset(
            (role, ModelVersion.objects.get(pk=m["id"]).sha256)
            for role in ("models", "challengers")
            for m in entry.scoring_version.payload.get(role, ())
        )
        for entry in newest
    ]
    return set(every[0]) if every and len(set(every)) == 1 else set()


@pytest.mark.slow
def test_from_the_first_training_to_the_rollback(topic: MakeTopic, kafka: str) -> None:
    place, name = topic(PARTITIONS), f"t-{uuid.uuid4().hex[:10]}"
    client = {"bootstrap.servers": kafka, "log_level": 2}
    produce(kafka, place, plants(0, 2_400))
    consumer = Consumer(name, place, name, "--from", "earliest")
    await_until(lambda: taken(place) == 2_400 * SOURCES, 120)
    stream = Stream.objects.get(name=name)

    # By itself: the schema has history enough, so it gets a champion of each algorithm in use.
    await_until(lambda: schemas_of(stream) == [LABEL])
    train_models(stream=name)
    wanted = [n for n in settings.VIGIL.anomaly_detection.detectors.enabled if n in MODEL_DETECTORS]
    assert sorted(m.algorithm for m in model_store.champions(stream) if m.metric == LABEL) == wanted
    first = model_store.champion(stream, LABEL, FOREST)
    assert first is not None
    assert first.manifest["feature_names"] == list(NAMES)
    assert first.manifest["rows_given"] == (2_400 - 400) * SOURCES
    await_until(lambda: ("models", first.sha256) in live(stream))

    # It votes on what comes.
    produce(kafka, place, plants(2_400, 2_800, fault=(2_600, 2_640)))
    await_until(lambda: taken(place) == 2_800 * SOURCES)
    found = Anomaly.objects.filter(stream=stream, metric=LABEL)
    late = [a for a in found if FOREST in a.detectors]
    assert {a.source for a in late} == {f"plant-{s}" for s in range(SOURCES)}
    assert all(a.models_used[FOREST]["sha256"] == first.sha256 for a in late)

    # The next one challenges, is watched beside the champion, and tested on faults in vectors.
    train_models(stream=name, metric=LABEL, algorithm=FOREST, seed=7, force=True)
    second = ModelVersion.objects.get(stream=stream, metric=LABEL, algorithm=FOREST, version=2)
    assert second.state == "candidate"
    assert second.run is not None
    assert second.run.trigger == TrainingRun.Trigger.SCHEDULE
    assert second.pk in [m.pk for m in succession.challenge_newest()]
    await_until(lambda: ("challengers", second.sha256) in live(stream))
    produce(kafka, place, plants(2_800, 5_200))
    await_until(lambda: taken(place) == 5_200 * SOURCES)
    beside = ShadowHour.objects.filter(challenger=second)
    assert sum(beside.values_list("events", flat=True)) == 2_400 * SOURCES
    with rules(shadow_hours=4, shadow_events=5_000, auto_promote=True):
        assert gate.long_enough(second)
        said = [line for line in succession.judge_all(client) if LABEL in line]
    measured = Evaluation.objects.get(model=second, kind=gate_faults.KIND_INJECTED)
    assert measured.settings["kinds"] == list(KINDS)
    figures = measured.metrics
    assert (figures["series"], figures["held_out"]) == (SOURCES, SOURCES)
    assert figures["champion"]["faults"] == figures["challenger"]["faults"] >= 4 * SOURCES
    assert figures["champion"]["recall"] > 0.5
    assert said == [f"{model_store.describe(second)} passed the gate and is champion"]
    await_until(lambda: ("models", second.sha256) in live(stream))

    # What it sees now is compared with what it was trained on, value by value.
    few = DriftSettings(hours=2, min_events=100)
    produce(kafka, place, plants(5_200, 5_700))
    await_until(lambda: taken(place) == 5_700 * SOURCES)
    report = next(r for r in drift.measure(stream, few) if r.model == second)
    assert report.metric == LABEL
    assert set(report.psi) == {"score", *(f"value:{n}" for n in NAMES)}
    before = report.psi["value:rpm"]
    produce(kafka, place, plants(5_700, 6_700, shift=1.5))
    await_until(lambda: taken(place) == 6_700 * SOURCES)
    report = next(r for r in drift.measure(stream, few) if r.model == second)
    assert report.psi["value:rpm"] > max(0.25, 2 * before)
    assert drift.worst_of(report) == "value:rpm"

    # And back, live as well.
    model_store.roll_back(stream, LABEL, FOREST, reason="no better")
    again = model_store.champion(stream, LABEL, FOREST)
    assert again is not None
    assert again.pk == first.pk
    await_until(lambda: ("models", first.sha256) in live(stream))
    consumer.stop()
