"""Windows that come again: in their own clock, and never without end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from alerts.recurrence import BadRecurrenceError, Recurrence

BERLIN = ZoneInfo("Europe/Berlin")


def sunday(rule: str = "FREQ=WEEKLY;BYDAY=SU") -> Recurrence:
    start = datetime(2026, 3, 1, 2, 0, tzinfo=BERLIN)
    return Recurrence(start, start + timedelta(hours=3), rule, "Europe/Berlin")


def test_windows_keep_their_clock_across_daylight_saving() -> None:
    found = sunday().coming(datetime(2026, 3, 20, tzinfo=UTC), 3)
    assert [w.start.hour for w in found] == [1, 1, 0]  # 02:00 in Berlin each time
    # On 29 March 02:00 does not exist: the clock goes from 02:00 to 03:00.
    assert found[1].end == datetime(2026, 3, 29, 3, 0, tzinfo=UTC)
    autumn = sunday().coming(datetime(2026, 10, 24, tzinfo=UTC), 1)[0]
    # 02:00 comes twice: the first is meant, and the window lasts until 05:00 in winter time.
    assert autumn.start == datetime(2026, 10, 25, 0, 0, tzinfo=UTC)
    assert autumn.end == datetime(2026, 10, 25, 4, 0, tzinfo=UTC)


def test_a_moment_lies_within_or_not_to_the_microsecond() -> None:
    one, least = sunday(), timedelta(microseconds=1)
    start, end = datetime(2026, 6, 7, 0, tzinfo=UTC), datetime(2026, 6, 7, 3, tzinfo=UTC)
    assert one.at(start) is not None
    assert one.at(start - least) is None
    assert one.at(end - least) is not None
    assert one.at(end) is None


def test_a_rule_of_many_years_has_the_rhythm_of_its_first_day() -> None:
    start = datetime(1990, 1, 1, 8, tzinfo=UTC)
    every_third = Recurrence(start, start + timedelta(hours=1), "FREQ=DAILY;INTERVAL=3")
    found = every_third.windows(
        datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 30, tzinfo=UTC)
    )
    assert len(found) in (9, 10)
    assert {(w.start - start).days % 3 for w in found} == {0}


def test_overlapping_windows_are_one() -> None:
    start = datetime(2026, 1, 1, 22, tzinfo=UTC)
    always = Recurrence(start, start + timedelta(hours=25), "FREQ=DAILY")
    found = always.windows(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 20, tzinfo=UTC))
    assert len(found) == 1


def test_count_and_until_end_a_rule() -> None:
    after = datetime(2026, 3, 1, tzinfo=UTC)
    assert len(sunday("FREQ=DAILY;COUNT=4").coming(after, 50)) == 4
    assert len(sunday("FREQ=DAILY;UNTIL=20260303").coming(after, 50)) == 3
    # 01:00 UTC is 02:00 in Berlin: the last one counts.
    assert len(sunday("FREQ=DAILY;UNTIL=20260303T010000Z").coming(after, 50)) == 3
    assert len(sunday("FREQ=DAILY;UNTIL=20260303T005900Z").coming(after, 50)) == 2


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", "never comes"),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "never comes"),
        ("FREQ=WEEKLY;INTERVAL=1000;BYMONTH=2;BYSETPOS=366", "never comes"),
        ("FREQ=SECONDLY", "not one of DAILY"),
        ("FREQ=DAILY;BYHOUR=0,1,2,3,4,5,6;BYMINUTE=0,1,2,3,4,5,6", "49 times a day"),
        ("FREQ=DAILY;BYHOUR=99", "no rule of RFC 5545"),
        ("FREQ=DAILY;INTERVAL=1000000000", "INTERVAL"),
        ("FREQ=DAILY;COUNT=99999", "COUNT"),
        ("FREQ=DAILY;COUNT=2;UNTIL=20270101", "exclude"),
        ("FREQ=DAILY;UNTIL=20261301", "UNTIL"),
        ("FREQ=YEARLY;BYDAY=20MO", "BYMONTH"),
        ("FREQ=DAILY\nRDATE:20260101", "FREQ=DAILY"),
        ("EXRULE:FREQ=DAILY", "no part"),
        ("FREQ=DAILY;BYEASTER=1", "no part"),
        (";;;", "no part"),
        ("nonsense", "no part"),
    ],
)
def test_what_is_wrong_or_never_comes_is_said(rule: str, says: str) -> None:
    with pytest.raises(BadRecurrenceError, match=says):
        sunday(rule).check()


def test_a_stored_rule_that_cannot_be_followed_has_no_windows() -> None:
    hostile = sunday("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30")
    assert hostile.windows(datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 2, 1, tzinfo=UTC)) == ()


def test_a_window_ends_after_its_start() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    with pytest.raises(BadRecurrenceError, match="before it starts"):
        Recurrence(at, at).check()
    assert Recurrence(at, at).windows(at - timedelta(days=1), at + timedelta(days=1)) == ()
