"""Lists of anomalies: every filter, every order page by page, and the indexes they go by."""

from __future__ import annotations

import uuid
from copy import copy
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.http import QueryDict

from alerts.models import Incident, IncidentAnomaly
from anomalies import listing
from anomalies.filters import Filters
from anomalies.forms import FilterForm
from anomalies.models import Anomaly
from tests import builders

pytestmark = pytest.mark.django_db
START = datetime(2024, 1, 1, tzinfo=UTC)


def _incident(*members: Anomaly) -> Incident:
    incident = Incident.objects.create(
        key=members[0].pk, group="g", title="Slow", severity=3, first_at=START, last_at=START,
        opened_at=START,
    )  # fmt: skip
    for member in members:
        IncidentAnomaly.objects.create(incident=incident, anomaly=member)
    return incident


@pytest.mark.parametrize("name", listing.SORTS)
def test_each_order_goes_there_and_back_while_others_arrive(name: str) -> None:
    sort = listing.SORTS[name]
    # Equal scores and moments: the rest of the key must tell them apart.
    for i in range(23):
        builders.anomaly(score=0.8 + i % 3 / 20, at=START + timedelta(minutes=i // 4))
    whole = listing.page_of(Filters(), sort=sort).rows
    assert len(whole) == 23
    there: list[Anomaly] = []
    pages = [listing.page_of(Filters(), sort=sort, size=5)]
    while pages[-1].older:
        pages.append(listing.page_of(Filters(), sort=sort, before=pages[-1].older, size=5))
        builders.anomaly(score=0.99, at=START + timedelta(days=-1 if name == "oldest" else 1))
    for page in pages:
        there += page.rows
    assert there == whole
    back = listing.page_of(Filters(), sort=sort, after=pages[-1].newer or "", size=5)
    assert back.rows == pages[-2].rows
    again = listing.page_of(Filters(), sort=sort, after=back.newer or "", size=5)
    assert again.rows == pages[-3].rows
    assert [a for rows in listing.chunks(Filters(), sort, size=4) for a in rows if a in whole] == (
        whole
    )
    above, below = listing.neighbours(whole[7], Filters(), sort)
    assert (above, below) == (whole[6].pk, whole[8].pk)


def test_each_filter_narrows_to_what_it_names() -> None:
    web = builders.anomaly(builders.series("web-1", "cpu_user"), score=0.97, at=START)
    pump = builders.anomaly(
        builders.series("pump.7", "flow/min", stream=builders.stream("plant")), score=0.82,
        at=START + timedelta(hours=1), anomaly_type="dip", state="closed", label="real",
    )  # fmt: skip
    hand = builders.anomaly(
        None, score=0.9, origin="manual", source="web-2", metric="cpu_user", anomaly_type="door",
        at=START + timedelta(hours=2), stream=None,
    )  # fmt: skip
    number = _incident(web, hand).pk
    cases = {
        "source=web-1": [web], "metric=cpu_user": [hand, web], "stream=plant": [pump],
        "stream=gone": [hand, pump, web], "severity=4": [web], "type=door": [hand],
        "label=real": [pump], "label=none": [hand, web], "state=closed": [pump],
        "origin=manual": [hand], "score=0.95": [web], "score=0.83": [hand, web],
        "series=web-*": [hand, web], "series=web-?/cpu*": [hand, web], "series=pump.7": [pump],
        "series=pump_7": [], "series=p*/flow/min": [], "series=p*/flow*": [pump],
        "series=*/*min": [pump], "series=web-1/*": [web], "series=w.b-1": [],
        f"incident={number}": [hand, web], f"incident=inc-{number}": [hand, web],
        "incident=any": [hand, web], "incident=none": [pump], "incident=77": [],
        "incident=x": [], "start=2024-01-01T00:30:00Z": [hand, pump],
        "start=2024-01-01T00:30:00Z&end=2024-01-01T01:30:00%2B00:00": [pump], "range=1h": [],
        "sort=score": [web, hand, pump], "sort=oldest": [web, pump, hand], "": [hand, pump, web],
    }  # fmt: skip
    for query, wanted in cases.items():
        form = FilterForm(QueryDict(query))
        found = listing.page_of(form.filters(), sort=form.sort).rows
        assert found == wanted, query


def test_a_cursor_of_another_order_or_of_nobody_is_none() -> None:
    odd = builders.anomaly()
    score, newest = listing.SORTS["score"], listing.NEWEST
    assert listing.read_cursor(listing.cursor_of(odd, score), newest) is None
    assert listing.read_cursor(listing.cursor_of(odd, newest), score) is None
    for text in ("", "x", "ä", "a" * 5_000, "fHw", "\x00", listing.cursor_of(odd)[:-3]):
        assert listing.read_cursor(text, newest) is None, text


def test_every_filter_and_order_has_an_index_to_go_by() -> None:
    """Asked of PostgreSQL's planner, with sequential scans made dear as they are among a million
    rows."""
    one = builders.anomaly(builders.series())
    rows = []
    for n in range(600):
        row = copy(one)
        row.pk, row.offset, row.source = uuid.uuid4(), 1_000 + n, f"web-{n % 60:02}"
        row.metric, row.anomaly_type = f"metric-{n % 50}", "spike" if n % 60 == 2 else "dip"
        row.state, row.label = ("open", "real") if n % 60 == 0 else ("closed", "")
        row.origin = "manual" if n % 60 == 1 else "detector"
        row.onset_at = one.onset_at - timedelta(minutes=7 * n)
        rows.append(row)
    Anomaly.objects.bulk_create(rows)
    filters = {
        "anomalies_by_source": Filters(source="web-03"),
        "anomalies_by_metric": Filters(metric="metric-7"), "anomalies_by_type": Filters(
            anomaly_type="spike"), "anomalies_by_label": Filters(label="real"),
        "anomalies_open": Filters(state="open"), "anomalies_manual": Filters(origin="manual"),
    }  # fmt: skip
    orders = {
        "anomalies_by_worst": listing.SORTS["score"],
        "anomalies_by_stored": listing.SORTS["stored"],
        "anomalies_newest": listing.SORTS["oldest"],
    }
    with connection.cursor() as cursor:
        # What the planner knows must not hang on when the table was last looked at.
        cursor.execute("ANALYZE anomalies_anomaly")
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;"
                       "SET LOCAL enable_sort = off")  # fmt: skip
        plans = [
            (index, listing.NEWEST.ordered(listing.chosen(f))[:51].explain())
            for index, f in filters.items()
        ]
        cursor.execute("SET LOCAL enable_incremental_sort = off")
        plans += [
            (index, sort.ordered(listing.chosen(Filters()))[:51].explain())
            for index, sort in orders.items()
        ]
    for index, plan in plans:
        assert index in plan, (index, plan)
