"""System tells what runs, with which settings and no secrets; the stages name what is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pydantic import SecretStr
from pytest_django import Settings

from alerts.models import Lease, Rule, Silence
from config.schema import Stream as StreamConfig
from config.schema import VigilConfig
from config.system import servers
from config.system.effective import effective, without_password
from config.system.stages import check_all, missing
from config.system.world import Check
from detection.models import ScoringVersion, VersionLog
from streams.broker import looker
from streams.heartbeat import STARTING, Heartbeat
from streams.models import (
    ConsumerStatus,
    DeadLetter,
    PartitionOffset,
    PipelineStat,
    Process,
    Series,
    Stream,
    TopicIncarnation,
)
from streams.producer import TopicProducer
from streams.version import VERSION
from tests import builders
from tests.alerts import scene
from tests.conftest import MakeTopic

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh() -> None:
    looker.forget()
    servers.forget()


def signed_in(**more: Any) -> Client:
    client = Client()
    client.force_login(builders.user(f"u{Process.objects.count()}-{len(more)}", **more))
    return client


# ---- System -------------------------------------------------------------------------------------
def test_everybody_sees_what_runs_and_operators_see_where(settings: Settings) -> None:
    builders.world()
    now = timezone.now()
    Process.objects.create(
        kind="worker", host="box-7", pid=4711, version=VERSION, started_at=now, beat_at=now,
        doing="runs train_models",
    )  # fmt: skip
    page = signed_in().get("/system/").content.decode()
    assert "runs train_models" in page
    assert "Apply retention" in page
    assert "box-7" not in page
    assert "kafka.bootstrap_servers" not in page
    page = signed_in(is_staff=True).get("/system/").content.decode()
    assert "box-7 · 4711" in page
    assert "kafka.bootstrap_servers" in page


def test_no_page_shows_a_secret(settings: Settings) -> None:
    config: VigilConfig = settings.VIGIL
    hidden = SecretStr("hunter2-secret")
    settings.VIGIL = config.model_copy(update={
        "kafka": config.kafka.model_copy(update={"sasl_password": hidden}),
        "api": config.api.model_copy(update={"token": hidden}),
        "redis": config.redis.model_copy(
            update={"url": SecretStr("redis://:hunter2-secret@127.0.0.1:1/0")}
        ),
    })  # fmt: skip
    client = signed_in(is_staff=True, is_superuser=True)
    for path in ("/system/", "/system/diagnostics/", "/system/why-no-anomalies/"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert b"hunter2" not in answer.content, path


def test_diagnostics_are_for_operators() -> None:
    assert signed_in().get("/system/diagnostics/").status_code == 403
    text = signed_in(is_staff=True).get("/system/diagnostics/").content.decode()
    assert f"Vigil {VERSION}" in text
    assert "PostgreSQL" in text


def test_a_setting_says_where_it_came_from_and_whether_it_is_the_usual() -> None:
    config = VigilConfig(
        kafka=VigilConfig().kafka.model_copy(update={"batch_size": 7}),
        streams=(StreamConfig(name="pay", topic="payments"),),
    )
    found = dict(effective(config, {("kafka", "batch_size"): "environment variable X"}))
    kafka = {one.key: one for one in found["kafka"]}
    size = kafka["kafka.batch_size"]
    assert (size.value, size.origin, size.changed) == ("7", "environment variable X", True)
    assert not kafka["kafka.group_id"].changed
    assert kafka["kafka.group_id"].origin == "default"
    assert {one.key for one in found["streams"]} >= {"streams.0.name", "streams.0.mapping.value"}


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://:pw@cache:6379/0", "redis://:•••@cache:6379/0"),
        ("postgresql:///vigil?host=/run&password=pw", "postgresql:///vigil"),
        ("postgresql://u@h:x/db", "•••"),
    ],
)
def test_addresses_lose_their_passwords(address: str, shown: str) -> None:
    assert without_password(address) == shown
    assert "pw" not in without_password(address)


def test_the_version_is_the_projects() -> None:
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION


@pytest.mark.django_db(transaction=True)
def test_a_process_gives_signs_and_takes_its_row_along() -> None:
    # Of this process: a web server that other tests share gives signs as well.
    mine = Process.objects.filter(pid=os.getpid(), kind=Process.Kind.WORKER)
    said = ["waits"]
    beat = Heartbeat(Process.Kind.WORKER, lambda: said[0], every_s=0.05).start()
    _until(lambda: mine.filter(doing="waits", version=VERSION).exists())
    said[0] = "runs x"
    _until(lambda: mine.filter(doing="runs x", cpu_share__gte=0).exists())
    beat.stop()
    assert not mine.exists()


def _until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---- Why are there no anomalies? ----------------------------------------------------------------
class Way:
    """A whole way that works, on the real broker, for a test to break one stage of it."""

    def __init__(self, settings: Settings, topic: str, kafka: str) -> None:
        self.settings, self.topic, self.now = settings, topic, timezone.now()
        given = (StreamConfig(name="way", topic=topic),)
        settings.VIGIL = settings.VIGIL.model_copy(update={"streams": given})
        with TopicProducer({"bootstrap.servers": kafka}) as producer:
            for _ in range(10):
                producer.send(topic, b"{}", b"k")
        self.stream = Stream.objects.create(name="way", topic=topic)
        self.life = TopicIncarnation.objects.create(stream=self.stream, topic_id="id-way")
        PartitionOffset.objects.create(
            incarnation=self.life, partition=0, next_offset=10, watermark=self.now
        )
        ConsumerStatus.objects.create(
            instance="c-1", started_at=self.now, beat_at=self.now,
            partitions=[{"topic": topic, "partition": 0, "next_offset": 10, "end_offset": 10}],
        )  # fmt: skip
        PipelineStat.objects.create(instance="c-1", minute=builders.minute(self.now), events=1_000)
        self.series = builders.series(stream=self.stream)
        payload = {
            "detectors": {"online": {"enabled": True}}, "weights": {"online": 1.0}, "models": [],
            "policies": [{"name": "default", "threshold": 0.8}],
        }  # fmt: skip
        version = ScoringVersion.objects.create(
            stream=self.stream, sha256="0" * 64, payload=payload
        )
        self.log = VersionLog.objects.create(
            incarnation=self.life, partition=0, from_offset=0, scoring_version=version
        )
        scene.rule()
        Lease.objects.create(name="evaluator", owner="e-1", until=self.now + timedelta(minutes=1))

    def config(self, section: str, **more: Any) -> None:
        config = self.settings.VIGIL
        changed = getattr(config, section).model_copy(update=more)
        self.settings.VIGIL = config.model_copy(update={section: changed})

    def payload(self, **more: Any) -> None:
        row = self.log.scoring_version
        ScoringVersion.objects.filter(pk=row.pk).update(payload=row.payload | more)

    def letters(self, n: int, reason: str) -> None:
        for offset in range(n):
            DeadLetter.objects.create(
                incarnation=self.life, partition=0, offset=offset, reason=reason, detail=""
            )

    def first(self) -> Check | None:
        looker.forget()
        return missing(check_all(self.settings.VIGIL, timezone.now()))


@pytest.fixture
def way(settings: Settings, topic: MakeTopic, kafka: str) -> Way:
    return Way(settings, topic(1), kafka)


def test_a_way_that_works_is_green(way: Way) -> None:
    parts = check_all(way.settings.VIGIL, timezone.now())
    assert [(c.name, c.said) for _, checks in parts for c in checks if c.state in ("bad", "warn")] \
        == []  # fmt: skip


def _gone(way: Way) -> None:
    way.config("kafka", bootstrap_servers="127.0.0.1:1")


def _no_topic(way: Way) -> None:
    given = (StreamConfig(name="way", topic="nobody-made-it"),)
    way.settings.VIGIL = way.settings.VIGIL.model_copy(update={"streams": given})


def _stopped(way: Way) -> None:
    ConsumerStatus.objects.update(beat_at=way.now - timedelta(minutes=2))


def _starting(way: Way) -> None:
    _stopped(way)
    Process.objects.create(kind="consumer", host="h", pid=1, version=VERSION, doing=STARTING,
                           started_at=way.now, beat_at=way.now)  # fmt: skip


def _not_json(way: Way) -> None:
    PipelineStat.objects.update(events=2)
    way.letters(8, "json")


def _mapped_wrong(way: Way) -> None:
    way.letters(80, "schema")


def _behind(way: Way) -> None:
    PartitionOffset.objects.update(next_offset=2)
    ConsumerStatus.objects.update(
        partitions=[{"topic": way.topic, "partition": 0, "next_offset": 2, "end_offset": 10}]
    )
    minute = builders.minute(way.now)
    for i, at in enumerate((0, 1)):
        PipelineStat.objects.update_or_create(
            instance="c-1", minute=minute - timedelta(minutes=1 - i),
            defaults={"events": 500, "places": {f"{way.topic}/0": [at, 10]}},
        )  # fmt: skip


def _ahead(way: Way) -> None:
    PartitionOffset.objects.update(watermark=way.now + timedelta(hours=3))


def _recorded(way: Way) -> None:
    PartitionOffset.objects.update(watermark=way.now - timedelta(days=40))


def _cold(way: Way) -> None:
    Series.objects.update(events=19)


def _full(way: Way) -> None:
    way.letters(3, "limit")


def _unheard(way: Way) -> None:
    way.payload(weights={"online": 0.0})


def _too_high(way: Way) -> None:
    way.payload(policies=[{"name": "default", "threshold": 0.99}])


def _budgeted(way: Way) -> None:
    Series.objects.update(raised_threshold=0.99, held_back=500)


def _no_rule(way: Way) -> None:
    Rule.objects.update(enabled=False)


def _nobody_judges(way: Way) -> None:
    Lease.objects.update(until=way.now - timedelta(minutes=5))


def _silenced(way: Way) -> None:
    Silence.objects.create(
        name="deploy", starts_at=way.now - timedelta(hours=1), ends_at=way.now + timedelta(hours=1)
    )


def _not_live(way: Way) -> None:
    way.config("dashboard", real_time_updates=False)


@pytest.mark.parametrize(
    ("broken", "name", "says", "todo"),
    [
        (_gone, "Kafka answers", "127.0.0.1:1", "KAFKA_BOOTSTRAP_SERVERS"),
        (_no_topic, "The topics exist", "nobody-made-it", "manage.py topics"),
        (_stopped, "A consumer reads them", "No consumer", "runconsumer"),
        (_starting, "A consumer reads them", "is starting", "Wait"),
        (_not_json, "They can be decoded", "8 of 10", "bytes"),
        (_mapped_wrong, "The mapping fits", "80 of 1,080", "mapping"),
        (_behind, "It keeps up", "8 events wait", "another consumer"),
        (_ahead, "Their times are of now", "3 h in the future", "clock"),
        (_recorded, "Their times are of now", "40 d ago", "longer range"),
        (_cold, "Series are warmed up", "the furthest has 19", "Wait"),
        (_full, "Every series has room", "3 events", "max_series"),
        (_unheard, "Detectors are on", "No enabled detector", "weights"),
        (_too_high, "The threshold lets something through", "0.99", "Lower"),
        (_budgeted, "The budget holds little back", "500 onsets", "max_onsets_per_day"),
        (_no_rule, "A rule tells somebody", "No alert rule", "rule"),
        (_nobody_judges, "A rule tells somebody", "nobody judges", "runalerts"),
        (_silenced, "No silence holds it back", "deploy", "End it"),
        (_not_live, "Pages hear of it at once", "switched off", "dashboard."),
    ],
)
def test_the_first_broken_stage_is_named_with_what_to_do(
    way: Way, broken: Callable[[Way], None], name: str, says: str, todo: str
) -> None:
    broken(way)
    found = way.first()
    assert found is not None
    assert found.name == name
    assert says in found.said
    assert todo in found.todo


def test_an_empty_topic_is_named(settings: Settings, topic: MakeTopic) -> None:
    given = (StreamConfig(name="empty", topic=topic(1)),)
    settings.VIGIL = settings.VIGIL.model_copy(update={"streams": given})
    page = signed_in().get("/system/why-no-anomalies/").content.decode()
    assert "Nobody has ever written to" in page
    assert "<code>manage.py produce synthetic</code>" in page
