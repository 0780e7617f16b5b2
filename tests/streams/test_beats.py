"""A series' heartbeat and season out of its rollups."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from streams import season
from streams.beats import heartbeat
from streams.models import Series
from streams.ranges import Range
from streams.silence import silent_after_s, silent_for_s
from tests import builders

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)


def beating(minutes: int = 360, **more: tuple[int, int]) -> Series:
    """One event each 10 s for some hours up to NOW."""
    series = builders.series(
        first_event_at=NOW - timedelta(minutes=minutes), last_event_at=NOW, events=6 * minutes
    )
    builders.rollups(series, minutes, end=NOW, **more)
    return series


def span(hours: float) -> Range:
    return Range("", NOW - timedelta(hours=hours), NOW)


def test_a_gap_is_one_silence_and_its_cells_are_hatched() -> None:
    series = beating(skip=(200, 214))
    found = heartbeat(series, span(6), NOW)
    (silence,) = found.silences
    assert silence.seconds == 14 * 60
    assert silence.end == NOW - timedelta(minutes=145)
    states = [b.state for b in found.beats]
    assert states.count("silent") in (3, 4), "14 minutes touch so many cells of 5"
    assert set(states) == {"full", "silent"}
    assert [b.state for b in heartbeat(series, span(24), NOW).beats].count("silent") in (1, 2)
    assert found.silent_after_s == 60


def test_a_silence_that_goes_on_has_no_end() -> None:
    series = beating()
    later = NOW + timedelta(minutes=20)
    found = heartbeat(series, Range("", later - timedelta(hours=1), later), later)
    assert [s.end for s in found.silences] == [None]
    assert found.beats[-2].state == "silent"
    assert silent_for_s(series, later) == 20 * 60
    assert silent_for_s(series, NOW + timedelta(seconds=30)) is None


def test_a_series_of_one_event_an_hour_is_not_silent_between_them() -> None:
    series = builders.series(first_event_at=NOW - timedelta(hours=47), last_event_at=NOW, events=48)
    assert silent_after_s(series) == 5 * 3_600
    found = heartbeat(series, span(24), NOW)
    assert found.step_s >= 7_200
    assert {b.state for b in heartbeat(series, span(1), NOW).beats} == {"none"}


@pytest.mark.parametrize("events", [0, 1, 3])
def test_few_events_say_nothing_of_a_gap(events: int) -> None:
    at = None if events == 0 else NOW
    series = builders.series(first_event_at=at, last_event_at=at, events=events)
    assert heartbeat(series, span(24), NOW).silences == []
    assert not season.profile(series, "all", NOW).known


def test_what_is_usual_goes_by_the_clock_of_the_stream() -> None:
    series = beating(minutes=60 * 50)
    series.stream.time_zone = "Asia/Tokyo"
    found = season.profile(series, "all", NOW)
    assert found.zone == "Asia/Tokyo"
    assert found.now == 18.5
    assert found.present is not None
    assert found.present.low is not None
    assert found.present.high is not None
    assert found.present.low < (found.present.mid or 0) < found.present.high
    assert len([v for v in found.today if v is not None]) == 19
    assert season.profile(series, "nonsense", NOW).choice == "all"
    assert not season.profile(series, "weekend", NOW).known or found.days >= 1
