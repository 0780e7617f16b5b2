"""The pages of incidents: filters in the URL, keyset pages, actions, and few queries."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from alerts.models import Incident
from tests import builders
from tests.alerts import scene

pytestmark = pytest.mark.django_db
ODD = ["", "x", "-1", "9" * 30, "%00", "\x00", "ä", "a|b"]


def numbers(page: bytes) -> list[int]:
    return [int(n) for n in re.findall(r'class="cover[^>]*href="/incidents/(\d+)/"', page.decode())]


def test_the_list_shows_what_is_open_and_narrows_as_its_url_says(viewer: Client) -> None:
    a, b = scene.incident(1, severity=4).pk, scene.incident(2, state="acknowledged").pk
    c = scene.incident(3, state="resolved").pk

    assert numbers(viewer.get("/incidents/").content) == [b, a]
    assert numbers(viewer.get("/incidents/?state=all").content) == [c, b, a]
    assert numbers(viewer.get("/incidents/?severity=4").content) == [a]
    assert numbers(viewer.get("/incidents/?source=web-2").content) == [b]
    part = viewer.get("/incidents/", headers={"hx-request": "true"}).content
    assert b"<html" not in part
    assert numbers(part) == [b, a]


def test_pages_of_the_list_lead_to_each_other(viewer: Client) -> None:
    made = [scene.incident(i, members=0).pk for i in range(60)][::-1]
    first = viewer.get("/incidents/").content
    older = re.search(r'href="\?([^"]*before=[^"]*)"', first.decode())
    assert older is not None
    second = viewer.get("/incidents/?" + older.group(1)).content

    assert numbers(first) + numbers(second) == made
    newer = re.search(r'href="\?([^"]*after=[^"]*)"', second.decode())
    assert newer is not None
    assert numbers(viewer.get("/incidents/?" + newer.group(1)).content) == made[:50]


@pytest.mark.parametrize("name", ["state", "severity", "rule", "source", "stream", "assignee",
                                  "label", "range", "before", "after"])  # fmt: skip
def test_odd_filters_are_left_out(viewer: Client, name: str) -> None:
    scene.incident()
    for text in ODD:
        assert viewer.get("/incidents/", {name: text}).status_code == 200, text


def test_each_page_asks_little(viewer: Client) -> None:
    builders.world()
    one = scene.incident(members=30)
    for path in ("/incidents/", f"/incidents/{one.pk}/", "/"):
        with CaptureQueriesContext(connection) as asked:
            answer = viewer.get(path)
        assert answer.status_code == 200
        assert len(asked) <= 17, (path, len(asked), [q["sql"][:90] for q in asked])
        assert b" style=" not in answer.content
        assert b"<script>" not in answer.content


def test_the_detail_tells_and_an_operator_acts(operator: Client) -> None:
    one = scene.incident(members=2)
    page = operator.get(f"/incidents/{one.pk}/").content.decode()
    assert "It began." in page
    assert "Acknowledge" in page
    for action, value in (("acknowledge", ""), ("comment", "<b>odd</b>"), ("assign", "olga"),
                          ("snooze", "60"), ("label", "real"), ("resolve", "")):  # fmt: skip
        answer = operator.post(f"/incidents/{one.pk}/{action}/", {"value": value})
        assert answer.status_code == 302, action
    page = operator.get(f"/incidents/{one.pk}/").content.decode()
    assert "&lt;b&gt;odd&lt;/b&gt;" in page
    assert "olga labelled it real, with 2 anomalies." in page
    one.refresh_from_db()
    assert (one.state, one.label, one.resolved_by) == ("resolved", "real", one.assignee)


def test_a_mistake_is_told_on_the_page(operator: Client) -> None:
    one = scene.incident()
    for action, value in (("merge", "INC-x"), ("merge", str(one.pk)), ("comment", ""),
                          ("snooze", "7"), ("assign", "ghost\x00"), ("label", "odd")):  # fmt: skip
        answer = operator.post(f"/incidents/{one.pk}/{action}/", {"value": value}, follow=True)
        assert answer.status_code == 200, action
        assert "Allowed:" in answer.content.decode(), action
    assert operator.post(f"/incidents/{one.pk}/dance/").status_code == 404
    assert operator.post("/incidents/99999/resolve/").status_code == 404


def test_a_viewer_reads_only(viewer: Client) -> None:
    one = scene.incident()
    assert b"Acknowledge" not in viewer.get(f"/incidents/{one.pk}/").content
    assert viewer.post(f"/incidents/{one.pk}/resolve/").status_code == 403
    assert Incident.objects.get().state == "open"
    assert viewer.get("/incidents/99999/").status_code == 404


def test_merging_leads_to_the_other(operator: Client) -> None:
    one, other = scene.incident(1), scene.incident(2)
    answer = operator.post(f"/incidents/{one.pk}/merge/", {"value": f"inc-{other.pk}"})
    assert answer["Location"] == f"/incidents/{other.pk}/"
    assert f"INC-{other.pk}" in operator.get(f"/incidents/{one.pk}/").content.decode()


def test_other_pages_show_incidents(viewer: Client) -> None:
    builders.world()
    one = scene.incident(members=1)
    member = one.members.get().anomaly
    overview = viewer.get("/").content.decode()
    assert one.title in overview
    assert '<span class="count" title="Open or acknowledged">1</span>' in overview
    assert f'href="/incidents/{one.pk}/"' in viewer.get(f"/anomalies/{member.pk}/").content.decode()
