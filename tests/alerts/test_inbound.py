"""Alerts of an Alertmanager among Vigil's own: taken once, ended, told, and never in a circle."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from alerts import inbound, rules
from alerts.delivery import Deliverer
from alerts.evaluator import Evaluator
from alerts.models import InboundAlert, InboundSource, Incident, Notification, Rule, TimelineEntry
from alerts.outgoing import Client as Outgoing
from alerts.outgoing import Guard
from alerts.spec import RuleSpec
from anomalies.models import Anomaly, Outbox
from streams.models import AuditEntry
from tests.alerts import rows, scene
from tests.alerts.alertmanager_server import alerts, fire, serving
from tests.integration.harness import await_until

PATH = "/api/alertmanager"
NOW = datetime(2026, 11, 23, 9, 38, tzinfo=UTC)


def alert(**more: Any) -> dict[str, Any]:
    """As Alertmanager sends it."""
    return {
        "status": "firing", "fingerprint": "a1b2c3d4e5f60718",
        "labels": {"alertname": "KafkaLag", "instance": "kafka-1", "severity": "critical"},
        "annotations": {"summary": "Lag grows", "description": "12,000 messages wait."},
        "startsAt": NOW.isoformat(), "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
    } | more  # fmt: skip


def message(*given: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0, "status": "firing",
            "receiver": "vigil", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
            "externalURL": "http://am", "alerts": list(given)} | more  # fmt: skip


@pytest.fixture
def source(db: None) -> tuple[InboundSource, str]:
    row = InboundSource(name="prod")
    token = inbound.new_token(row)
    row.save()
    inbound.ensure_rule()
    return row, token


def send(token: str, body: Any, **headers: str) -> Any:
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    given = {"Authorization": f"Bearer {token}"} | headers
    return Client().post(PATH, text, content_type="application/json", headers=given)


def over(**more: Any) -> dict[str, Any]:
    return alert(status="resolved", endsAt=(NOW + timedelta(minutes=5)).isoformat(), **more)


def test_an_alert_is_an_incident_until_it_ends(source: tuple[InboundSource, str]) -> None:
    token = source[1]
    evaluator = Evaluator("e")
    assert send(token, message(alert())).json()["new"] == 1
    evaluator.step()
    incident = Incident.objects.get()
    assert (incident.origin, incident.state, incident.severity) == ("alertmanager", "open", 4)
    assert incident.title == "Alert of KafkaLag on kafka-1"
    assert incident.group == "metric:alertmanager:prod/KafkaLag"
    anomaly = Anomaly.objects.get()
    assert anomaly.message == "Lag grows\n12,000 messages wait."
    assert incident.rule == Rule.objects.get(name="Alertmanager")

    assert send(token, message(over())).json()["resolved"] == 1
    evaluator.step()
    incident.refresh_from_db()
    anomaly.refresh_from_db()
    assert incident.state == "resolved"
    assert (anomaly.state, anomaly.end_at) == ("closed", NOW + timedelta(minutes=5))


def test_repeats_meet_the_same_row_whatever_comes_first(source: tuple[InboundSource, str]) -> None:
    token = source[1]
    other = alert(fingerprint="ff", labels={"alertname": "Disk", "severity": "info"})
    assert send(token, message(alert(), other)).json()["new"] == 2
    again = alert(annotations={"summary": "Lag grows still"})
    assert send(token, message(again, other, alert())).json() == {
        "new": 0, "resolved": 0, "repeated": 3, "unknown": 0, "own": 0, "truncated": 0,
    }  # fmt: skip
    assert Anomaly.objects.count() == InboundAlert.objects.count() == Outbox.objects.count() == 2
    assert send(token, message(over())).json()["resolved"] == 1
    # Ended twice, and a belated "firing" of the same beginning: nothing more.
    assert send(token, message(over(), alert())).json()["repeated"] == 2
    assert send(token, message(over(fingerprint="abc"))).json()["unknown"] == 1
    # It begins anew: another beginning.
    later = alert(startsAt=(NOW + timedelta(hours=1)).isoformat())
    assert send(token, message(later)).json()["new"] == 1
    assert Anomaly.objects.filter(state="open").count() == 2


def test_rules_take_alerts_only_where_they_name_them(source: tuple[InboundSource, str]) -> None:
    scene.rule("everything of ours")
    scene.rule("by name", match={"streams": ["alertmanager:prod"], "min_severity": "high"})
    scene.rule("of another", match={"streams": ["alertmanager:test"]})
    send(source[1], message(alert()))
    Evaluator("e").step()
    made = set(Incident.objects.values_list("rule__name", flat=True))
    assert made == {"Alertmanager", "by name"}


def test_only_who_knows_a_token_is_let_in(
    source: tuple[InboundSource, str], admin_client: Client
) -> None:
    row, token = source
    body = json.dumps(message(alert()))
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Bearer \u00e9"},
                    {"Authorization": f"Basic {token}"}):  # fmt: skip
        # A session is not enough: a browser would send it along.
        answer = admin_client.post(PATH, body, content_type="application/json", headers=headers)
        assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
    assert Client().get(PATH).status_code == 405
    row.enabled = False
    row.save()
    assert send(token, body).status_code == 401
    assert not Anomaly.objects.exists()


BAD: list[tuple[Any, int, str]] = [
    (b"\xff\xfe", 400, "body"), ("[" * 100_000, 400, "body"), ("[]", 400, "body"),
    ("null", 400, "body"), ("{}", 400, "version"),
    (message(version="3"), 400, "version"), (message(alerts="x"), 400, "alerts"),
    (message(alerts=[1]), 400, "alerts.0"), (message(alert(status="odd")), 400, "alerts.0.status"),
    (message(alert(startsAt="yesterday")), 400, "alerts.0.startsAt"),
    (message(alert(startsAt="2026-01-01T00:00:00")), 400, "alerts.0.startsAt"),
    (message(alert(startsAt="0001-01-01T00:00:00Z")), 400, "alerts.0.startsAt"),
    (message(alert(endsAt=[])), 400, "alerts.0.endsAt"),
    (message(alert(fingerprint="xyz")), 400, "alerts.0.fingerprint"),
    (message(alert(fingerprint="")), 400, "alerts.0.fingerprint"),
    (message(alert(labels=None)), 400, "alerts.0.labels"),
    (message(alert(labels={"a": 1})), 400, "alerts.0.labels.a"),
    (message(alert(labels={"a": "\x00"})), 400, "alerts.0.labels.a"),
    (message(alert(), truncatedAlerts=-1), 400, "truncatedAlerts"),
    ('{"version": "4", "alerts": [{"status": "firing", "fingerprint": "a", "startsAt":'
     ' "2026-01-01T00:00:00Z", "labels": {"a": "\\ud800"}}]}', 400, "alerts.0.labels.a"),
    (message(*[alert()] * 2_001), 400, "alerts"), (b" " * 2_000_001, 413, "body"),
    (b" " * 3_000_000, 413, "body"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "field"), BAD)
def test_a_bad_body_is_refused_with_its_place(
    source: tuple[InboundSource, str], body: Any, status: int, field: str
) -> None:
    answer = send(source[1], body)
    assert (answer.status_code, answer.json()["error"]["field"]) == (status, field)
    assert answer.json()["error"]["allowed"]
    assert not Anomaly.objects.exists()


def test_what_nobody_would_send_is_no_error(source: tuple[InboundSource, str]) -> None:
    """Anything between a good body and garbage: never a 500."""
    good = message(alert(), over())
    junk: list[Any] = [None, 0, -1, 1e400, "", "x" * 20_000, [], {}, True, "\u202e", "4"]
    for name in good:
        for value in junk:
            assert send(source[1], good | {name: value}).status_code in (200, 400), (name, value)
    for name in good["alerts"][0]:
        for value in junk:
            body = copy.deepcopy(good)
            body["alerts"][0][name] = value
            assert send(source[1], body).status_code in (200, 400), (name, value)


def test_a_source_is_made_on_its_page_and_its_token_is_shown_once(operator: Client) -> None:
    answer = operator.post("/alerts/inbound/new", {"name": "prod"})
    page = answer.content.decode()
    row = InboundSource.objects.get()
    token = page.split('<pre class="code">vigil_')[1].split("<")[0]
    assert send(f"vigil_{token}", message(alert())).status_code == 200
    path = f"/alerts/inbound/{row.pk}/"
    assert token not in operator.get(path).content.decode()
    assert token not in str(list(AuditEntry.objects.values_list("before", "after")))
    assert row.token_hash not in str(list(AuditEntry.objects.values_list("before", "after")))
    assert "KafkaLag" in operator.get(path).content.decode()
    assert operator.get("/alerts/inbound/").status_code == 200

    renewed = operator.post(f"{path}renew").content.decode()
    assert "shown this once" in renewed
    assert send(f"vigil_{token}", message(alert())).status_code == 401
    for bad in ("", "a b", "prod", "x" * 61, "ä"):
        assert operator.post("/alerts/inbound/new", {"name": bad}).status_code == 400
    operator.post(f"{path}off")
    row.refresh_from_db()
    assert not row.enabled
    assert operator.post(f"{path}nonsense").status_code == 404
    operator.post(f"{path}delete")
    assert not InboundSource.objects.exists()
    assert Anomaly.objects.exists()


def test_viewers_make_no_source(viewer: Client) -> None:
    assert viewer.get("/alerts/inbound/").status_code == 200
    assert viewer.post("/alerts/inbound/new", {"name": "prod"}).status_code == 403


CONFIG = """
route: {{receiver: vigil, group_by: [alertname], group_wait: 0s, group_interval: 1s,
         repeat_interval: 1s}}
receivers:
- name: vigil
  webhook_configs:
  - url: {url}/api/alertmanager
    send_resolved: true
    http_config: {{authorization: {{credentials: {token}}}}}
"""


@pytest.mark.django_db(transaction=True)
def test_debians_alertmanager_sends_here_and_nothing_goes_in_circles(
    live_server: Any, tmp_path: Path
) -> None:
    row = InboundSource(name="prod")
    token = inbound.new_token(row)
    row.save()
    inbound.ensure_rule()
    config = CONFIG.format(url=live_server.url, token=token)
    guard = Guard.of(["127.0.0.0/8"])
    with serving(tmp_path, config) as url:
        rows.receiver("AM", kind="alertmanager", settings={"url": url}, secrets="")
        rule = Rule.objects.get(name="Alertmanager")
        told = RuleSpec.read(rule.live.spec).model_copy(  # type: ignore[union-attr]
            update={"send": RuleSpec.read({"send": [{"receiver": "AM"}]}).send}
        )
        rules.make_live(rule, told, "anna")
        scene.rule("ours", match={"streams": ["shop"]}, send=[{"receiver": "AM"}])

        starts = timezone.now() - timedelta(minutes=1)
        fire(url, labels={"alertname": "KafkaLag", "instance": "kafka-1"},
             annotations={"summary": "Lag grows"}, startsAt=starts.isoformat())  # fmt: skip
        scene.anomaly(0, "web-1")
        scene.watermark(100)
        evaluator = Evaluator("e")
        deliverer = Deliverer("d", Outgoing(guard))

        def rounds() -> bool:
            evaluator.step()
            deliverer.drain()
            row.refresh_from_db()
            return Incident.objects.count() >= 2 and row.own >= 3

        # Ours was told to it, and came back again and again: it stays one incident.
        await_until(rounds, 60, 0.2)
        assert sorted(Incident.objects.values_list("origin", flat=True)) == [
            "alertmanager", "vigil",
        ]  # fmt: skip
        assert {a["labels"]["alertname"] for a in alerts(url)} == {"KafkaLag", "ours"}
        assert InboundAlert.objects.count() == 1
        foreign = Incident.objects.get(origin="alertmanager")
        # What came from an Alertmanager is not sent to one.
        assert not Notification.objects.filter(incident=foreign).exists()
        held = TimelineEntry.objects.filter(incident=foreign, kind="held").first()
        assert held is not None
        assert "in circles" in held.text

        fire(url, labels={"alertname": "KafkaLag", "instance": "kafka-1"},
             startsAt=starts.isoformat(), endsAt=timezone.now().isoformat())  # fmt: skip

        def ended() -> bool:
            evaluator.step()
            return Incident.objects.get(pk=foreign.pk).state == "resolved"

        await_until(ended, 60, 0.2)
        assert Incident.objects.count() == 2
