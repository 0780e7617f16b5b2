"""A run's life: whose turn it is, its end by wish, and what becomes of a dead worker's run."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from detection import training_queue, training_run
from detection.errors import TransitionRefused
from detection.models import ModelTransition, ModelVersion, TrainingRun
from detection.training_queue import DIED, bury_the_dead, cancel, lease, look_after, queue, work_off
from detection.training_run import Order, Progress, order_of, run
from streams.models import Stream
from tests import builders
from tests.conftest import MakeTopic
from tests.detection.test_train_command import fill
from tests.integration.harness import database_url

Status, Trigger = TrainingRun.Status, TrainingRun.Trigger
ROOT = Path(__file__).resolve().parents[2]
QUICK = {"n_estimators": 5}


def client(kafka: str) -> dict[str, Any]:
    return {"bootstrap.servers": kafka, "log_level": 0}


def running(stream: Stream | None = None, **more: Any) -> TrainingRun:
    return TrainingRun.objects.create(
        stream=stream or builders.stream(), algorithm="isolation_forest", status=Status.RUNNING,
        order=Order(stream or builders.stream(), seed=7, params=QUICK).as_json(), **more,
    )  # fmt: skip


# -- waiting ---------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_an_order_comes_back_from_its_row_whole() -> None:
    order = Order(
        builders.stream(), metric="cpu", since=dt.timedelta(days=2), promote="never", seed=5,
        params={"n_estimators": 9}, min_rows=50, max_rows=60, max_events=70, share=0.25,
    )  # fmt: skip
    record = queue(order, trigger=Trigger.BUTTON, at_once=False)
    record = TrainingRun.objects.get(pk=record.pk)
    assert record.status == Status.QUEUED
    assert order_of(record) == order


@pytest.mark.django_db
def test_asked_twice_while_it_waits_is_trained_once() -> None:
    anna = builders.user()
    order = Order(builders.stream())
    first = queue(order, trigger=Trigger.BUTTON, requested_by=anna.pk, at_once=False)
    assert queue(order, trigger=Trigger.API, at_once=False) == first
    assert queue(Order(builders.stream(), seed=1), trigger=Trigger.API, at_once=False) != first
    first.refresh_from_db()
    assert (first.trigger, first.requested_by_id) == (Trigger.BUTTON, anna.pk)


@pytest.fixture
def stream(topic: MakeTopic, kafka: str, db: None) -> Stream:
    """A stream whose topic holds 3,600 events; they give 2,700 rows."""
    name = topic(2)
    fill(kafka, name)
    return Stream.objects.create(name="raw", topic=name)


def test_what_waits_is_trained_in_order_and_says_how_far_it_is(stream: Stream, kafka: str) -> None:
    for seed in (1, 2):
        queue(Order(stream, seed=seed, params=QUICK), trigger=Trigger.API, at_once=False)
    with lease():
        first, second = work_off(client(kafka))
    assert [out.model and out.model.version for out in (first, second)] == [1, 2]
    assert [out.promoted for out in (first, second)] == [True, False]
    row = TrainingRun.objects.get(pk=first.run.pk)
    assert (row.status, row.progress, row.rows, row.trigger) == (Status.DONE, 1.0, 2_700, "api")
    assert row.heartbeat_at is not None
    model = ModelVersion.objects.get(version=1)
    assert (model.run_id, model.manifest["seed"]) == (row.pk, 1)
    said = ModelTransition.objects.filter(model=model).order_by("pk")
    assert [t.reason for t in said] == [f"trained by run {row.pk}", "the first model"]


@pytest.mark.django_db
def test_a_run_without_a_stream_fails_and_the_next_one_goes_on() -> None:
    TrainingRun.objects.create(algorithm="isolation_forest", status=Status.QUEUED)
    with lease():
        assert work_off({}) == []
    assert "names no stream" in TrainingRun.objects.get().reason


# -- progress and cancelling -----------------------------------------------------------------------


@pytest.mark.django_db
def test_progress_is_written_each_second_and_at_each_stage() -> None:
    record, now = running(), [100.0]
    progress = Progress(record, monotonic=lambda: now[0])

    def stored() -> tuple[str, float]:
        record.refresh_from_db()
        return record.stage, round(record.progress, 3)

    progress("reading", 0.0)
    assert stored() == ("reading", 0.0)
    progress("reading", 0.5)
    assert stored() == ("reading", 0.0)
    now[0] += 1.0
    progress("reading", 0.5)
    assert stored() == ("reading", 0.35)
    progress("fitting")
    assert stored() == ("fitting", 0.75)
    progress("storing")
    assert stored() == ("storing", 0.95)


@pytest.mark.django_db
def test_a_waiting_run_is_cancelled_at_once_and_an_ended_one_not() -> None:
    record = queue(Order(builders.stream()), trigger=Trigger.BUTTON, at_once=False)
    assert cancel(record.pk, "anna").status == Status.CANCELLED
    record.refresh_from_db()
    assert record.reason == "cancelled by anna before it began"
    with pytest.raises(TransitionRefused, match="is cancelled already"):
        cancel(record.pk, "ben")
    with pytest.raises(CommandError, match="no training run with the id 99999"):
        call_command("train", "--cancel", "99999")


@pytest.mark.parametrize("stage", ["reading", "features", "fitting", "testing", "storing"])
def test_a_running_one_is_cancelled_in_every_stage(
    stream: Stream, kafka: str, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cancelled(Progress):
        def __call__(self, now_in: str, done: float = 0.0) -> None:
            if now_in == stage:
                cancel(self._record.pk, "anna")
                self._next = 0.0
            super().__call__(now_in, done)

    monkeypatch.setattr(training_run, "Progress", Cancelled)
    with lease():
        outcome = run(Order(stream, params=QUICK), client(kafka))
    record = TrainingRun.objects.get()
    assert outcome.model is None
    assert (record.status, record.finished_at is None) == (Status.CANCELLED, False)
    assert record.reason == f"cancelled by anna, while {stage}"
    assert not ModelVersion.objects.exists()


def test_a_run_that_was_given_up_meanwhile_stores_nothing_and_stays_as_it_is(
    stream: Stream, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class GivenUp(Progress):
        def __call__(self, now_in: str, done: float = 0.0) -> None:
            super().__call__(now_in, done)
            if now_in == "storing":
                bury_the_dead()

    monkeypatch.setattr(training_run, "Progress", GivenUp)
    with lease():
        outcome = run(Order(stream, params=QUICK), client(kafka))
    assert outcome.model is None
    assert not ModelVersion.objects.exists()
    dead, again = TrainingRun.objects.order_by("pk")
    assert (dead.status, again.status) == (Status.FAILED, Status.QUEUED)


# -- death -----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_dead_workers_run_fails_with_the_reason_and_is_queued_exactly_once_more() -> None:
    dead = running(stage="fitting", trigger=Trigger.BUTTON)
    (again,) = look_after()
    dead.refresh_from_db()
    assert (dead.status, dead.reason) == (Status.FAILED, f"{DIED} while fitting")
    assert (again.attempt, again.retry_of_id, again.trigger) == (2, dead.pk, Trigger.RETRY)
    assert again.order == dead.order
    TrainingRun.objects.filter(pk=again.pk).update(status=Status.RUNNING)
    assert look_after() == []
    again.refresh_from_db()
    assert again.status == Status.FAILED
    assert TrainingRun.objects.count() == 2


@pytest.mark.django_db
def test_a_dead_run_that_was_to_be_cancelled_is_cancelled_and_not_tried_again() -> None:
    record = running()
    cancel(record.pk, "anna")
    assert look_after() == []
    record.refresh_from_db()
    assert (record.status, record.reason) == (Status.CANCELLED, "cancelled by anna")


Worker = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def worker(kafka: str, transactional_db: None) -> Iterator[Worker]:
    """A real Celery worker of the training queue on the test database; killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        env = {**os.environ, "DATABASE_URL": database_url(), "KAFKA_BOOTSTRAP_SERVERS": kafka}
        command = [sys.executable, "-m", "celery", "--quiet", "-A", "config", "worker", "-Q",
                   "training", "--concurrency", "1", "--without-gossip", "--without-mingle",
                   "--without-heartbeat", "--loglevel", "WARNING"]  # fmt: skip
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, start_new_session=True, stdout=quiet, stderr=quiet
        )
        started.append(process)
        return process

    yield start
    for process in started:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the worker and its pool at once, as a machine's end would be."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(10)


def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the awaited condition did not come"
        time.sleep(0.02)


def children() -> list[int]:
    """Fitting processes of anybody on this machine."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"detection.fit_process" in words:
            found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("stage", ["reading", "fitting"])
def test_a_killed_worker_leaves_no_half_version_and_the_run_is_done_by_the_next(
    worker: Worker, topic: MakeTopic, kafka: str, stage: str
) -> None:
    name = topic(2)
    fill(kafka, name, steps=4_000)
    stream = Stream.objects.create(name=f"raw-{stage}", topic=name)
    # Long enough in each stage to be met there.
    share, trees = (0.005, 5) if stage == "reading" else (0.5, 2_000)
    before = set(children())
    first = worker()
    record = queue(Order(stream, params={"n_estimators": trees}, share=share), trigger=Trigger.API)
    until(lambda: TrainingRun.objects.get(pk=record.pk).stage == stage)
    if stage == "fitting":
        until(lambda: bool(set(children()) - before))
    kill(first)
    until(lambda: not set(children()) - before, 10)
    assert not ModelVersion.objects.exists()

    until(lambda: bool(look_after()), 10)
    dead, again = TrainingRun.objects.order_by("pk")
    assert (dead.status, dead.reason) == (Status.FAILED, f"{DIED} while {stage}")
    TrainingRun.objects.filter(pk=again.pk).update(
        order=again.order | {"params": QUICK, "share": 0.5}
    )
    worker()
    until(lambda: TrainingRun.objects.get(pk=again.pk).status == Status.DONE)
    model = ModelVersion.objects.get()
    assert (model.run_id, model.state) == (again.pk, "champion")
    assert (again.attempt, again.retry_of_id) == (2, dead.pk)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_cancelling_ends_a_real_fit_within_seconds(
    worker: Worker, topic: MakeTopic, kafka: str
) -> None:
    name = topic(2)
    fill(kafka, name)
    stream = Stream.objects.create(name="raw", topic=name)
    worker()
    record = queue(Order(stream, params={"n_estimators": 100_000}), trigger=Trigger.API)
    until(lambda: TrainingRun.objects.get(pk=record.pk).stage == "fitting")
    asked = time.monotonic()
    call_command("train", "--cancel", str(record.pk))
    until(lambda: TrainingRun.objects.get(pk=record.pk).status == Status.CANCELLED, 10)
    assert time.monotonic() - asked < 5
    assert not ModelVersion.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_frozen_holder_loses_the_lease_and_its_session() -> None:
    held, done, ended = threading.Event(), threading.Event(), []

    def hold() -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_lock(%s)", [training_queue.LEASE])
                held.set()
                done.wait(30)
                cursor.execute("SELECT 1")
        except Exception as error:
            ended.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    record = running(heartbeat_at=dt.datetime.now(dt.UTC))
    assert look_after() == []  # it beats, so it lives
    TrainingRun.objects.update(heartbeat_at=dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5))
    found: list[TrainingRun] = []

    def looked() -> bool:
        found[:] = look_after()
        return bool(found)

    until(looked, 10)
    assert found[0].retry_of_id == record.pk
    done.set()
    thread.join(10)
    assert len(ended) == 1
    assert found[0].order == record.order
