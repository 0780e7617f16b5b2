"""Training from a real topic: by command and by task, with its record in the database."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

from detection import model_store, training_queue, training_run
from detection.history import Interval, leave_out
from detection.models import ModelVersion, TrainingRun
from detection.registry import MODEL_DETECTORS
from detection.tasks import train_models
from detection.training_orders import params_of
from streams.connectors.synthetic import JsonEncoder, World, grid
from streams.models import Series, Stream
from streams.producer import TopicProducer
from tests.conftest import MakeTopic

MINUTE = 60_000_000
START = 1_704_067_200_000_000
SERIES = grid(("a", "b", "c"), ("cpu_usage", "temperature"))
Status = TrainingRun.Status


def fill(kafka: str, topic: str, steps: int = 600, first: int = 0) -> None:
    world = World(SERIES, interval_us=MINUTE, seed=3)
    columns = world.columns(START + first * MINUTE, START + (first + steps) * MINUTE)
    with TopicProducer({"bootstrap.servers": kafka}) as producer:
        producer.send_many(topic, JsonEncoder(world.lines).records(columns))


@pytest.fixture
def stream(topic: MakeTopic, kafka: str, db: None) -> Stream:
    """A stream whose topic holds 3,600 events; they give 2,700 rows."""
    name = topic(2)
    fill(kafka, name)
    return Stream.objects.create(name="raw", topic=name)


def run(command: str, *words: str) -> str:
    out = StringIO()
    call_command(command, *words, stdout=out)
    return out.getvalue()


def test_the_first_model_is_promoted_and_the_next_one_waits(stream: Stream) -> None:
    said = run("train", "--seed", "5")
    assert "isolation_forest v1 of raw (every metric)" in said
    assert "champion: running consumers" in said
    assert "2,700 of 3,600 events, 6 series" in said
    assert "900 warming up, 0 in confirmed anomalies, 0 by sampling" in said
    again = run("train", "--seed", "6")
    assert "candidate: `manage.py promote" in again
    first, second = ModelVersion.objects.order_by("version")
    assert (first.state, second.state) == ("champion", "candidate")
    assert second.parent_id == first.pk
    assert first.run is not None
    assert (first.run.status, first.run.rows) == (Status.DONE, 2_700)


def test_equal_history_and_seed_give_equal_bytes_whenever(stream: Stream) -> None:
    run("train", "--seed", "5")
    run("train", "--seed", "5")
    one, other = ModelVersion.objects.order_by("version")
    assert one.manifest == other.manifest
    assert one.sha256 == other.sha256
    assert bytes(one.artefact) == bytes(other.artefact)


def test_the_manifest_leads_back_to_the_events(stream: Stream) -> None:
    run("train", "--metric", "cpu_usage")
    manifest = ModelVersion.objects.get().manifest
    assert manifest["topic"] == stream.topic
    assert manifest["metric"] == "cpu_usage"
    assert sum(end - start for start, end in manifest["offsets"].values()) == 3_600
    assert (manifest["events"], manifest["rows_used"], manifest["series"]) == (1_800, 1_350, 3)
    assert manifest["first_event"].startswith("2024-01-01T02:")
    assert manifest["params"] == {"contamination": 0.01, "max_samples": 256, "n_estimators": 100}


def test_promote_and_roll_back(stream: Stream) -> None:
    run("train")
    said = run("train", "--seed", "1", "--promote")
    first, second = ModelVersion.objects.order_by("version")
    assert "the gate does not let it pass. It has scored 0 of 24 hours" in said
    assert (first.state, second.state) == ("champion", "candidate")
    run("promote", str(second.pk), "--anyway", "--reason", "I looked at it")
    assert "in place of v2" in run("promote", str(first.pk))
    assert "is the champion already" in run("promote", str(first.pk))
    lines = run("models").splitlines()
    assert lines[0].split()[:3] == ["id", "model", "stream"]
    assert [line.split()[5] for line in lines[1:]] == ["retired", "champion"]
    with pytest.raises(CommandError, match="no model with the id 999999"):
        run("promote", "999999")


def test_retraining_takes_the_settings_of_the_newest_version(stream: Stream) -> None:
    with pytest.raises(CommandError, match="no such model to train again"):
        run("train", "--retrain")
    run("train", "--metric", "cpu_usage", "--seed", "7", "--min-rows", "900")
    with pytest.raises(CommandError, match="no such model"):
        run("train", "--retrain", "--metric", "temperature")
    said = run("train", "--retrain", "--min-rows", "900")
    assert "isolation_forest v2 of raw (cpu_usage)" in said
    first, second = ModelVersion.objects.order_by("version")
    assert first.sha256 == second.sha256
    assert second.manifest["seed"] == 7
    # A champion that can't be loaded any more is replaced at once: that is the way out.
    ModelVersion.objects.filter(pk=first.pk).update(artefact=bytes(first.artefact)[:-1] + b"?")
    assert "champion: running consumers" in run("train", "--retrain", "--min-rows", "900")
    states = ModelVersion.objects.order_by("version").values_list("state", flat=True)
    assert list(states) == ["retired", "candidate", "champion"]


def test_too_little_history_says_how_much_is_missing(stream: Stream) -> None:
    with pytest.raises(CommandError, match=r"1,300 more rows are needed.*2,700 of 4,000"):
        run("train", "--min-rows", "4000")
    record = TrainingRun.objects.get()
    assert (record.status, record.rows) == (Status.SKIPPED, 2_700)
    assert "1,300 more rows" in record.reason
    assert not ModelVersion.objects.exists()
    with pytest.raises(CommandError, match="has no events"):
        run("train", "--metric", "unknown")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--stream", "none"), "no such stream. There are: raw"),
        (("--metric", "nope"), "no such metric. There are: cpu_usage"),
        (("--since", "2"), "is no duration"),
        (("--algorithm", "magic"), "invalid choice.*isolation_forest"),
        (("--features", "magic"), "invalid choice.*all.*forecast"),
        (("--seed", "-1"), "expected one argument|is no seed"),
        (("--seed", "x"), "'x' is no seed: a whole number from 0"),
        (("--retrain", "--stream", "none"), "no such stream. There are: raw"),
        (("--promote", "--no-promote"), "not allowed with"),
    ],
)
def test_mistakes_are_told_to_people(stream: Stream, words: tuple[str, ...], says: str) -> None:
    Series.objects.create(stream=stream, source="a", metric="cpu_usage")
    with pytest.raises(CommandError, match=says):
        run("train", *words)


def test_a_set_of_features_is_kept_when_the_model_is_trained_again(stream: Stream) -> None:
    said = run("train", "--features", "novelty")
    assert "features novelty" in said
    run("train", "--retrain")
    first, again = ModelVersion.objects.order_by("version")
    assert first.manifest["feature_names"] == ["novelty", "pair", "block"]
    assert again.sha256 == first.sha256


def test_without_streams_it_says_where_they_come_from(db: None) -> None:
    with pytest.raises(CommandError, match="runconsumer"):
        run("train")
    assert "no models yet" in run("models")


def test_a_broker_that_is_gone_fails_the_run_and_says_so(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.connectors.topic.TIMEOUT_S", 0.3)
    with training_queue.lease():
        outcome = training_run.run(
            training_run.Order(stream), {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
        )
    assert outcome.run.status == Status.FAILED
    assert "no Kafka broker answers" in outcome.run.reason


def test_what_is_confirmed_is_left_out(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detection.history._providers", [])
    leave_out(lambda name: [Interval("a", "cpu_usage", START, START + 199 * MINUTE)])
    assert "200 in confirmed anomalies" in run("train")


@pytest.fixture
def busy(django_db_blocker: Any) -> Iterator[None]:
    """Another process' lease: an advisory lock belongs to its connection."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [training_queue.LEASE])
            held.set()
            done.wait(30)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    yield
    done.set()
    thread.join(10)


def test_two_never_train_at_once(stream: Stream, busy: None) -> None:
    with pytest.raises(CommandError, match="another training is running"):
        run("train")
    assert train_models() == ["another training is running; wait for it to end"]
    assert not TrainingRun.objects.exists()


def test_a_run_whose_worker_died_is_marked_failed_at_the_next_start(stream: Stream) -> None:
    dead = TrainingRun.objects.create(stream=stream, algorithm="isolation_forest")
    train_models()
    dead.refresh_from_db()
    assert dead.status == Status.FAILED
    assert "the worker ended" in dead.reason
    assert dead.finished_at is not None


def test_the_task_trains_what_is_due_and_nothing_else(stream: Stream, kafka: str) -> None:
    assert all(" of raw (every metric): " in line for line in trained("v1", "champion, 2,700 rows"))
    assert train_models() == []
    ModelVersion.objects.update(created_at=dt.datetime.now(dt.UTC) - dt.timedelta(hours=25))
    trained("v2", "candidate")
    fill(kafka, stream.topic, steps=1_800, first=600)
    trained("v3", "candidate")  # history has grown fourfold: still the gate decides
    assert train_models() == []
    trained("v4", "candidate", force=True, seed=4)
    live = ModelVersion.objects.filter(state="champion")
    assert set(live.values_list("version", flat=True)) == {1}


def test_after_a_rollback_to_none_no_model_comes_back_by_itself(stream: Stream, kafka: str) -> None:
    trained("v1", "champion")
    for algorithm in enabled():
        model_store.roll_back(stream, "", algorithm)
    assert train_models() == []
    fill(kafka, stream.topic, steps=1_800, first=600)
    trained("v2", "candidate")
    assert train_models() == []
    assert not ModelVersion.objects.filter(state="champion").exists()


def test_the_task_that_never_promotes_trains_once_and_knows_no_other_word(stream: Stream) -> None:
    trained("v1", "candidate", promote="never")
    assert train_models(promote="never") == []
    odd, *said = train_models(promote="always")
    assert odd.startswith("promote is 'always': first or never")
    assert all(" v2 of " in line and ": champion" in line for line in said)


def test_the_task_waits_for_history_without_a_row_at_every_look(
    topic: MakeTopic, kafka: str, db: None
) -> None:
    stream = Stream.objects.create(name="raw", topic=topic(1))
    assert train_models() == []
    fill(kafka, stream.topic, steps=200)
    said = train_models()
    assert len(said) == len(enabled())
    assert all("700 more rows are needed" in line for line in said)
    assert train_models() == []
    fill(kafka, stream.topic, steps=400, first=200)
    trained("v1", "champion")
    assert TrainingRun.objects.count() == 2 * len(enabled())


@pytest.mark.parametrize("algorithm", sorted(MODEL_DETECTORS))
def test_a_stored_model_can_be_loaded_for_scoring(stream: Stream, algorithm: str) -> None:
    run("train", "--algorithm", algorithm)
    row = model_store.champion(stream, "", algorithm)
    assert row is not None
    _, detector = model_store.load(row.pk)
    assert detector.name == algorithm
    assert row.manifest["params"] == params_of(settings.VIGIL, algorithm)


def enabled() -> list[str]:
    """The algorithms that the configuration trains by itself."""
    names = settings.VIGIL.anomaly_detection.detectors.enabled
    return sorted(name for name in names if name in MODEL_DETECTORS)


def trained(version: str, state: str, **given: Any) -> list[str]:
    """What the task says of a model for each algorithm."""
    said = train_models(**given)
    assert [line.split()[0] for line in said] == enabled()
    assert all(f" {version} of " in line and f": {state}" in line for line in said), said
    return said
