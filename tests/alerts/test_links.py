"""One-click links: shown by GET, done by POST, for one incident, for a while, and not too often."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from alerts import link_views, links
from tests.alerts import rows

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh() -> None:
    cache.clear()


def test_looking_changes_nothing_and_posting_acts_once(client: Client) -> None:
    one = rows.incident()
    path = f"/act/{links.token(one.pk, 'ack')}"
    for _ in range(3):
        for answer in (client.get(path), client.head(path)):
            assert answer.status_code == 200
            assert answer.headers["Referrer-Policy"] == "no-referrer"
    one.refresh_from_db()
    assert one.state == "open"
    for _ in range(2):
        assert client.post(path).status_code == 200
    one.refresh_from_db()
    assert one.state == "acknowledged"
    assert one.timeline.filter(kind="acknowledged").count() == 1


def test_a_scanner_without_the_page_cannot_post() -> None:
    path = f"/act/{links.token(rows.incident().pk, 'ack')}"
    assert Client(enforce_csrf_checks=True).post(path).status_code == 403


def test_feedback_labels_that_incident_only(client: Client) -> None:
    one, other = rows.incident(), rows.incident()
    client.post(f"/act/{links.token(one.pk, 'false')}")
    one.refresh_from_db()
    other.refresh_from_db()
    assert (one.label, other.label) == ("false_alarm", "")


def test_a_changed_an_old_and_a_foreign_link_are_refused(client: Client, settings: Any) -> None:
    one = rows.incident()
    good = links.token(one.pk, "ack")
    for bad in (good[:-2] + "xx", "nonsense", "a:b:c", links.token(one.pk, "drop")):
        assert client.post(f"/act/{bad}").status_code == 400
    assert client.post(f"/act/{links.token(10**9, 'ack')}").status_code == 404
    one.refresh_from_db()
    assert one.state == "open"
    given = settings.VIGIL.alerts.model_copy(update={"link_hours": -1.0})
    settings.VIGIL = settings.VIGIL.model_copy(update={"alerts": given})
    assert "too old" in client.post(f"/act/{good}").text


def test_an_incident_that_is_over_says_so(client: Client) -> None:
    one = rows.incident(state="resolved")
    assert client.post(f"/act/{links.token(one.pk, 'ack')}").status_code == 409


def test_too_many_are_too_many(client: Client) -> None:
    path = f"/act/{links.token(rows.incident().pk, 'ack')}"
    found = [client.get(path).status_code for _ in range(link_views.PER_MINUTE + 2)]
    assert found[: link_views.PER_MINUTE] == [200] * link_views.PER_MINUTE
    assert found[-1] == 429
