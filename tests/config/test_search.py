"""Search: what is found by which words, for whom, and how little it asks."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from alerts.models import Incident, Receiver, Rule
from config import search
from tests import builders

pytestmark = pytest.mark.django_db


def names(text: str, *, operator: bool = True) -> dict[str, list[str]]:
    user = builders.user(f"u{search.asked(text).text[:8]}{operator}"[:20], is_staff=operator)
    found = {group.name: [hit.name for hit in group.hits] for group in search.find(text, user)}
    user.delete()
    return found


def test_each_kind_is_found_by_what_people_call_it() -> None:
    now = timezone.now()
    checkout = builders.series("checkout-eu", "payment_latency_ms", stream=builders.stream("shop"))
    builders.series("checkout-us", "orders")
    old = builders.anomaly(checkout, at=now - timedelta(days=3), id=UUID("5f0e9a53" + "0" * 24))
    builders.anomaly(checkout, at=now)
    builders.model()
    incident = Incident.objects.create(
        key=old.pk, group="g", title="Checkout slow in EU", severity=4, first_at=now, last_at=now,
        opened_at=now,
    )  # fmt: skip
    Rule.objects.create(name="Checkout paging")
    Receiver.objects.create(name="On call", kind="pagerduty")
    found = names("checkout")
    assert found["Incidents"] == ["Checkout slow in EU"]
    assert found["Series"] == ["payment_latency_ms on checkout-eu", "orders on checkout-us"]
    assert found["Newest anomalies"] == ["payment_latency_ms on checkout-eu"] * 2
    assert found["Sources"] == ["checkout-eu", "checkout-us"]
    assert found["Alert rules"] == ["Checkout paging"]
    assert names("EU Latency")["Series"] == ["payment_latency_ms on checkout-eu"]
    assert names("order")["Metrics"] == ["orders"]
    assert names("pagerduty") == {"Receivers": ["On call"], "Pages": ["Receivers"]}
    assert names("isolation champion")["Models"] == ["Isolation forest v3"]
    assert names("shop")["Streams"] == ["shop"]
    for text in (f"INC-{incident.pk}", f"inc-{incident.pk}", str(incident.pk)):
        assert "Checkout slow in EU" in names(text)["Incidents"], text
    for text in (str(old.pk), "5f0e9a53", "5F0E9A53-0000"):
        assert names(text)["Anomalies"] == ["payment_latency_ms on checkout-eu"], text
    assert names("dead letters")["Pages"] == ["Streams"]
    for text in ("", " ", "\x00", "%", "_", "nobody-is-called-so"):
        assert names(text) == {} or text in "%_", text


def test_what_is_for_operators_is_found_by_them_alone() -> None:
    assert "Administration" in names("admin")["Pages"]
    assert names("admin", operator=False) == {}


def test_it_answers_as_a_page_and_as_a_part_and_asks_little(client: Client) -> None:
    client.force_login(builders.user())
    builders.world()
    with CaptureQueriesContext(connection) as asked:
        page = client.get("/search/?q=pump").content.decode()
    assert len(asked) <= 17
    assert "vibration on pump-07" in page
    part = client.get("/search/?q=pump", headers={"hx-request": "true"}).content.decode()
    assert 'role="option"' in part
    assert "<html" not in part
    nothing = client.get("/search/?q=<script>").content.decode()
    assert "Nothing is called “&lt;script&gt;”" in nothing
    assert Client().get("/search/?q=x").status_code == 302
