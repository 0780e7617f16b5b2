"""The pages of models: what they show, what they ask first, who may do it, and at what price."""

from __future__ import annotations

import re
from datetime import timedelta

import numpy as np
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from detection import model_store, promotion
from detection.features import FEATURE_NAMES
from detection.gate import GateResult
from detection.models import Evaluation, ModelTransition, ModelVersion, TrainingRun
from detection.training import Trained, train
from tests import builders

pytestmark = pytest.mark.django_db


SAYS_NO = GateResult(False, ("11 alarms a day, the budget is 5.",))


@pytest.fixture(scope="module")
def trained() -> Trained:
    rows = np.random.default_rng(1).normal(0, 1, (600, len(FEATURE_NAMES)))
    times = {"first_event": "2026-11-16T00:00:00+00:00", "last_event": "2026-11-22T23:59:00+00:00",
             "offsets": {"0": [0, 300], "1": [0, 300]}, "events": 600, "series": 4,
             "events_in_anomalies": 12}  # fmt: skip
    return train("isolation_forest", rows, seed=1, params={"n_estimators": 5}, provenance=times)


def save(trained: Trained, metric: str = "") -> ModelVersion:
    return model_store.save(
        trained, stream=builders.stream(), algorithm="isolation_forest", metric=metric
    )


@pytest.fixture
def models(trained: Trained) -> list[ModelVersion]:
    saved = [save(trained) for _ in range(3)]
    model_store.promote(saved[0].pk)
    return saved


def text(client: Client, path: str, **query: str) -> str:
    answer = client.get(path, query)
    assert answer.status_code == 200, path
    body: str = answer.content.decode()
    assert " style=" not in body
    assert "<script>" not in body
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_the_list_shows_each_line_with_champion_challenger_and_newest(
    viewer: Client, models: list[ModelVersion], trained: Trained
) -> None:
    model_store.challenge(models[1].pk)
    save(trained, "cpu")
    said = text(viewer, "/models/")
    assert "raw-data · every metric · isolation forest" in said
    assert "raw-data · cpu · isolation forest no champion" in said
    assert re.findall(r"v(\d) (champion|challenger|candidate)", said) == [
        ("1", "champion"), ("2", "challenger"), ("3", "candidate"), ("1", "candidate"),
    ]  # fmt: skip
    assert "16 Nov 00:00 – 22 Nov 23:59" in said


def test_without_a_model_it_says_when_the_first_one_comes(viewer: Client) -> None:
    assert "No model yet" in text(viewer, "/models/")
    builders.series("a", "cpu", events=900)
    builders.consumer()
    said = text(viewer, "/models/")
    assert "first training after 250 more events, at the present rate in less than a minute" in said


def test_prices_stay_the_same_for_many_lines_and_versions(viewer: Client, trained: Trained) -> None:
    def asked(path: str) -> int:
        with CaptureQueriesContext(connection) as found:
            assert viewer.get(path).status_code == 200
        assert not any('"artefact"' in query["sql"] for query in found)
        return len(found)

    first = save(trained)
    model_store.promote(first.pk)
    paths = ("/models/", f"/models/{first.pk}/", "/models/runs/", "/models/live/")
    few = [asked(path) for path in paths]
    for metric in ("", "a", "b", "c"):
        for _ in range(5):
            row = save(trained, metric)
            TrainingRun.objects.create(stream=row.stream, algorithm="isolation_forest",
                                       status="running", stage="fitting")  # fmt: skip
        model_store.challenge(row.pk)
    assert [asked(path) for path in paths] == few
    assert max(few) <= 18


def test_a_version_shows_manifest_tests_changes_and_its_line(
    viewer: Client, models: list[ModelVersion]
) -> None:
    Evaluation.objects.create(model=models[0], kind="injected", metrics={"recall": 0.8123})
    said = text(viewer, f"/models/{models[0].pk}/")
    for part in (models[0].sha256, "scikit-learn", "residual, change", "12 in confirmed anomalies",
                 "n_estimators 5", "candidate → champion by vigil", "injected", "0.8123",
                 "held out alarms per 10000"):  # fmt: skip
        assert part in said, part
    assert "Roll back" not in said
    assert viewer.get("/models/999999/").status_code == 404


@pytest.mark.parametrize("action", ["promote", "challenge", "retire", "rollback"])
def test_a_viewer_may_neither_ask_nor_do(
    viewer: Client, models: list[ModelVersion], action: str
) -> None:
    path = f"/models/{models[0].pk}/{action}"
    for answer in (viewer.get(path), viewer.post(path)):
        assert answer.status_code == 403
        assert b"Only operators and admins" in answer.content
    assert Client().get(path).status_code == 302
    assert viewer.post("/models/train", {"stream": "raw-data"}).status_code == 403
    assert "Train a version" not in text(viewer, "/models/")


def test_promoting_asks_first_and_then_does_it(
    operator: Client, models: list[ModelVersion]
) -> None:
    path = f"/models/{models[2].pk}/promote"
    assert "in place of v1, which retires" in text(operator, path)
    assert ModelVersion.objects.get(pk=models[2].pk).state == "candidate"
    refused = operator.post(path, {"reason": "fewer alarms"})
    assert refused.status_code == 409
    assert "Promote v3 anyway" in refused.content.decode()
    operator.post(path, {"reason": "fewer alarms", "anyway": "1"})
    change = ModelTransition.objects.get(model=models[2], to_state="champion")
    assert (change.actor, change.reason) == ("olga", "past the gate: fewer alarms")
    said = text(operator, f"/models/{models[2].pk}/")
    assert "v3 is the champion" in said
    assert "Roll back to v1" in said


def test_a_broken_version_is_told_and_refused(operator: Client, models: list[ModelVersion]) -> None:
    payload = bytearray(models[1].artefact)
    payload[50] ^= 1
    ModelVersion.objects.filter(pk=models[1].pk).update(artefact=bytes(payload))
    path = f"/models/{models[1].pk}/promote"
    assert "isolation_forest v2 of raw-data" in text(operator, path)
    answer = operator.post(path, {"anyway": "1", "reason": "now"})
    assert answer.status_code == 409
    assert b"It stays as it was" in answer.content
    # A broken champion can be replaced by whatever loads: there is nothing to compare with.
    ModelVersion.objects.filter(pk=models[0].pk).update(artefact=bytes(payload))
    operator.post(f"/models/{models[2].pk}/promote")
    assert ModelVersion.objects.get(pk=models[2].pk).state == "champion"


def test_rolling_back_by_button_goes_to_the_one_before_and_then_to_none(
    operator: Client, models: list[ModelVersion]
) -> None:
    model_store.promote(models[1].pk)
    assert "v1, the champion before, scores again" in text(
        operator, f"/models/{models[1].pk}/rollback"
    )
    operator.post(f"/models/{models[1].pk}/rollback", {"to": "previous"})
    stream = builders.stream()
    assert model_store.champion(stream, "", "isolation_forest") == models[0]
    stale = operator.post(f"/models/{models[1].pk}/rollback", {"to": "previous"})
    assert stale.status_code == 409
    operator.post(f"/models/{models[0].pk}/rollback", {"to": "none"})
    assert model_store.champion(stream, "", "isolation_forest") is None
    assert "no champion" in text(operator, "/models/")


def test_the_gate_is_shown_and_passed_only_openly_and_with_a_reason(
    operator: Client, models: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "verdict_of", lambda model: SAYS_NO)
    path = f"/models/{models[1].pk}/promote"
    assert "11 alarms a day, the budget is 5" in text(operator, path)
    for body in ({}, {"reason": "please"}, {"anyway": "1"}, {"anyway": "1", "reason": "  "}):
        assert operator.post(path, body).status_code == 409
    assert ModelVersion.objects.get(pk=models[1].pk).state == "candidate"
    operator.post(path, {"anyway": "1", "reason": "an incident"})
    change = ModelTransition.objects.get(model=models[1], to_state="champion")
    assert change.reason == "past the gate: an incident"
    # One that was champion before comes back without the gate.
    operator.post(f"/models/{models[0].pk}/promote")
    assert ModelVersion.objects.get(pk=models[0].pk).state == "champion"


def test_training_by_button_shows_progress_and_can_be_cancelled(operator: Client) -> None:
    builders.series("a", "cpu")
    operator.post("/models/train", {"stream": "raw-data", "metric": "cpu",
                                    "algorithm": "isolation_forest"})  # fmt: skip
    run = TrainingRun.objects.get()
    assert (run.status, run.trigger, run.metric) == ("queued", "button", "cpu")
    assert "waiting for a worker" in text(operator, "/models/")
    TrainingRun.objects.update(status="running", stage="fitting", progress=0.75,
                               heartbeat_at=timezone.now())  # fmt: skip
    body = operator.get("/models/runs/").content.decode()
    assert "75 %" in body
    assert 'hx-trigger="every 2s"' in body
    operator.post(f"/models/runs/{run.pk}/cancel")
    run.refresh_from_db()
    assert (run.cancel_requested, run.reason) == (True, "cancelled by olga")
    TrainingRun.objects.update(status="cancelled", finished_at=timezone.now() - timedelta(0))
    body = operator.get("/models/runs/", {"active": "1"}).content.decode()
    assert 'id="lines" hx-swap-oob="true"' in body
    assert 'hx-trigger="every 15s"' in body
    operator.post(f"/models/runs/{run.pk}/cancel")
    assert "is cancelled already" in text(operator, "/models/")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"stream": "none", "algorithm": "isolation_forest"}, "There is no stream"),
        ({"stream": "raw-data", "algorithm": "magic"}, "is no stored model"),
        ({"stream": "raw-data", "algorithm": "isolation_forest", "metric": "x"}, "has no metric"),
        ({"stream": "\x00", "algorithm": "isolation_forest"}, "There is no stream"),
        ({}, "is no stored model"),
    ],
)
def test_a_form_that_makes_no_sense_is_400_with_a_sentence(
    operator: Client, given: dict[str, str], says: str
) -> None:
    builders.series("a", "cpu")
    answer = operator.post("/models/train", given)
    assert answer.status_code == 400
    assert says in answer.content.decode()
    assert not TrainingRun.objects.exists()


def test_the_page_of_a_moment_answers_or_says_what_it_needs(viewer: Client) -> None:
    assert "Nothing is recorded" in text(viewer, "/models/live/")
    said = text(viewer, "/models/live/", at="2026-11-17T03:12", by="event")
    assert "Tuesday, 17 November 2026, 03:12" in said
    for odd in ("lunch", "9" * 40, "\x00"):
        answer = viewer.get("/models/live/", {"at": odd})
        assert answer.status_code == 400
        assert b"is no moment" in answer.content


def test_a_run_that_came_to_nothing_is_repeated_by_button(operator: Client, viewer: Client) -> None:
    order = {"stream": "raw-data", "seed": 7, "params": {"n_estimators": 5}}
    dead = TrainingRun.objects.create(
        stream=builders.stream(), algorithm="isolation_forest", status="failed", order=order
    )
    done = TrainingRun.objects.create(
        stream=builders.stream(), algorithm="isolation_forest", status="done"
    )
    assert f"/models/runs/{dead.pk}/again" in operator.get("/models/").content.decode()
    assert f"/models/runs/{done.pk}/again" not in operator.get("/models/").content.decode()
    assert "/again" not in viewer.get("/models/").content.decode()
    assert viewer.post(f"/models/runs/{dead.pk}/again").status_code == 403
    for pk in (dead.pk, done.pk):
        assert operator.post(f"/models/runs/{pk}/again").status_code == 302
    (again,) = TrainingRun.objects.filter(status="queued")
    assert (again.order["seed"], again.order["params"]) == (7, {"n_estimators": 5})
    assert operator.post("/models/runs/99999/again").status_code == 404
