"""The gate and the watch on real parts: a topic's own history, a consumer, a stream's real alarms.

A version trained from the topic challenges and passes; a worse one stays with the reason written.
One that alarms out of proportion within its first hour is rolled back by itself.
"""

from __future__ import annotations

import uuid
from html import unescape
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from django.test import Client, override_settings

from anomalies.models import Anomaly
from detection import model_store, promotion
from detection.features import FEATURE_NAMES
from detection.gate_faults import FAULTS
from detection.models import Evaluation, ModelVersion, ShadowHour, VersionLog
from detection.tasks import judge_challengers, train_models, watch_champions
from detection.training import train
from streams.connectors.synthetic import JsonEncoder, World, grid
from streams.models import Stream
from streams.producer import TopicProducer
from tests import builders
from tests.conftest import MakeTopic
from tests.integration.harness import Consumer, await_until, stored_events

pytestmark = pytest.mark.django_db(transaction=True)
MINUTE = 60_000_000
START = 1_704_067_200_000_000
SERIES = grid(("a", "b", "c"), ("cpu_usage", "temperature"))
FOREST = "isolation_forest"


class Feed:
    """Minutes of six series, one stretch after the other."""

    def __init__(
        self, kafka: str, topic: str, *, faults_a_day: float = 0.2, minute: int = 0
    ) -> None:
        self._kafka, self._topic, self._minute = kafka, topic, minute
        self._world = World(SERIES, interval_us=MINUTE, seed=3, faults_per_series_day=faults_a_day)

    def send(self, minutes: int) -> None:
        """Until all of them are stored."""
        start, self._minute = self._minute, self._minute + minutes
        columns = self._world.columns(START + start * MINUTE, START + self._minute * MINUTE)
        with TopicProducer({"bootstrap.servers": self._kafka}) as producer:
            producer.send_many(self._topic, JsonEncoder(self._world.lines).records(columns))
        await_until(lambda: stored_events(self._topic) == 6 * self._minute, 180)


def by_itself() -> Any:
    detection = settings.VIGIL.anomaly_detection
    registry = detection.registry.model_copy(update={"auto_promote": True})
    changed = detection.model_copy(update={"registry": registry})
    return override_settings(VIGIL=settings.VIGIL.model_copy(update={"anomaly_detection": changed}))


def forest(stream: Stream, scale: float) -> ModelVersion:
    """A forest that finds everything over ``scale`` odd."""
    rows = np.random.default_rng(1).normal(size=(3_000, len(FEATURE_NAMES))) * scale
    trained = train(FOREST, rows, seed=1, params={"n_estimators": 20})
    return model_store.save(trained, stream=stream, algorithm=FOREST)


def counts(stream: Stream, model: ModelVersion) -> None:
    """Wait until every partition's newest entry of the log names the model."""
    newest = VersionLog.objects.filter(incarnation__stream=stream).order_by(
        "partition", "-from_offset"
    )

    def named() -> bool:
        entries = newest.distinct("partition").select_related("scoring_version")
        said = [entry.scoring_version.payload for entry in entries]
        return all(
            model.pk in [m["id"] for m in (*one["models"], *one.get("challengers", ()))]
            for one in said
        )

    await_until(named)


def page(client: Client, model: ModelVersion) -> str:
    """As it reads: apostrophes are escaped in its source."""
    return unescape(client.get(f"/models/{model.pk}/").content.decode())


@pytest.mark.slow
def test_the_gate_and_the_watch_decide_by_what_really_came(topic: MakeTopic, kafka: str) -> None:
    name, place = f"t-{uuid.uuid4().hex[:10]}", topic(2)
    consumer = Consumer(
        name, place, name,
        VIGIL_ANOMALY_DETECTION__MAX_ONSETS_PER_DAY="0",
        VIGIL_ANOMALY_DETECTION__WEIGHTS='{"isolation_forest": 3.0}',
    )  # fmt: skip
    feed = Feed(kafka, place)
    feed.send(2_500)
    stream = Stream.objects.get(name=name)
    web = Client()
    web.force_login(builders.user())

    # The first one has nothing to be held against; the next one challenges and waits.
    train_models(stream=name, algorithm=FOREST)
    train_models(stream=name, algorithm=FOREST, force=True)
    first, second = ModelVersion.objects.filter(stream=stream).order_by("version")
    assert (first.state, second.state) == ("champion", "candidate")
    with by_itself():
        (said,) = judge_challengers()
        assert "has scored 0 of 24 hours" in said
        second.refresh_from_db()
        assert second.state == "challenger"
        assert "0 of 24 hours" in page(web, second)
        counts(stream, second)
        feed.send(2_000)
        scored = ShadowHour.objects.filter(challenger=second)
        assert sum(scored.values_list("events", flat=True)) > 10_000
        (said,) = judge_challengers()
    assert said.endswith("passed the gate and is champion")
    measured = Evaluation.objects.get(model=second, kind="gate injected").metrics
    print({side: measured[side] for side in ("champion", "challenger")}, measured["series"])
    # faults were put only into what came after the training
    assert measured["series"] == measured["held_out"] == 6
    assert measured["challenger"]["faults"] > 0.9 * FAULTS
    assert "passed the gate" in page(web, second)

    # A worse one stays, with the reason on its page; nobody was told of what it alone flagged.
    worse = forest(stream, 0.05)  # to which all of it is odd: one long alarm
    model_store.challenge(worse.pk)
    counts(stream, worse)
    feed.send(2_000)
    with by_itself():
        (said,) = judge_challengers()
    print(said)
    worse.refresh_from_db()
    assert worse.state == "challenger"
    assert "stays challenger: It finds" in said
    assert "injected faults, the champion" in said
    shown = page(web, worse)
    assert [reason for reason in worse.gate["reasons"] if reason not in shown] == []
    with pytest.raises(promotion.GateFailed):
        promotion.promote(worse.pk, actor="olga")
    assert (
        Anomaly.objects.filter(stream=stream, models_used__isolation_forest__version=3).count() == 0
    )
    consumer.stop()


@pytest.mark.slow
def test_a_new_champion_that_alarms_too_often_leaves_and_its_page_says_why(
    topic: MakeTopic, kafka: str
) -> None:
    name, place = f"t-{uuid.uuid4().hex[:10]}", topic(2)
    consumer = Consumer(name, place, name, VIGIL_ANOMALY_DETECTION__MAX_ONSETS_PER_DAY="0")
    calm = Feed(kafka, place, faults_a_day=0.0)
    calm.send(300)
    stream = Stream.objects.get(name=name)
    first, second = forest(stream, 3.0), forest(stream, 2.0)
    for model in (first, second):
        promotion.promote(model.pk, actor="olga", reason="we shall see", anyway=True)
    counts(stream, second)
    assert watch_champions() == []

    stormy = Feed(kafka, place, faults_a_day=40.0, minute=300)
    stormy.send(3_000)
    told = Anomaly.objects.filter(stream=stream, models_used__isolation_forest__version=2)
    print(f"{told.count()} of {Anomaly.objects.filter(stream=stream).count()} anomalies")
    (said,) = watch_champions()
    assert f"{told.count()} alerts in the first" in said
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, second.state) == ("champion", "retired")
    web = Client()
    web.force_login(builders.user())
    assert f"rolled back by itself: {told.count()} alerts in the first" in page(web, first)
    counts(stream, first)  # and the consumer scores with it again
    assert watch_champions() == []
    consumer.stop()
