"""The JSON API: what it answers, whom it lets in, and that no input makes it fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client
from pydantic import SecretStr
from pytest_django import Settings

from anomalies import health
from tests import builders

pytestmark = pytest.mark.django_db
BAD = ["", "0", "-1", "1001", "1e3", "ten", "5.5", "٣", "9" * 40, "1;drop", "%00", "null"]


@pytest.fixture
def closed(settings: Settings) -> None:
    """Open mode off, as in production."""
    api = settings.VIGIL.api.model_copy(update={"open": False})
    settings.VIGIL = settings.VIGIL.model_copy(update={"api": api})


@pytest.fixture
def opened(settings: Settings) -> Client:
    api = settings.VIGIL.api.model_copy(update={"open": True})
    settings.VIGIL = settings.VIGIL.model_copy(update={"api": api})
    return Client(headers={"host": "127.0.0.1:8000"})


def test_anomalies_come_newest_first_and_page_by_page(web: Client) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    made = [builders.anomaly(at=start + timedelta(minutes=i // 2)) for i in range(7)]
    seen: list[str] = []
    cursor = ""
    for _ in range(4):
        body = web.get("/api/anomalies", {"limit": "2", "cursor": cursor}).json()
        seen += [a["id"] for a in body["anomalies"]]
        cursor = body["next"] or ""
    expected = sorted(made, key=lambda a: (a.onset_at, a.pk), reverse=True)
    assert seen == [str(a.pk) for a in expected]
    assert cursor == ""


def test_a_result_has_the_documented_fields(web: Client) -> None:
    builders.anomaly(builders.series())
    (result,) = web.get("/api/anomalies").json()["anomalies"]
    assert {
        "source", "metric", "value", "timestamp", "is_anomaly", "anomaly_score", "anomaly_type",
        "id", "state", "severity", "expected", "detectors", "explanation", "model_version",
        "stream", "partition", "offset", "origin",
    } <= set(result)  # fmt: skip
    assert result["expected"] == {"low": 181.0, "mid": 242.0, "high": 312.0}
    assert result["model_version"] == "isolation_forest v3"


@pytest.mark.parametrize("limit", BAD)
def test_a_bad_limit_is_a_clear_400(web: Client, limit: str) -> None:
    answer = web.get("/api/anomalies", {"limit": limit})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["field"] == "limit"
    assert error["allowed"] == "a whole number from 1 to 1000"


@pytest.mark.parametrize(
    ("field", "text"),
    [("severity", "worse"), ("state", "x"), ("label", "x"), ("min_score", "nan"),
     ("min_score", "2"), ("since", "yesterday"), ("until", "2024-01-01T00:00:00"),
     ("until", "2024-02-30T00:00:00Z"), ("cursor", "!!"), ("cursor", "YWJj"), ("source", "a\x00b"),
     ("metric", "x" * 300)],
)  # fmt: skip
def test_a_bad_filter_is_a_400_that_names_it(web: Client, field: str, text: str) -> None:
    answer = web.get("/api/anomalies", {field: text})
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == field


@pytest.mark.parametrize("source", ["web-03", "a/b/c", "ä ö?&=#%", "…/../x", "a%2Fb", "anomalies"])
def test_a_source_may_hold_any_character(web: Client, source: str) -> None:
    builders.anomaly(source=source)
    builders.anomaly(source="other")
    answer = web.get(f"/api/anomalies/{quote(source, safe='')}?limit=5")
    assert [a["source"] for a in answer.json()["anomalies"]] == [source]


def test_filters_narrow(web: Client) -> None:
    builders.anomaly(score=0.81)
    critical = builders.anomaly(score=0.97, label="real", metric="mem")
    for query in ({"severity": "high"}, {"metric": "mem"}, {"label": "real"}, {"min_score": "0.9"}):
        found = web.get("/api/anomalies", query).json()["anomalies"]
        assert [a["id"] for a in found] == [str(critical.pk)], query


def test_statistics_count_what_is_stored(web: Client) -> None:
    builders.offsets(2)
    builders.consumer()
    builders.anomaly(builders.series(events=1_000))
    builders.model()
    body = web.get("/api/statistics").json()
    assert body["totals"]["events"] == 17_800_000
    assert body["totals"]["anomalies"] == 1
    assert body["rates"]["events_per_s"] == 412.0
    assert body["latency_p95_ms"] == 184.0
    assert body["by_source"][0] == body["by_source"][0] | {"source": "web-03", "anomalies": 1,
                                                           "anomaly_rate": 0.001}  # fmt: skip
    assert body["models"][0]["metrics"] == {"onsets_per_10k": 2.1}


def test_statistics_of_an_empty_system(web: Client) -> None:
    body = web.get("/api/statistics").json()
    assert body["totals"]["events"] == 0
    assert body["rates"]["anomaly_rate"] is None


@pytest.mark.django_db(transaction=True)
def test_health_is_503_without_a_consumer_and_200_with_one(web: Client) -> None:
    answer = web.get("/api/health")
    assert answer.status_code == 503
    parts = answer.json()["components"]
    assert {name: parts[name]["state"] for name in ("kafka", "postgresql", "valkey")}
    assert parts["postgresql"]["state"] == parts["valkey"]["state"] == "ok"
    assert parts["consumers"]["state"] == "down"
    builders.consumer()
    health.forget()
    assert web.get("/api/health").status_code == 200


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("path", ["/api/anomalies", "/api/statistics", "/api/health"])
def test_strangers_are_refused_where_the_api_is_closed(path: str) -> None:
    assert Client().get(path).status_code == 401
    wrong = Client(headers={"authorization": "Bearer guess"})
    assert wrong.get(path).status_code == 401


@pytest.mark.usefixtures("closed")
def test_the_configured_token_lets_in(settings: Settings) -> None:
    api = settings.VIGIL.api.model_copy(update={"token": SecretStr("let-me-in")})
    settings.VIGIL = settings.VIGIL.model_copy(update={"api": api})
    right = Client(headers={"authorization": "Bearer let-me-in"})
    assert right.get("/api/anomalies").status_code == 200
    for header in ("Bearer let-me-i", "Bearer ", "Basic let-me-in"):
        assert Client(headers={"authorization": header}).get("/api/anomalies").status_code == 401
    assert "let-me-in" not in repr(settings.VIGIL)


def test_open_mode_lets_this_machine_in(opened: Client) -> None:
    assert opened.get("/api/anomalies").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"host": "evil.example"}, {"x-forwarded-for": "1.2.3.4"},
     {"sec-fetch-site": "cross-site"}, {"origin": "null"}],
)  # fmt: skip
def test_open_mode_refuses_what_other_sites_could_send(
    opened: Client, headers: dict[str, Any], settings: Settings
) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    answer = opened.get("/api/anomalies", headers={"host": "127.0.0.1:8000"} | headers)
    assert answer.status_code == 401


def test_open_mode_refuses_other_machines(opened: Client) -> None:
    assert opened.get("/api/anomalies", REMOTE_ADDR="10.1.2.3").status_code == 401


def test_other_methods_are_refused(web: Client) -> None:
    answer = web.delete("/api/anomalies")
    assert answer.status_code == 405
    assert answer["Allow"] == "GET, HEAD"
