"""Timetables: weekdays, nights, holidays, daylight saving, and when they change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from alerts.hours import Timetable

BERLIN = ZoneInfo("Europe/Berlin")
WORK = [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "08:00", "to": "18:00"}]


def table(**more: Any) -> Timetable:
    return Timetable.read({"time_zone": "Europe/Berlin", "weekly": WORK} | more)


@pytest.mark.parametrize(
    ("at", "inside"),
    [
        ((2026, 11, 23, 8, 0), True),  # a Monday
        ((2026, 11, 23, 7, 59), False),
        ((2026, 11, 23, 18, 0), False),
        ((2026, 11, 22, 12, 0), False),  # a Sunday
    ],
)
def test_working_hours(at: tuple[int, ...], inside: bool) -> None:
    assert table().within(datetime(*at, tzinfo=BERLIN)) is inside  # type: ignore[misc]


def test_a_night_belongs_to_the_day_it_begins_on() -> None:
    nights = table(weekly=[{"days": ["fri"], "from": "22:00", "to": "06:00"}])
    assert nights.within(datetime(2026, 11, 28, 5, 59, tzinfo=BERLIN))
    assert not nights.within(datetime(2026, 11, 27, 5, 59, tzinfo=BERLIN))


def test_holidays_and_dates_are_off() -> None:
    bavaria = table(holidays="DE-BY", dates=["2026-11-24"])
    assert not bavaria.within(datetime(2026, 1, 6, 12, tzinfo=BERLIN))  # Epiphany, a Tuesday
    assert table(holidays="DE-BE").within(datetime(2026, 1, 6, 12, tzinfo=BERLIN))
    assert not bavaria.within(datetime(2026, 11, 24, 12, tzinfo=BERLIN))


def test_the_next_change_skips_a_weekend_and_the_changed_clock() -> None:
    friday = datetime(2026, 3, 27, 18, 0, tzinfo=BERLIN)
    assert table().next_change(friday) == datetime(2026, 3, 30, 6, 0, tzinfo=UTC)  # summer time
    assert table(weekly=[]).next_change(friday) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"time_zone": "Mars/Olympus"},
        {"holidays": "ZZ"},
        {"holidays": "DE-QQ"},
        {"weekly": [{"days": ["monday"], "from": "08:00", "to": "18:00"}]},
        {"weekly": [{"days": [], "from": "08:00", "to": "18:00"}]},
        {"weekly": [{"days": ["mon"], "from": "24:00", "to": "18:00"}]},
        {"weekly": [{"days": ["mon"], "from": "8", "to": "18:00"}]},
        {"dates": ["2026-02-30"]},
    ],
)
def test_what_is_wrong_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        table(**wrong)
