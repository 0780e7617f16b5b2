"""The sentence of an anomaly."""

from __future__ import annotations

import datetime as dt

import pytest

from anomalies.explain import number, sentence, vector_sentence
from anomalies.models import AnomalyType

AT = dt.datetime(2024, 1, 1, 12, 30, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1284.04, "1,284"), (0.018349, "0.01835"), (97.0, "97"), (0.0, "0"), (-3.14159, "-3.142"),
     (1e-20, "0"), (12345678.9, "12,345,679"), (float("nan"), "nan"), (99.996, "100")],
)  # fmt: skip
def test_numbers_are_written_as_a_person_would(value: float, text: str) -> None:
    assert number(value) == text


def told(value: float, expected: tuple[float, float, float] | None, **more: object) -> str:
    given = {"kind": AnomalyType.SPIKE, "direction": 1, "onset_at": AT, "time_zone": "UTC"} | more
    return sentence("web-3", "cpu", value, expected, **given)


def test_the_sentence_says_what_how_far_and_when() -> None:
    assert told(97, (31, 41, 51)) == (
        "cpu on web-3 was 97, 5.6 × its usual spread above the 41 expected for a Monday at 12:30"
        " (usually 31 to 51)."
    )
    assert "below the 41" in told(1, (31, 41, 51), direction=-1)


def test_the_time_is_the_streams_own() -> None:
    assert "Monday at 13:30" in told(97, (31, 41, 51), time_zone="Europe/Berlin")
    assert "Tuesday at 01:30" in told(97, (31, 41, 51), time_zone="Pacific/Auckland")


def test_without_a_band_or_inside_it_the_sentence_still_holds() -> None:
    assert "unlike anything" in told(97, None)
    assert "inside the 31 to 51 expected" in told(45, (31, 41, 51))
    assert "has not moved" in told(45, (31, 41, 51), kind=AnomalyType.FLATLINE)
    assert "inside the 41 to 41" in told(45, (41, 41, 41))


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"flow": 0.9, "heat": 0.1}, "Most of that is flow (90 %)."),
        ({"flow": 0.5, "heat": 0.3, "rpm": 0.2}, "flow (50 %), heat (30 %) and rpm (20 %)."),
        ({"flow": 0.6, "heat": 0.38, "rpm": 0.02}, "Most of that is flow (60 %) and heat (38 %)."),
        ({f"v{i}": 0.1 for i in range(10)}, "The largest parts of that are v0 (10 %), v1 (10 %)"),
        ({f"v{i}": 0.02 for i in range(50)}, "are spread over all of them."),
    ],
)
def test_a_vectors_sentence_names_the_largest_shares(shares: dict[str, float], said: str) -> None:
    text = vector_sentence("pump-3", 6.204, 0.81, 3.1, shares)
    assert text.startswith(
        "The values of pump-3 together lay 6.204 from their usual pattern (usually 0.81, an alarm"
        " from 3.1 on)."
    )
    assert said in text


def test_a_vectors_sentence_does_not_claim_a_distance_that_is_no_alarm() -> None:
    text = vector_sentence("pump-3", 2.0, 0.81, 3.1, {})
    assert "which is no alarm by itself" in text
    assert "trained models" in text


def test_a_vectors_sentence_says_what_the_largest_part_should_have_been() -> None:
    values = {"flow": {"level": 61.24, "expected": 48.911}, "heat": {"level": 3.0, "expected": 3.1}}
    text = vector_sentence("pump-3", 6.2, 0.8, 3.1, {"flow": 0.9, "heat": 0.1}, values)
    assert text.endswith("is flow (90 %). flow lay at 61.24; 48.91 would go with the other values.")
    assert "lay at" not in vector_sentence("pump-3", 6.2, 0.8, 3.1, {"flow": 1.0}, {"flow": {}})
