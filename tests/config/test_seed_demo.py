"""The made-up database: as large as asked for, the same twice, gone when cleared; and served."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from anomalies.models import Anomaly, Candidate
from config.benchmark import web
from config.management.commands.seed_demo import NAME
from streams.models import PipelineStat, Rollup, Series, Stream
from tests import builders

pytestmark = pytest.mark.django_db


def seed(**options: int) -> None:
    call_command("seed_demo", **{"anomalies": 400, "series": 40, "days": 3} | options)


def test_it_is_as_large_as_asked_for_and_the_same_again() -> None:
    seed()
    first = list(
        Anomaly.objects.order_by("id").values_list("source", "metric", "score", "severity")
    )
    assert len(first) == 400
    assert Series.objects.count() == 40
    assert Candidate.objects.count() == 400
    assert PipelineStat.objects.count() == 3 * 1_440
    assert {row[3] for row in first} == {1, 2, 3, 4}
    seed()
    again = Anomaly.objects.order_by("id").values_list("source", "metric", "score", "severity")
    assert sorted(again) == sorted(first)


def test_clear_takes_only_its_own_rows() -> None:
    mine = builders.series()
    seed()
    call_command("seed_demo", clear=True)
    assert list(Series.objects.all()) == [mine]
    assert not Stream.objects.filter(name=NAME).exists()
    assert not Anomaly.objects.exists()
    assert not Rollup.objects.exists()
    assert not PipelineStat.objects.exists()


def test_a_number_out_of_range_is_told() -> None:
    with pytest.raises(CommandError, match="--series is 1 to 200,000, not 0"):
        seed(series=0)


def test_every_page_that_is_timed_answers_with_few_queries() -> None:
    seed()
    for page in web.measure(NAME, 1):
        # one page checks each stage of the pipeline for itself
        most = 19 if page.path == reverse("why-none") else 17
        assert page.queries <= most, f"{page.path} asks {page.queries} queries"
        assert page.kb < 200, f"{page.path} weighs {page.kb} kB"


def test_there_must_be_something_to_look_at() -> None:
    with pytest.raises(web.WebError, match=r"manage\.py seed_demo"):
        web.measure(NAME, 1)
