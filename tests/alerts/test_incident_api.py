"""The API of incidents: what it answers, what it does, and that no input makes it fail."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from alerts.models import Incident
from tests import builders
from tests.alerts import scene
from tests.alerts.scene import second

pytestmark = pytest.mark.django_db


def listed(client: Client, **query: str) -> list[int]:
    answer = client.get("/api/incidents", query)
    assert answer.status_code == 200, answer.content
    return [i["number"] for i in answer.json()["incidents"]]


def post(client: Client, number: int, action: str, body: Any = None) -> Any:
    text = json.dumps({} if body is None else body)
    return client.post(f"/api/incidents/{number}/{action}", text, content_type="application/json")


def test_incidents_come_newest_first_and_page_by_page(viewer: Client) -> None:
    made = [scene.incident(i // 2, key=uuid.uuid4(), members=0).pk for i in range(7)]
    seen: list[int] = []
    cursor = ""
    for _ in range(4):
        body = viewer.get("/api/incidents", {"limit": "2", "cursor": cursor}).json()
        seen += [i["number"] for i in body["incidents"]]
        cursor = body["next"] or ""

    assert seen == sorted(made, reverse=True)
    assert cursor == ""


def test_filters(viewer: Client) -> None:
    user = builders.user("bert")
    a = scene.incident(1, severity=4).pk
    b = scene.incident(2, state="acknowledged", assignee=user, label="real").pk
    c = scene.incident(3, state="resolved", group="source:iot/pump", sources=["pump"]).pk

    assert listed(viewer) == [c, b, a]
    for query, expected in (
        ({"state": "active"}, [b, a]), ({"state": "resolved"}, [c]),
        ({"severity": "critical"}, [a]),
        ({"rule": "all"}, [c, b, a]), ({"rule": "other"}, []), ({"source": "web-2"}, [b]),
        ({"source": "pump"}, [c]), ({"stream": "iot"}, [c]), ({"stream": "i.t"}, []),
        ({"assignee": "bert"}, [b]), ({"assignee": "none"}, [c, a]), ({"label": "real"}, [b]),
        ({"label": "none"}, [c, a]), ({"since": second(2).isoformat()}, [c, b]),
        ({"until": second(2).isoformat()}, [a]),
    ):  # fmt: skip
        assert listed(viewer, **query) == expected, query


def test_one_incident_tells_everything(viewer: Client) -> None:
    one = scene.incident(members=2)
    body = viewer.get(f"/api/incidents/{one.pk}").json()

    assert (body["id"], body["state"], body["severity"]) == (str(one.key), "open", "high")
    assert (body["rule"], body["rule_version"], body["stream"]) == ("all", 1, "shop")
    assert [e["kind"] for e in body["timeline"]] == ["opened"]
    assert len(body["members"]) == 2
    assert body["notifications"] == []


def test_actions(operator: Client) -> None:
    one, other = scene.incident(1), scene.incident(2)
    builders.user("bert")
    until = (timezone.now() + timedelta(hours=2)).isoformat()
    for action, body, field, value in (
        ("acknowledge", None, "acknowledged_by", "olga"),
        ("assign", {"to": "bert"}, "assignee", "bert"),
        ("assign", {"to": None}, "assignee", None),
        ("comment", {"text": "hm"}, "state", "acknowledged"),
        ("snooze", {"until": until}, "snoozed_until", until.replace("+00:00", "Z")),
        ("snooze", {"until": None}, "snoozed_until", None),
        ("label", {"label": "real"}, "label", "real"),
        ("label", {"label": None}, "label", None),
        ("resolve", None, "state", "resolved"),
        ("reopen", None, "state", "open"),
        ("merge", {"into": other.pk}, "merged_into", other.pk),
    ):
        answer = post(operator, one.pk, action, body)
        assert answer.status_code == 200, (action, answer.content)
        assert answer.json()[field] == value, action
    assert post(operator, other.pk, "snooze", {"until": 30}).json()["snoozed_until"] is not None
    assert post(operator, one.pk, "acknowledge").status_code == 409


@pytest.mark.parametrize(
    ("action", "body", "status", "field"),
    [
        ("dance", {}, 404, "action"),
        ("assign", {}, 400, "to"),
        ("assign", {"to": "nobody-of-this-name"}, 400, "to"),
        ("assign", {"to": ["x", "\x00"]}, 400, "to"),
        ("comment", {"text": ""}, 400, "text"),
        ("comment", {"text": 5}, 400, "text"),
        ("comment", {"text": "a\x00b"}, 400, "text"),
        ("comment", {"text": "x", "more": 1}, 400, "more"),
        ("snooze", {"until": "tomorrow"}, 400, "until"),
        ("snooze", {"until": ""}, 400, "until"),
        ("snooze", {"until": -5}, 400, "until"),
        ("snooze", {"until": 1e300}, 400, "until"),
        ("snooze", {"until": "2020-01-01T00:00:00Z"}, 400, "until"),
        ("label", {"label": "odd"}, 400, "label"),
        ("label", {"label": {}}, 400, "label"),
        ("merge", {"into": "7"}, 400, "into"),
        ("merge", {"into": 10**30}, 400, "into"),
        ("merge", {"into": True}, 400, "into"),
        ("resolve", [], 400, "body"),
    ],
)
def test_bad_input_is_told_with_its_field(
    operator: Client, action: str, body: Any, status: int, field: str
) -> None:
    answer = post(operator, scene.incident().pk, action, body)

    assert answer.status_code == status, answer.content
    assert answer.json()["error"]["field"] == field
    assert answer.json()["error"]["message"]


def test_bad_queries(viewer: Client) -> None:
    odd = ["-1", "x", "%00", "\x00", "9" * 40, "a|b", "null"]
    for name in ("limit", "cursor", "state", "severity", "label", "since", "until"):
        for text in odd:
            answer = viewer.get("/api/incidents", {name: text})
            assert answer.status_code == 400, (name, text)
            assert answer.json()["error"]["field"] == name
    for name in ("rule", "source", "stream", "assignee"):
        for text in odd:
            assert viewer.get("/api/incidents", {name: text}).status_code in (200, 400)


def test_what_is_not_there_and_who_may_not(viewer: Client, operator: Client) -> None:
    one = scene.incident()
    assert viewer.get("/api/incidents/999999").status_code == 404
    assert viewer.get(f"/api/incidents/{10**40}").status_code == 404
    assert post(operator, 999_999, "resolve").status_code == 404
    assert post(viewer, one.pk, "resolve").status_code == 403
    assert operator.post(f"/api/incidents/{one.pk}/resolve", {"a": "b"}).status_code == 415
    assert operator.get(f"/api/incidents/{one.pk}/resolve").status_code == 405
    long = operator.post(f"/api/incidents/{one.pk}/comment", b"x" * 20_000,
                         content_type="application/json")  # fmt: skip
    assert long.status_code == 413
    assert Incident.objects.get().state == "open"
