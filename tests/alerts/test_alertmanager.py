"""Against Debian's own Alertmanager: an incident is one alert there, and ends when it ends."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from alerts.outgoing import Client, Guard
from alerts.receivers import KINDS
from tests.alerts.alertmanager_server import alerts, serving
from tests.alerts.test_receivers import message


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("alertmanager")) as url:
        yield url


def test_an_incident_is_one_alert_until_it_is_over(alertmanager: str) -> None:
    kind, client = KINDS["alertmanager"], Client(Guard.of(["127.0.0.0/8"]))
    thread, settings = str(uuid.uuid4()), {"url": alertmanager, "labels": "team=payments"}
    for reason in ("opened", "worse", "reminder"):
        result = kind.send(message(thread=thread, reason=reason), settings, {}, client)
        assert result.outcome == "ok", result
    (alert,) = alerts(alertmanager)
    assert alert["labels"] == {"alertname": "Checkout paging", "incident": thread,
                               "stream": "webshop", "job": "vigil", "team": "payments"}  # fmt: skip
    assert alert["status"]["state"] == "active"
    assert alert["generatorURL"] == "https://vigil.example/incidents/7"
    over = message(thread=thread, reason="resolved")
    assert kind.send(over, settings, {}, client).outcome == "ok"
    assert alerts(alertmanager) == []
