"""`POST /api/alert`: stored once, told to others, and every mistake answered by its field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from anomalies.models import Anomaly, Outbox
from tests import builders

pytestmark = pytest.mark.django_db
GOOD = {"source": "door-1", "metric": "open_s", "value": 96, "timestamp": "2024-01-01T12:00:00Z"}


@pytest.fixture
def web() -> Client:
    client = Client()
    client.force_login(builders.user(is_staff=True))
    return client


def send(client: Client, body: Any, **headers: str) -> Any:
    text = body if isinstance(body, bytes | str) else json.dumps(body)
    return client.post("/api/alert", text, content_type="application/json", headers=headers)


def test_a_report_is_stored_with_its_own_type_and_told(web: Client) -> None:
    more = {"anomaly_type": "burglar", "anomaly_score": 0.97, "message": "Door open"}
    answer = send(web, GOOD | more)
    assert answer.status_code == 201
    result = answer.json()
    assert (result["origin"], result["anomaly_type"]) == ("manual", "burglar")
    assert (result["severity"], result["timestamp"]) == ("critical", "2024-01-01T12:00:00Z")
    row = Outbox.objects.get()
    assert (row.kind, row.sequence, row.payload) == ("manual", 0, result)


def test_a_repeated_key_meets_the_same_row(web: Client) -> None:
    first = send(web, GOOD, **{"Idempotency-Key": "k1"})
    again = send(web, GOOD | {"value": 5}, **{"Idempotency-Key": "k1"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert send(web, GOOD, **{"Idempotency-Key": "k2"}).status_code == 201
    assert Anomaly.objects.count() == Outbox.objects.count() == 2


def test_a_known_series_is_linked(web: Client) -> None:
    series = builders.series("door-1", "open_s")
    send(web, GOOD)
    assert Anomaly.objects.get().series == series


@pytest.mark.parametrize(
    ("field", "value"),
    [("source", None), ("source", ""), ("source", 5), ("source", "a\x00"), ("source", "x" * 256),
     ("source", "\ud800"), ("metric", []), ("value", None), ("value", "85"), ("value", True),
     ("value", float("nan")), ("value", float("inf")), ("value", 10**400), ("timestamp", None),
     ("timestamp", "2024-01-01T12:00:00"), ("timestamp", "soon"), ("timestamp", {}),
     ("timestamp", 10**40), ("timestamp", float("nan")), ("timestamp", True),
     ("timestamp", "9999-12-31T23:59:59-14:00"), ("anomaly_score", 1.1), ("anomaly_score", "x"),
     ("severity", "worst"), ("severity", 4), ("anomaly_type", "x" * 41), ("message", 5),
     ("colour", "red")],
)  # fmt: skip
def test_a_bad_field_is_named(web: Client, field: str, value: Any) -> None:
    answer = send(web, GOOD | {field: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == field
    assert answer.json()["error"]["allowed"]
    assert not Anomaly.objects.exists()


@pytest.mark.parametrize(
    "body",
    [" ", "{", "[]", "5", "null", '"x"', b"\xff\xfe", "[" * 20_000, '{"value": 1e999}', "{}"],
)
def test_a_bad_body_is_a_400(web: Client, body: str | bytes) -> None:
    assert send(web, body).status_code == 400


@pytest.mark.parametrize("value", [1_704_110_400, 1_704_110_400_000, 1_704_110_400e6,
                                   1_704_110_400 * 10**9])  # fmt: skip
def test_epochs_of_any_unit_are_read(web: Client, value: float) -> None:
    assert send(web, GOOD | {"timestamp": value}).json()["timestamp"] == "2024-01-01T12:00:00Z"


def test_other_types_sizes_and_methods_are_refused(web: Client) -> None:
    assert web.post("/api/alert", GOOD).status_code == 415
    assert send(web, GOOD | {"message": "x" * 70_000}).status_code == 413
    assert send(web, GOOD, **{"Idempotency-Key": "k" * 300}).status_code == 400
    assert web.get("/api/alert").status_code == 405
    assert send(web, GOOD, origin="http://evil.example").status_code == 403


def test_a_session_needs_the_csrf_token() -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(builders.user())
    assert send(strict, GOOD, **{"x-forwarded-for": "10.0.0.1"}).status_code == 403
