"""Numbers as people read them."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from anomalies.templatetags import vigil


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0"), (0.6, "0.6"), (37, "37"), (2_140, "2,140"), (311_139, "311 k"),
     (35_600_000, "35.6 M"), (2e9, "2.0 G")],
)  # fmt: skip
def test_compact(value: float | None, text: str) -> None:
    assert vigil.compact(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.8, "0.80"), (0.29, "0.29"), (0.9497, "0.94"), (0.9999999999, "0.99"),
     (1.0, "1.00")],
)  # fmt: skip
def test_a_score_is_cut_and_never_reads_as_of_a_higher_severity(
    value: float | None, text: str
) -> None:
    assert vigil.score(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1_284.04, "1,284"), (0.02413, "0.02413"), (-3.5, "−3.5"), (0, "0"), (float("nan"), "–"),
     (97.0, "97"), (1.5e12, "1.5e+12")],
)  # fmt: skip
def test_number(value: float, text: str) -> None:
    assert vigil.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0.40 s"), (12, "12 s"), (300, "5 min"), (7_380, "2 h 03 m"), (864_000, "10 d")],
)
def test_duration(seconds: float, text: str) -> None:
    assert vigil.duration(seconds) == text


def test_a_time_within_a_sentence_is_ago_only_where_it_is_past() -> None:
    now = timezone.now()
    said = {
        re.sub("<[^>]+>", "", vigil.since(at))
        for at in (None, now, now - timedelta(minutes=5), now + timedelta(minutes=3, seconds=9))
    }
    assert said == {"never", "now", "5 min ago", "in 3 min"}
