"""Studies from a real topic: by command, task and page, with their record in the database."""

from __future__ import annotations

import datetime as dt
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client

from detection import gate, study_queue, training_queue, tuning, tuning_run
from detection.features import FEATURE_NAMES, FEATURE_SETS
from detection.gate import Labelled
from detection.models import ModelVersion, Study, TrainingRun
from detection.tuning_tasks import tune
from streams.models import Stream
from tests import builders
from tests.conftest import MakeTopic
from tests.detection.test_train_command import busy as busy
from tests.detection.test_train_command import fill

Status = Study.Status


@pytest.fixture
def stream(topic: MakeTopic, kafka: str, db: None) -> Stream:
    """A stream whose topic holds six series of 1,500 events."""
    name = topic(2)
    fill(kafka, name, steps=1_500)
    return Stream.objects.create(name="raw", topic=name)


def command(*words: str) -> str:
    out = StringIO()
    call_command("tune", *words, stdout=out)
    return out.getvalue()


def client_config() -> dict[str, Any]:
    return settings.VIGIL.kafka.quiet_client_config()


def test_the_command_searches_trains_a_candidate_and_twice_gives_the_same(stream: Stream) -> None:
    said = command("--trials", "4", "--seed", "2")
    study = Study.objects.get()
    assert (study.status, len(study.trials), study.reason) == (Status.DONE, 4, "")
    assert "trial   0" in said
    assert "(trial 0)" in said
    assert "isolation_forest n_estimators 100, max_samples 256, features all" in said
    model = study.model
    assert model is not None
    assert model.sha256 in said
    assert model.state == "candidate"
    assert model.manifest["study"] == {
        "digest": study.best["digest"], "seed": 2, "trials": 4, "value": study.best["value"],
    }  # fmt: skip
    found = {key: value for key, value in study.best["params"].items() if value != "all"}
    assert model.manifest["params"].items() >= found.items()
    assert model.manifest["feature_names"] == list(FEATURE_SETS[study.best["params"]["features"]])
    assert study.run is not None
    assert study.run.trigger == TrainingRun.Trigger.TUNING
    assert study.best["value"] >= study.trials[0]["value"]
    assert "injected faults" in study.objective
    command("--trials", "4", "--seed", "2")
    again = Study.objects.latest("pk")
    assert again.model is not None
    assert (again.best["params"], again.best["value"]) == (study.best["params"],
                                                          study.best["value"])  # fmt: skip
    assert again.model.sha256 == model.sha256


def test_the_task_runs_a_study_once_and_buries_one_whose_worker_died(stream: Stream) -> None:
    dead = Study.objects.create(stream=stream, status=Status.RUNNING, trials=[{"number": 0}])
    study = tuning_run.ordered("raw", trials=1)
    assert tune(study.pk) == f"study {study.pk}: done"
    dead.refresh_from_db()
    assert (dead.status, dead.reason) == (
        Status.FAILED, "the worker ended before the search did, after 1 trial"
    )  # fmt: skip
    assert dead.model is None
    again = Study.objects.get(retry_of=dead)
    assert (again.attempt, again.status, again.trials) == (2, Status.QUEUED, [])
    assert tune(study.pk) == f"study {study.pk}: done"
    assert ModelVersion.objects.count() == 1
    assert tune(99_999) == "study 99999 is gone"


def test_a_study_that_is_cancelled_ends_between_trials_and_stores_no_model(stream: Stream) -> None:
    study = tuning_run.ordered("raw", trials=9)
    with training_queue.lease():
        row = tuning_run.run(
            study.pk, client_config(), share=1.0, told=lambda trial: study_queue.cancel(study.pk)
        )
    assert (row.status, row.reason) == (Status.CANCELLED, "cancelled after 1 trial")
    assert len(row.trials) == 1
    assert (row.model, ModelVersion.objects.count()) == (None, 0)
    waiting = tuning_run.ordered("raw", trials=9)
    assert study_queue.cancel(waiting.pk).status == Status.CANCELLED


def test_labels_count_where_they_exist(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(name: str, since: dt.datetime, most: int) -> list[Labelled]:
        return [
            Labelled("cpu_usage", dict.fromkeys(FEATURE_NAMES, 8.0 * real), {}, 0.8, bool(real))
            for real in (0, 1)
        ]

    monkeypatch.setattr(gate, "_providers", [given])
    study = tuning_run.ordered("raw", trials=1)
    with training_queue.lease():
        row = tuning_run.run(study.pk, client_config(), share=1.0)
    assert "2 labels count too" in row.objective
    found = row.trials[0]["metrics"]
    assert (found["labels"], found["labelled"]) == (2, 1.0)
    assert row.trials[0]["value"] == pytest.approx(
        0.975 * found["injected"] + 0.025 * found["labelled"]
    )


def test_too_little_history_fails_the_study_with_a_sentence(
    topic: MakeTopic, kafka: str, db: None
) -> None:
    Stream.objects.create(name="new", topic=topic(1))
    with pytest.raises(CommandError, match="no series has the 600 events"):
        command("--trials", "1")
    assert Study.objects.get().status == Status.FAILED


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--trials", "0"), "trials is 0: from 1 to 1,000 are allowed"),
        (("--seconds", "0"), "seconds is 0: from 1 to 86,400"),
        (("--minutes", "0"), "seconds is 0: from 1 to 86,400"),
        (("--minutes", "nan"), "seconds is nan"),
        (("--seed", "-1"), "seed is -1"),
        (("--stream", "nowhere"), "No stream is called nowhere. There are: raw-data"),
        (("--metric", "nothing"), "has no metric nothing. There are: cpu_usage"),
    ],
)
def test_bad_words_are_refused_with_a_sentence(words: tuple[str, ...], said: str) -> None:
    builders.series()
    with pytest.raises(CommandError, match=said):
        command(*words)
    assert not Study.objects.exists()


def web(*, operator: bool = True) -> Client:
    client, name = Client(), "olga" if operator else "ines"
    known = User.objects.filter(username=name).first()
    client.force_login(known or builders.user(name, is_staff=operator))
    return client


def a_study(stream: Stream, **more: Any) -> Study:
    def trial(number: int, algorithm: str, value: float | None, **params: Any) -> dict[str, Any]:
        figures = {"recall": {"spike": value, "drift": 0.5}, "false_onsets_per_10000": 2.5}
        return tuning.Trial(number, algorithm, params, value, figures, 0.5).as_dict()

    trials = [
        trial(0, "isolation_forest", 0.5, n_estimators=100, max_samples=256),
        trial(1, "local_outlier_factor", None, n_neighbors=20, max_reference=1_000),
        trial(2, "one_class_svm", 0.75, nu=0.0123456, gamma="scale", max_samples=300),
    ]
    given: dict[str, Any] = {
        "status": Status.DONE, "max_trials": 3, "trials": trials, "best": trials[2],
        "importance": {"one_class_svm.nu": 0.2, "algorithm": 0.8},
        "objective": "share found of 9 injected faults",
    }  # fmt: skip
    return Study.objects.create(stream=stream, **given | more)


@pytest.mark.django_db
def test_the_page_of_a_study_shows_trials_importance_and_the_baseline() -> None:
    model = builders.model()
    study = a_study(model.stream, model=model)
    text = web(operator=False).get(f"/models/studies/{study.pk}/").content.decode()
    assert text.count("<circle") == 2
    assert "+0.2500 over the baseline's 0.5000" in text
    assert "One class svm: nu" in text
    assert text.index("80 %") < text.index("20 %")
    assert "nu 0.01235" in text
    assert f'href="/models/{model.pk}/"' in text
    assert "every 3s" not in text
    assert "share found of 9 injected faults" in text
    listed = web().get("/models/studies/").content.decode()
    assert f'href="/models/studies/{study.pk}/"' in listed


@pytest.mark.django_db
def test_a_running_study_asks_for_itself_again_and_only_operators_cancel() -> None:
    study = a_study(builders.stream(), status=Status.RUNNING, best={}, importance={})
    path = f"/models/studies/{study.pk}/"
    text = web().get(path, headers={"HX-Target": "study"}).content.decode()
    assert "every 3s" in text
    assert "<html" not in text
    assert web(operator=False).post(f"{path}cancel").status_code == 403
    assert web().post(f"{path}cancel").status_code == 302
    study.refresh_from_db()
    assert (study.cancel_requested, study.status) == (True, Status.RUNNING)
    assert web().post("/models/studies/99999/cancel").status_code == 404


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stream": "nowhere"}, "No stream is called nowhere"),
        ({"stream": "raw-data", "trials": "many"}, "a whole number such as 20 is needed"),
        ({"stream": "raw-data", "trials": "5000"}, "from 1 to 1,000 are allowed"),
        ({"stream": "raw-data", "minutes": "nan"}, "seconds is nan"),
        ({"stream": "raw-data", "minutes": "soon"}, "a number such as 10"),
        ({"stream": "raw-data", "metric": "nothing"}, "has no metric nothing"),
    ],
)
def test_a_bad_form_is_answered_with_a_sentence(given: dict[str, str], said: str) -> None:
    builders.series()
    answer = web().post("/models/studies/start", given)
    assert answer.status_code == 400
    assert said in answer.content.decode()
    assert not Study.objects.exists()


@pytest.mark.django_db
def test_the_form_queues_a_study_for_a_worker() -> None:
    builders.stream()
    form = {"stream": "raw-data", "trials": "5", "minutes": "", "seed": "7"}
    assert web(operator=False).post("/models/studies/start", form).status_code == 403
    answer = web().post("/models/studies/start", form)
    study = Study.objects.get()
    assert answer.headers["Location"] == f"/models/studies/{study.pk}/"
    assert (study.max_trials, study.max_seconds, study.seed) == (5, None, 7)
    assert study.status == Status.QUEUED
    assert study.requested_by is not None
    assert web().get(f"/models/studies/{study.pk}/").status_code == 200


@pytest.mark.usefixtures("busy")
def test_a_search_waits_while_a_training_holds_the_lease(db: None) -> None:
    Stream.objects.create(name="raw", topic="raw")
    with pytest.raises(CommandError, match="another training is running"):
        command("--trials", "1")
    assert not Study.objects.exists()
