"""Studies in a real worker process: killed, cancelled from the page, and out of time."""

from __future__ import annotations

from pathlib import Path

import pytest

from detection import study_queue, tuning_run
from detection.models import ModelVersion, Study
from detection.training_queue import look_after
from streams.models import Stream
from tests.conftest import MakeTopic
from tests.detection.test_train_command import fill
from tests.detection.test_training_queue import Worker, kill, until
from tests.detection.test_training_queue import worker as worker
from tests.detection.test_trial_process import trial_processes
from tests.detection.test_tuning_run import web

Status = Study.Status
pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc"),
]


@pytest.fixture
def stream(worker: Worker, topic: MakeTopic, kafka: str) -> Stream:
    """A stream whose topic holds six series of 1,500 events."""
    name = topic(2)
    fill(kafka, name, steps=1_500)
    return Stream.objects.create(name="raw", topic=name)


def now(study: Study) -> Study:
    return Study.objects.get(pk=study.pk)


def test_a_killed_worker_leaves_no_half_study_and_the_next_does_it_once_more(
    worker: Worker, stream: Stream
) -> None:
    before = set(trial_processes())
    first = worker()
    study = tuning_run.ordered("raw", trials=1_000, seed=5)
    study_queue.wake(study.pk)
    until(lambda: len(now(study).trials) >= 2 and bool(set(trial_processes()) - before))
    kill(first)
    until(lambda: not set(trial_processes()) - before, 20)
    assert now(study).status == Status.RUNNING  # nobody has looked yet
    until(lambda: (look_after(), now(study).status == Status.FAILED)[1], 20)
    dead = now(study)
    assert dead.reason.startswith("the worker ended before the search did, after ")
    assert (dead.best, dead.model, ModelVersion.objects.count()) == ({}, None, 0)

    again = Study.objects.get(retry_of=study)
    assert (again.status, again.attempt, again.seed) == (Status.QUEUED, 2, 5)
    Study.objects.filter(pk=again.pk).update(max_trials=4)
    worker()
    until(lambda: (look_after(), now(again).status == Status.DONE)[1])
    assert now(again).model == ModelVersion.objects.get()
    # An equal study that nobody killed finds the same: the same model to the bit.
    equal = tuning_run.ordered("raw", trials=4, seed=5)
    study_queue.wake(equal.pk)
    until(lambda: now(equal).status == Status.DONE)
    one, other = now(again), now(equal)
    assert one.model is not None
    assert other.model is not None
    assert one.model.sha256 == other.model.sha256
    assert one.best["params"] == other.best["params"]


def test_a_second_death_is_final(stream: Stream) -> None:
    Study.objects.create(stream=stream, status=Status.RUNNING, attempt=2)
    look_after()
    assert list(Study.objects.values_list("status", flat=True)) == [Status.FAILED]


def test_the_page_cancels_a_study_in_the_middle_of_a_trial(worker: Worker, stream: Stream) -> None:
    before = set(trial_processes())
    worker()
    study = tuning_run.ordered("raw", trials=1_000)
    study_queue.wake(study.pk)
    until(lambda: bool(set(trial_processes()) - before))
    assert web().post(f"/models/studies/{study.pk}/cancel").status_code == 302
    until(lambda: now(study).status == Status.CANCELLED)
    until(lambda: not set(trial_processes()) - before)
    assert now(study).reason.startswith("cancelled ")
    assert not ModelVersion.objects.exists()


def test_a_study_out_of_time_ends_with_the_best_so_far(worker: Worker, stream: Stream) -> None:
    worker()
    study = tuning_run.ordered("raw", trials=1_000, seconds=40)
    study_queue.wake(study.pk)
    until(lambda: now(study).status not in study_queue.ACTIVE, 120)
    row = now(study)
    assert row.status == Status.DONE, row.reason
    assert 0 < len(row.trials) < 1_000
    assert row.run is not None
    if row.model is None:  # a slow machine: it is trained after the study
        assert row.reason == f"the time was up: run {row.run.pk} trains the best"
        until(lambda: ModelVersion.objects.filter(run=row.run).exists())
    else:
        assert row.reason == "the time was up"
    model = ModelVersion.objects.get()
    assert model.manifest["study"]["digest"] == row.best["digest"]
    assert (
        model.manifest["params"].items()
        >= {key: value for key, value in row.best["params"].items() if value != "all"}.items()
    )


def test_a_study_without_the_time_for_one_trial_says_so(worker: Worker, stream: Stream) -> None:
    worker()
    study = tuning_run.ordered("raw", trials=5, seconds=1)
    study_queue.wake(study.pk)
    until(lambda: now(study).status == Status.FAILED)
    assert now(study).reason == (
        "the time was up before the first trial had ended: give the study more than 1 s"
    )
    assert not ModelVersion.objects.exists()
