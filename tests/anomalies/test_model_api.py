"""The API of models and training: who may change what, and what is said when it can't be."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from detection import model_store, training_queue
from detection.features import FEATURE_NAMES
from detection.models import ModelTransition, ModelVersion, TrainingRun
from detection.training import Trained, train
from streams.models import Series
from tests import builders

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def trained() -> Trained:
    rows = np.random.default_rng(1).normal(0, 1, (600, len(FEATURE_NAMES)))
    return train("isolation_forest", rows, seed=1, params={"n_estimators": 5})


@pytest.fixture
def models(trained: Trained) -> list[ModelVersion]:
    """Three versions of one line; the first is champion."""
    saved = [
        model_store.save(trained, stream=builders.stream(), algorithm="isolation_forest")
        for _ in range(3)
    ]
    model_store.promote(saved[0].pk)
    return saved


@pytest.fixture(autouse=True)
def closed(settings: Settings) -> None:
    """Not open to this machine: sessions and tokens only."""
    api = settings.VIGIL.api.model_copy(update={"open": False})
    settings.VIGIL = settings.VIGIL.model_copy(update={"api": api})


def post(client: Client, path: str, body: dict[str, Any] | None = None) -> Any:
    return client.post(path, json.dumps(body or {}), content_type="application/json")


def states() -> list[str]:
    return list(ModelVersion.objects.order_by("version").values_list("state", flat=True))


def test_promote_and_roll_back_by_an_operator(operator: Client, models: list[ModelVersion]) -> None:
    path = f"/api/models/{models[1].pk}/promote"
    refused = post(operator, path, {"reason": "better"})
    assert refused.status_code == 409
    assert refused.json()["gate"]["passed"] is False
    assert refused.json()["error"]["field"] == "anyway"
    unsaid = post(operator, path, {"anyway": True})
    assert "needs a reason" in unsaid.json()["error"]["message"]
    assert states() == ["champion", "candidate", "candidate"]
    answer = post(operator, path, {"reason": "better", "anyway": True})
    assert (answer.status_code, answer.json()["state"]) == (200, "champion")
    assert states() == ["retired", "champion", "candidate"]
    answer = post(operator, f"/api/models/{models[1].pk}/rollback", {"reason": "not better"})
    assert answer.json()["champion"]["version"] == 1
    # Asked twice, it is done once.
    again = post(operator, f"/api/models/{models[1].pk}/rollback")
    assert again.status_code == 409
    assert "this version is not the champion: v1 is" in again.json()["error"]["message"]
    assert states() == ["champion", "retired", "candidate"]
    answer = post(operator, f"/api/models/{models[0].pk}/rollback", {"to": "none"})
    assert answer.json() == {"left": models[0].pk, "champion": None}
    assert ModelTransition.objects.filter(actor="olga").count() == 5


def test_challenge_and_retire(operator: Client, models: list[ModelVersion]) -> None:
    assert post(operator, f"/api/models/{models[2].pk}/challenge").json()["state"] == "challenger"
    refused = post(operator, f"/api/models/{models[0].pk}/challenge")
    assert refused.status_code == 409
    assert "is the champion, which can't challenge itself" in refused.json()["error"]["message"]
    assert post(operator, f"/api/models/{models[1].pk}/retire").json()["state"] == "retired"
    assert states() == ["champion", "retired", "challenger"]


CHANGES = ("promote", "challenge", "retire", "rollback")


@pytest.mark.parametrize("change", CHANGES)
def test_a_viewer_reads_and_changes_nothing(
    web: Client, models: list[ModelVersion], change: str
) -> None:
    answer = post(web, f"/api/models/{models[0].pk}/{change}")
    assert answer.status_code == 403
    assert "Only operators and admins" in answer.json()["error"]["message"]
    assert states() == ["champion", "candidate", "candidate"]
    assert web.get("/api/models").status_code == 200


@pytest.mark.parametrize(
    "path", ["/api/models/1/promote", "/api/models/train", "/api/training/1/cancel"]
)
def test_strangers_and_sessions_without_the_csrf_token_change_nothing(path: str) -> None:
    assert post(Client(), path).status_code == 401
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(builders.user(is_staff=True))
    assert post(strict, path).status_code == 403
    assert Client().get("/api/models").status_code == 401


def test_a_token_changes_as_an_operator(models: list[ModelVersion], settings: Settings) -> None:
    from pydantic import SecretStr

    api = settings.VIGIL.api.model_copy(update={"token": SecretStr("s3cret")})
    settings.VIGIL = settings.VIGIL.model_copy(update={"api": api})
    client = Client(headers={"authorization": "Bearer s3cret"})
    assert post(client, f"/api/models/{models[1].pk}/challenge").status_code == 200
    change = ModelTransition.objects.get(model=models[1], to_state="challenger")
    assert change.actor == "token (API)"
    wrong = Client(headers={"authorization": "Bearer guess"})
    assert post(wrong, f"/api/models/{models[1].pk}/retire").status_code == 401


def test_a_broken_artefact_is_409_with_the_reason(
    operator: Client, models: list[ModelVersion]
) -> None:
    payload = bytearray(models[1].artefact)
    payload[100] ^= 1
    ModelVersion.objects.filter(pk=models[1].pk).update(artefact=bytes(payload))
    answer = post(operator, f"/api/models/{models[1].pk}/promote")
    assert answer.status_code == 409
    assert (
        "It stays as it was. isolation_forest v2 of raw-data" in answer.json()["error"]["message"]
    )
    assert states()[1] == "candidate"


def test_a_version_tells_its_manifest_and_every_change(
    web: Client, models: list[ModelVersion]
) -> None:
    said = web.get(f"/api/models/{models[0].pk}").json()
    assert said["manifest"]["rows_used"] == 600
    assert [(t["from"], t["to"]) for t in said["transitions"]] == [
        (None, "candidate"), ("candidate", "champion"),
    ]  # fmt: skip
    assert said["sha256"] == models[0].sha256
    assert "artefact" not in said


def test_the_list_is_paged_narrowed_and_never_loads_artefacts(
    web: Client, models: list[ModelVersion]
) -> None:
    with CaptureQueriesContext(connection) as asked:
        first = web.get("/api/models", {"limit": 2}).json()
    assert len(asked) <= 4
    assert not any('"artefact"' in query["sql"] for query in asked)
    assert [m["version"] for m in first["models"]] == [3, 2]
    rest = web.get("/api/models", {"limit": 2, "cursor": first["next"]}).json()
    assert ([m["version"] for m in rest["models"]], rest["next"]) == ([1], None)
    for query, n in (({"state": "champion"}, 1), ({"stream": "other"}, 0), ({"metric": ""}, 3)):
        assert len(web.get("/api/models", query).json()["models"]) == n


def test_training_is_queued_told_and_cancelled(operator: Client) -> None:
    builders.series("a", "cpu")
    body = {"stream": "raw-data", "metric": "cpu", "seed": 4, "since_hours": 12, "promote": "never"}
    answer = post(operator, "/api/models/train", body)
    assert answer.status_code == 202
    run = answer.json()
    assert (run["status"], run["trigger"], run["requested_by"]) == ("queued", "api", "olga")
    assert (run["order"]["since_s"], run["order"]["promote"], run["order"]["seed"]) == (
        43_200, "never", 4,
    )  # fmt: skip
    assert operator.get(f"/api/training/{run['id']}").json()["status"] == "queued"
    assert len(operator.get("/api/training", {"status": "queued"}).json()["runs"]) == 1
    ended = post(operator, f"/api/training/{run['id']}/cancel").json()
    assert (ended["status"], ended["reason"]) == ("cancelled", "cancelled by olga before it began")
    assert post(operator, f"/api/training/{run['id']}/cancel").status_code == 409
    assert training_queue.look_after() == []


ODD = ("", "x", "-1", "0", "9" * 30, "%00", "\x00", "ä", "1.5", "2024-13-01T00:00:00Z")


def test_the_plus_of_a_zone_may_stand_in_the_address_as_it_is(web: Client) -> None:
    for text in ("2024-01-01T12:00:00+01:00", "2024-01-01T12:00:00%2B01:00", "2024-01-01%2011:00"):
        answer = web.get(f"/api/models/live?at={text}")
        assert answer.status_code == 200, text
        assert answer.json()["at"] in ("2024-01-01T12:00:00+01:00", "2024-01-01T11:00:00Z")


@pytest.mark.parametrize("odd", ODD)
def test_what_cannot_be_read_is_400_never_500(web: Client, odd: str) -> None:
    for path, fields in (
        ("/api/models", ("limit", "cursor", "state", "stream", "metric", "algorithm")),
        ("/api/models/live", ("at", "by", "stream")),
        ("/api/training", ("limit", "cursor", "status")),
    ):
        for field in fields:
            answer = web.get(path, {field: odd})
            assert answer.status_code in (200, 400), (path, field, odd)
            if answer.status_code == 400:
                assert answer.json()["error"]["allowed"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("[]", "body"), ("{", "body"), ("[" * 50_000, "body"), ('{"x": 1}', "x"),
        ("{}", "stream"), ('{"stream": 5}', "stream"), ('{"stream": "no"}', "stream"),
        ('{"stream": "\\u0000"}', "stream"), ('{"stream": "\\ud800"}', "stream"),
        ('{"stream": "raw-data", "algorithm": "magic"}', "algorithm"),
        ('{"stream": "raw-data", "metric": "nope"}', "metric"),
        ('{"stream": "raw-data", "metric": "a\\u0000"}', "metric"),
        ('{"stream": "raw-data", "promote": "maybe"}', "promote"),
        ('{"stream": "raw-data", "promote": []}', "promote"),
        ('{"stream": "raw-data", "seed": -1}', "seed"),
        ('{"stream": "raw-data", "seed": true}', "seed"),
        ('{"stream": "raw-data", "since_hours": 0}', "since_hours"),
        ('{"stream": "raw-data", "since_hours": NaN}', "since_hours"),
        ('{"stream": "raw-data", "since_hours": 1e308}', "since_hours"),
    ],
)  # fmt: skip
def test_orders_that_make_no_sense_name_the_field(operator: Client, body: str, field: str) -> None:
    builders.series("a", "cpu")
    answer = operator.post("/api/models/train", body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] in (field, "body")
    assert not TrainingRun.objects.exists()
    assert Series.objects.exists()


def test_what_does_not_exist_is_404(operator: Client) -> None:
    for change in CHANGES:
        assert post(operator, f"/api/models/{10**20}/{change}").status_code == 404
    assert operator.get("/api/models/12345").status_code == 404
    assert operator.get("/api/training/12345").status_code == 404
    assert post(operator, "/api/training/12345/cancel").status_code == 404
    assert operator.get("/api/models/train").status_code == 405
