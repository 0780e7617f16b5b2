"""The pages: each answers, narrows as its URL says, asks the database little, and never fails."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from anomalies import lanes, listing
from anomalies.filters import Filters
from anomalies.models import Anomaly
from detection.models import ThresholdPolicy
from streams.models import DeadLetter
from streams.ranges import Range
from tests import builders

pytestmark = pytest.mark.django_db
ODD = ["", "x", "-1", "9" * 30, "%00", "\x00", "2024", "2024-13-01T00:00:00Z", "ä", "1h", "a|b"]


def test_each_page_asks_little_and_weighs_little(web: Client) -> None:
    series = builders.world()
    letter = DeadLetter.objects.earliest("pk")
    odd = Anomaly.objects.latest("score")
    for path in ("/", "/anomalies/", f"/anomalies/{odd.pk}/", "/series/", f"/series/{series.pk}/",
                 "/streams/", f"/streams/dead-letters/{letter.pk}/", "/models/"):  # fmt: skip
        with CaptureQueriesContext(
            connection,
        ) as asked:
            answer = web.get(path)
        assert answer.status_code == 200, path
        assert len(asked) <= 17, (path, len(asked))
        assert len(answer.content) < 160_000, (path, len(answer.content))
        assert b" style=" not in answer.content
        assert b"<script>" not in answer.content


def test_the_heaviest_page_stays_under_200_kb_over_the_wire(web: Client) -> None:
    builders.world()
    packed = {"accept-encoding": "gzip"}
    page = web.get("/")
    parts = set(re.findall(r'(?:href|src)="(/static/[^"#]+)', page.content.decode()))
    assert len(parts) >= 9
    answers = [web.get(path, headers=packed) for path in ("/", *parts)]
    assert [a.status_code for a in answers] == [200] * len(answers)
    assert sum(len(a.content) for a in answers) < 200_000


def test_more_rows_ask_no_more_queries(web: Client) -> None:
    def asked(path: str) -> int:
        with CaptureQueriesContext(connection) as found:
            web.get(path)
        return len(found)

    paths = ("/", "/anomalies/", "/series/", "/streams/")
    builders.anomaly(builders.series())
    before = [asked(path) for path in paths]
    for i in range(10):
        builders.anomaly(builders.series(f"web-{i}"))
        builders.dead_letter(i)
    assert [asked(path) for path in paths] == before


@pytest.mark.parametrize("text", ODD)
def test_no_query_makes_a_page_fail(web: Client, text: str) -> None:
    series = builders.series()
    odd = builders.anomaly(series)
    names = ("range", "by", "stream", "severity", "label", "state", "score", "type", "source",
             "metric", "start", "end", "before", "after", "from", "window", "reason")  # fmt: skip
    query = "&".join(f"{name}={quote(text)}" for name in names)
    for path in ("/", "/anomalies/", f"/anomalies/{odd.pk}/", "/series/", f"/series/{series.pk}/",
                 "/streams/", "/anomalies/worst"):  # fmt: skip
        for headers in ({}, {"hx-request": "true", "hx-target": "overview"}):
            assert web.get(f"{path}?{query}", headers=headers).status_code in (200, 204), path
    assert web.get(f"/anomalies/since?token={quote(text)}").status_code == 400


def test_strangers_are_sent_to_sign_in() -> None:
    for path in ("/", "/anomalies/", "/series/", "/streams/", "/models/", "/components"):
        answer = Client().get(path)
        assert answer.status_code == 302
        assert answer["Location"].startswith("/login/?next="), path


def test_an_empty_system_says_how_to_begin(web: Client) -> None:
    text = web.get("/").content.decode()
    assert "No events yet" in text
    assert "python manage.py produce demo" in text


def test_pages_go_back_and_forth(web: Client) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    made = [builders.anomaly(at=start + timedelta(minutes=i)) for i in range(7)][::-1]
    first = listing.page_of(Filters(), size=3)
    second = listing.page_of(Filters(), before=first.older or "", size=3)
    third = listing.page_of(Filters(), before=second.older or "", size=3)
    assert [first.rows, second.rows, third.rows] == [made[:3], made[3:6], made[6:]]
    assert (first.newer, third.older) == (None, None)
    assert listing.page_of(Filters(), after=second.newer or "", size=3).rows == made[:3]


def test_lanes_hold_the_worst_of_each_bucket(web: Client) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    span = Range("24h", start, start + timedelta(days=1))
    for score in (0.81, 0.97, 0.9):
        builders.anomaly(score=score, at=start + timedelta(minutes=45))
    builders.anomaly(at=start + timedelta(days=2))
    found = lanes.lanes(span, lanes.Wanted("source"))
    (lane,) = found.lanes
    cell = lane.cells[1]
    assert (cell.count, cell.severity, cell.score) == (3, 4, 0.97)
    assert found.total.count == 3
    assert sum(c.count for c in lane.cells) == 3


def test_lanes_have_room_for_sources_that_are_new_or_calm(web: Client) -> None:
    now = datetime.now(UTC)
    span = Range("24h", now - timedelta(days=1), now)
    for name in ("calm-2", "calm-1"):
        builders.series(name)
    builders.series("new-1", events=3, first_event_at=now - timedelta(hours=1))
    builders.series("gone", last_event_at=now - timedelta(days=3))

    def found(**more: Any) -> list[tuple[str, int, bool]]:
        got = lanes.lanes(span, lanes.Wanted("source", **more)).lanes
        return [(lane.name, lane.count, lane.warming) for lane in got]

    # Nothing odd is said in a sentence; only who has no score yet is worth a lane then.
    assert found() == [("new-1", 0, True)]
    builders.anomaly(builders.series("odd-1"))
    assert found() == [("odd-1", 1, False), ("new-1", 0, True), ("calm-1", 0, False),
                       ("calm-2", 0, False)]  # fmt: skip
    assert found(severity=2) == [("odd-1", 1, False)]
    for i in range(20):
        builders.series(f"many-{i:02}")
    assert len(found()) == lanes.LANES


def test_a_lanes_cell_tells_its_worst(web: Client) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    series = builders.series("checkout-eu", "payment_latency_ms")
    builders.anomaly(series, score=0.81, at=start, value=400.0)
    builders.anomaly(series, score=0.97, at=start)
    builders.anomaly(series, score=0.99, at=start + timedelta(hours=1), value=9.0)
    where = {"start": start.isoformat(), "end": (start + timedelta(minutes=30)).isoformat()}

    def worst(**more: str) -> str:
        answer = web.get("/anomalies/worst", where | more)
        assert answer.status_code in (200, 204)
        return answer.content.decode().strip()

    said = "1,284 ms, expected 181 to 312"
    assert worst(source="checkout-eu") == f"Worst: payment_latency_ms, {said}"
    assert worst() == f"Worst: payment_latency_ms on checkout-eu, {said}"
    assert worst(source="db-1") == ""
    with CaptureQueriesContext(connection) as asked:
        worst()
    assert len(asked) <= 6
    assert Client().get("/anomalies/worst").status_code == 302


def test_a_card_that_fails_says_why_and_the_rest_goes_on(
    web: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    builders.anomaly(builders.series())

    def fail(*_: object) -> None:
        raise OperationalError from psycopg.errors.QueryCanceled()

    monkeypatch.setattr(lanes, "lanes", fail)
    page = web.get("/")
    text = page.content.decode()
    assert page.status_code == 200
    found = re.search(r"PostgreSQL took too long. Request ([0-9a-f]{6})", text)
    assert found is not None
    assert f"reference={found[1]}" in caplog.text
    assert 'id="feed"' in text
    assert 'id="strip"' in text
    part = web.get("/", headers={"hx-request": "true", "hx-target": "lanes"}).content.decode()
    assert "Try again" in part
    monkeypatch.undo()
    part = web.get("/", headers={"hx-request": "true", "hx-target": "lanes"}).content.decode()
    assert 'role="grid"' in part


def test_since_tells_what_was_stored_after_the_token_each_once(web: Client) -> None:
    builders.series()
    builders.anomaly()
    page = web.get("/").content.decode()
    token = page.split('data-token="')[1].split('"')[0]
    assert web.get("/anomalies/since", {"token": token}).json()["anomalies"] == []
    fresh = builders.anomaly()
    by_hand = builders.anomaly(origin="manual", incarnation=None, partition=None, offset=None)
    answer = web.get("/anomalies/since", {"token": token}).json()
    assert {a["id"] for a in answer["anomalies"]} == {str(a.pk) for a in (fresh, by_hand)}
    later = web.get("/anomalies/since", {"token": answer["token"]}).json()
    assert [a["id"] for a in later["anomalies"]] == [str(by_hand.pk)]


def test_a_label_is_kept_with_its_author_and_taken_back(operator: Client) -> None:
    odd = builders.anomaly()
    operator.post(f"/anomalies/{odd.pk}/label", {"label": "expected"})
    odd.refresh_from_db()
    assert odd.labelled_by is not None
    assert (odd.label, odd.labelled_by.username) == ("expected", "olga")
    assert operator.post(f"/anomalies/{odd.pk}/label", {"label": "odd"}).status_code == 400
    operator.post(f"/anomalies/{odd.pk}/label", {"label": ""})
    odd.refresh_from_db()
    assert not any((odd.label, odd.labelled_by, odd.labelled_at))


def test_what_has_no_head_has_an_icon(client: Client) -> None:
    answer = client.get("/favicon.ico", follow=True)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/svg+xml")


def test_the_theme_is_a_cookie_that_the_server_renders(web: Client) -> None:
    answer = web.post("/theme", {"theme": "light", "next": "//evil.example/"})
    assert answer["Location"] == "/"
    assert b'data-theme="light"' in web.get("/").content


def test_a_dead_letter_shows_its_bytes_and_can_be_dismissed(operator: Client) -> None:
    letter = builders.dead_letter(raw=b"\xff\x00<b>")
    text = operator.get(f"/streams/dead-letters/{letter.pk}/").content.decode()
    assert "ff 00 3c 62 3e" in text
    assert "<b>" not in text.split("As text")[1].split("As bytes")[0]
    given = {"letter": letter.pk, "do": "discard", "sure": "yes"}
    assert operator.post("/streams/dead-letters/handle", given).status_code == 400
    operator.post("/streams/dead-letters/handle", given | {"note": "a test"})
    letter.refresh_from_db()
    assert (letter.state, letter.handled_by, letter.note) == ("dismissed", "olga", "a test")


def test_without_real_time_updates_a_page_has_no_live_switch(
    web: Client, settings: Settings
) -> None:
    builders.series()
    dashboard = settings.VIGIL.dashboard.model_copy(update={"real_time_updates": False})
    settings.VIGIL = settings.VIGIL.model_copy(update={"dashboard": dashboard})
    text = web.get("/").content.decode()
    assert 'data-live="off"' in text
    assert "live.js" not in text


def test_staying_signed_in_is_a_choice(client: Client) -> None:
    builders.user()
    given = {"username": "anna", "password": builders.PASSWORD}
    client.post("/login/", given)
    assert client.session.get_expire_at_browser_close()
    client.logout()
    client.post("/login/", given | {"remember": "on"})
    assert client.session.get_expiry_age() == 14 * 86_400


def test_a_policy_with_falling_bands_is_refused_field_by_field(client: Client) -> None:
    client.force_login(builders.user(is_staff=True, is_superuser=True))
    given = {"name": "all", "enabled": "on", "priority": 0, "threshold": 0.8, "direction": "both",
             "min_absolute_deviation": 0, "min_relative_deviation": 0, "medium_from": 0.9,
             "high_from": 0.85, "critical_from": 0.95}  # fmt: skip
    answer = client.post("/admin/detection/thresholdpolicy/add/", given)
    assert "at least 0.9" in answer.content.decode()
    client.post("/admin/detection/thresholdpolicy/add/", given | {"high_from": 0.92})
    assert ThresholdPolicy.objects.get(name="all").version == 1


def test_every_admin_list_opens(client: Client) -> None:
    client.force_login(builders.user(is_staff=True, is_superuser=True))
    builders.world()
    for name in ("anomalies/anomaly", "anomalies/outbox", "streams/stream", "streams/series",
                 "streams/topicincarnation", "streams/partitionoffset", "streams/deadletter",
                 "streams/consumerstatus", "detection/thresholdpolicy", "detection/modelversion",
                 "detection/trainingrun"):  # fmt: skip
        assert client.get(f"/admin/{name}/").status_code == 200, name
    odd = Anomaly.objects.earliest("stored_at")
    assert client.get(f"/admin/anomalies/anomaly/{odd.pk}/change/").status_code == 200
