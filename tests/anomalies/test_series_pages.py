"""The list of series and one series' page: filters, order, parts, odd names and odd addresses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from anomalies import series_list
from anomalies.models import Anomaly
from streams.models import Rollup, Series
from tests import builders

pytestmark = pytest.mark.django_db
ODD = ["", "x", "-1", "9" * 30, "%00", "2024", "2024-13-01T00:00:00Z", "ä", "nan", "1e999", "a|b",
       "-Infinity", "' OR 1=1 --"]  # fmt: skip
PARTS = ("threshold", "season", "facts")


def names(web: Client, query: str) -> list[str]:
    page = web.get(f"/series/?{query}")
    assert page.status_code == 200, query
    return [row.series.source for row in page.context["page"].rows]


def test_it_is_filtered_by_what_series_are_doing(web: Client) -> None:
    now = timezone.now()
    builders.series("calm")
    builders.series("gone", last_event_at=now - timedelta(hours=3))
    builders.series("slow", last_event_at=now - timedelta(hours=3), events=24)
    builders.series("young", events=12, first_event_at=now - timedelta(minutes=2))
    builders.series("loud", raised_threshold=0.95)
    builders.series("split", other_partition=2, metric="memory", stream=builders.stream("other"))
    odd = builders.series("odd")
    builders.anomaly(odd, score=0.97, at=now - timedelta(hours=2))
    builders.anomaly(odd, score=0.82, at=now - timedelta(days=3), state="closed")
    assert names(web, "state=silent") == ["gone"]
    assert names(web, "state=warming") == ["slow", "young"]
    assert names(web, "state=alarming") == ["odd"]
    assert names(web, "state=budget") == ["loud"]
    assert names(web, "state=split") == names(web, "stream=other") == ["split"]
    assert names(web, "anomalies=1h") == []
    assert names(web, "anomalies=24h") == names(web, "q=odd+CPU") == ["odd"]
    assert names(web, "metric=emor") == ["split"]
    assert names(web, "q=100%25") == names(web, "source=_") == []
    text = web.get("/series/").content.decode()
    assert 'silent <span class="optional">for </span>3 h' in text
    assert "warming up 12 of 30" in text
    assert "1 in 24 h: 1 critical" in text


@pytest.mark.parametrize("sort", series_list.SORTS)
def test_pages_by_key_show_each_series_once_in_any_order(web: Client, sort: str) -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    for i in range(11):
        one = builders.series(f"web-{i % 4}", f"m{i}", events=5 + i % 3,
                              last_event_at=now - timedelta(minutes=i % 5))  # fmt: skip
        for k in range(i % 3):
            builders.anomaly(one, at=now - timedelta(hours=k + 1))
    builders.series("never", last_event_at=None, first_event_at=None, events=0)
    seen: list[int] = []
    cursor = ""
    for _ in range(5):
        page = series_list.page_of(series_list.Question(sort=sort, after=cursor), now, 3)
        assert page.total == 12
        seen += [row.series.pk for row in page.rows]
        if not (cursor := page.next):
            break
    assert len(seen) == len(set(seen)) == 12
    keys: dict[str, Callable[[Series], Any]] = {
        "events": lambda s: -s.events, "anomalies": lambda s: -s.anomalies.count(),
        "": lambda s: (s.source, s.metric),
    }  # fmt: skip
    if sort in keys:
        every = Series.objects.in_bulk(seen)
        shown = [keys[sort](every[pk]) for pk in seen]
        assert shown == sorted(shown)


def test_the_list_asks_as_little_for_many_as_for_one(web: Client) -> None:
    def asked(path: str) -> int:
        with CaptureQueriesContext(connection) as found:
            assert web.get(path).status_code == 200
        return len(found)

    path = "/series/?sort=anomalies&anomalies=7d&state=receiving&q=web"
    builders.anomaly(builders.series("web-0"))
    before = asked(path)
    for i in range(1, 12):
        builders.anomaly(builders.series(f"web-{i}"))
    assert asked(path) == before <= 15


def test_the_page_and_each_part_ask_at_most_fifteen_times(web: Client) -> None:
    series = builders.world()
    for path in ("/", *(f"/part/{name}" for name in PARTS)):
        with CaptureQueriesContext(connection) as asked:
            answer = web.get(f"/series/{series.pk}{path}?threshold=0.9",
                             headers={"hx-request": "true"} if "part" in path else {})  # fmt: skip
        assert answer.status_code == 200
        assert len(asked) <= 17, (path, len(asked))
        assert b" style=" not in answer.content


@pytest.mark.parametrize("text", ODD)
def test_no_address_makes_it_fail(operator: Client, text: str) -> None:
    series = builders.world()
    given = ("window", "start", "end", "threshold", "direction", "least", "budget", "span", "day",
             "scope", "q", "source", "metric", "stream", "state", "anomalies", "sort", "after",
             "whole")  # fmt: skip
    query = "&".join(f"{name}={quote(text)}" for name in given)
    for path in ("/series/", f"/series/{series.pk}/"):
        assert operator.get(f"{path}?{query}").status_code == 200, path
        assert operator.get(f"{path}?{query}&whole=1").status_code == 200, path
    chart = {"hx-request": "true", "hx-target": "chart"}
    assert operator.get(f"/series/{series.pk}/?{query}", headers=chart).status_code == 200
    for name in PARTS:
        path = f"/series/{series.pk}/part/{name}?{query}"
        assert operator.get(path, headers={"hx-request": "true"}).status_code == 200
        assert operator.get(path).status_code == 302
    tail = operator.get(f"/series/{series.pk}/tail?since={quote(text)}&step={quote(text)}")
    assert tail.status_code in (200, 400)
    assert operator.get(f"/series/{series.pk}/policy?{query}").status_code == 400
    assert operator.post(f"/series/{series.pk}/policy", {"threshold": text}).status_code == 400
    assert operator.post(f"/series/{series.pk}/policy/undo", {"change": text}).status_code in (
        400, 404)  # fmt: skip
    assert operator.get(f"/series/{'9' * 30}/").status_code == 404
    assert operator.get(f"/series/{series.pk}/part/nothing").status_code == 404


def test_a_range_of_the_address_is_shown_and_carried_on(web: Client) -> None:
    series = builders.series()
    builders.rollups(series, 600)
    end = timezone.now().replace(second=0, microsecond=0) - timedelta(hours=2)
    start = end - timedelta(hours=1)
    query = f"start={start:%Y-%m-%dT%H:%M:%SZ}&end={end:%Y-%m-%dT%H:%M:%SZ}"
    page = web.get(f"/series/{series.pk}/?{query}")
    chart = page.context["chart"]
    assert (chart["from"], chart["to"]) == (start.timestamp(), end.timestamp())
    assert len([v for v in chart["mean"] if v is not None]) == 60
    assert "Reset zoom" in page.content.decode()
    tiny = web.get(f"/series/{series.pk}/?start={start:%Y-%m-%dT%H:%M:%SZ}"
                   f"&end={start + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}")  # fmt: skip
    assert tiny.context["chart"]["to"] - tiny.context["chart"]["from"] == 300


@pytest.mark.parametrize(
    ("source", "metric"),
    [
        ("<script>alert(1)</script>", "a\"b'c&d"),
        ("ünïcødé 日本 🙂", "m" * 255),
        ("a/b?c#d%2F", "[x]*"),
    ],
)
def test_any_name_is_shown_as_it_is(operator: Client, source: str, metric: str) -> None:
    series = builders.series(source, metric)
    builders.rollups(series, 90)
    builders.anomaly(series)
    for path in (f"/series/{series.pk}/?whole=1&threshold=0.9", "/series/",
                 f"/series/{series.pk}/policy?threshold=0.9"):  # fmt: skip
        text = operator.get(path).content.decode()
        assert "<script>alert" not in text
        assert 'a"b' not in text
    assert operator.post(f"/series/{series.pk}/policy", {"threshold": "0.9"}).status_code == 302
    page = operator.get(f"/series/{series.pk}/?whole=1")
    assert page.context["policy"].threshold == 0.9


@pytest.mark.parametrize(
    ("values", "events"),
    [([5.0] * 60, 360), ([1e12 + i for i in range(60)], 360), ([-3.5 - i for i in range(60)], 360),
     ([float(i % 2) for i in range(60)], 360), ([1.0, 2.0, 3.0], 3), ([], 0), ([1e-9] * 3, 3)],
)  # fmt: skip
def test_any_values_are_drawn(web: Client, values: list[float], events: int) -> None:
    now = timezone.now().replace(second=0, microsecond=0)
    series = builders.series(events=events, last_event_at=now if values else None,
                             first_event_at=now if values else None)  # fmt: skip
    life = builders.incarnation()
    Rollup.objects.bulk_create(
        Rollup(series=series, minute=now - timedelta(minutes=i), incarnation=life, partition=0,
               first_offset=i, count=1, scored=0, min=v, max=v, mean=v, last=v)
        for i, v in enumerate(values)
    )  # fmt: skip
    page = web.get(f"/series/{series.pk}/?whole=1")
    assert page.status_code == 200
    text = page.content.decode()
    assert "nan" not in text.replace("nance", "")
    if events < 30:
        assert f"warming up {events} of 30" in text


def test_what_came_since_is_told_in_the_charts_own_steps(web: Client) -> None:
    series = builders.series()
    builders.rollups(series, 30)
    odd = builders.anomaly(series, at=timezone.now() - timedelta(minutes=2))
    since = (timezone.now() - timedelta(minutes=10)).timestamp()
    told = web.get(f"/series/{series.pk}/tail?since={since}&step=300").json()
    assert {t % 300 for t, *_ in told["points"]} == {150}
    assert [m["id"] for m in told["marks"]] == [str(odd.pk)]
    assert told["last_value"] == 42.0
    assert Anomaly.objects.count() == 1
