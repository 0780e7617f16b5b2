"""Pages go by their user's clock: the zone they set, else their browser's, else UTC."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.test import Client
from django.utils import timezone

from anomalies.models import Anomaly
from streams.models import Preferences
from streams.zones import COOKIE, absolute, known_zones, read_local, zone_name
from tests import builders

pytestmark = pytest.mark.django_db
SUMMER = datetime(2026, 7, 1, 22, 30, tzinfo=UTC)


def _anomaly() -> Anomaly:
    return builders.anomaly(builders.series(), at=SUMMER)


@pytest.fixture
def web(client: Client) -> Client:
    client.force_login(builders.user())
    return client


def test_a_page_shows_the_zone_of_its_browser_until_its_user_sets_another(web: Client) -> None:
    path = f"/anomalies/{_anomaly().pk}/"

    def shown() -> str:
        return web.get(path).content.decode()

    assert "1 Jul 2026, 22:30:00</h1>" in shown()
    web.cookies[COOKIE] = "Asia/Kolkata"
    assert "2 Jul 2026, 04:00:00</h1>" in shown()
    assert 'title="Thu 02 Jul 2026 04:00:00 IST · Wed 22:30:00 UTC"' in shown()
    web.post("/settings/", {"time_zone": "America/New_York"})
    page = shown()
    assert "1 Jul 2026, 18:30:00</h1>" in page
    assert 'data-zone="America/New_York"' in page
    # Back to what the browser says.
    web.post("/settings/", {"time_zone": ""})
    assert 'data-zone="Asia/Kolkata"' in shown()


@pytest.mark.parametrize("said", ["Mars/Phobos", "../../etc/passwd", "", "é", "Europe/Berlin;x"])
def test_a_cookie_that_names_no_zone_is_utc(web: Client, said: str) -> None:
    web.cookies[COOKIE] = said
    assert b'data-zone="UTC"' in web.get("/settings/").content


def test_a_zone_that_is_unknown_is_refused_with_a_sentence(web: Client) -> None:
    answer = web.post("/settings/", {"time_zone": "Mars/Phobos"})
    assert answer.status_code == 400
    assert "&#x27;Mars/Phobos&#x27; is no time zone" in answer.content.decode()
    assert not Preferences.objects.exists()


def test_each_user_has_settings_of_their_own(web: Client) -> None:
    web.post("/settings/", {"time_zone": "Asia/Tokyo"})
    other = Client()
    other.force_login(builders.user("olga"))
    assert b'data-zone="UTC"' in other.get("/settings/").content
    assert b'data-zone="Asia/Tokyo"' in web.get("/settings/").content


def test_the_api_answers_in_utc_whoever_asks(web: Client) -> None:
    odd = _anomaly()
    web.post("/settings/", {"time_zone": "Asia/Tokyo"})
    hit = web.get("/api/anomalies", {"start": "2026-07-01T22:00", "end": "2026-07-01T23:00"})
    assert [a["id"] for a in hit.json()["anomalies"]] == [str(odd.pk)]
    assert hit.json()["anomalies"][0]["timestamp"] == "2026-07-01T22:30:00Z"


def test_dates_in_an_address_are_read_by_the_users_clock(web: Client) -> None:
    odd = _anomaly()
    web.post("/settings/", {"time_zone": "Europe/Berlin"})

    def found(start: str, end: str) -> bool:
        return str(odd.pk) in web.get("/anomalies/", {"start": start, "end": end}).content.decode()

    assert found("2026-07-02T00:00", "2026-07-02T01:00")
    assert not found("2026-07-01T22:00", "2026-07-01T23:00")
    assert found("2026-07-01T22:00+00:00", "2026-07-01T23:00Z")


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-03-29T01:59", "00:59"), ("2026-03-29T03:00", "01:00"),
        # Never on the clock: counts on from before the change.
        ("2026-03-29T02:30", "01:30"),
        # Twice on the clock: the first.
        ("2026-10-25T02:30", "00:30"), ("2026-10-25T03:00", "02:00"),
        ("2026-10-25T02:30+01:00", "01:30"), ("2026-10-25T02:30 01:00", "01:30"),
    ],
)  # fmt: skip
def test_the_hours_of_the_change_are_read_one_way(text: str, utc: str) -> None:
    with timezone.override("Europe/Berlin"):
        moment = read_local(text)
        assert moment is not None
        assert f"{moment:%H:%M}" == utc


@pytest.mark.parametrize("text", ["", "x", "2026-02-30T00:00", "0001-01-01T00:00", "9" * 40, "T"])
def test_what_is_no_moment_is_none(text: str) -> None:
    assert read_local(text) is None


def test_an_hour_that_comes_twice_says_which() -> None:
    with timezone.override("Europe/Berlin"):
        first, second = (absolute(datetime(2026, 10, 25, h, 30, tzinfo=UTC)) for h in (0, 1))
        assert first == "Sun 25 Oct 2026 02:30:00 CEST · 00:30:00 UTC"
        assert second == "Sun 25 Oct 2026 02:30:00 CET · 01:30:00 UTC"
        assert zone_name(SUMMER) == "CEST"


def test_the_zones_that_browsers_name_are_known() -> None:
    # The older names, which browsers still give, as well.
    assert {"Asia/Calcutta", "Europe/Kiev", "Etc/GMT+5", "UTC"} <= known_zones()
