"""When a window comes again: RRULE of RFC 5545 by dateutil, in its own time zone. Pure.

Windows keep their clock across daylight saving: 02:00–05:00 stays that, and is an hour shorter or
longer on the two nights. A start that the clock skips is the moment after the gap; of one that
comes twice the first is meant. Whatever a rule says, the work is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from dateutil import rrule

FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
PARTS = ("FREQ", "INTERVAL", "COUNT", "UNTIL", "BYMONTH", "BYMONTHDAY", "BYDAY", "BYHOUR",
         "BYMINUTE", "BYSETPOS", "WKST")  # fmt: skip
MOST_STARTS_A_DAY = 48
MOST_DAYS_LOOKED_AT = 20_000
LONGEST = timedelta(days=31)
_CHUNK = timedelta(days=28)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class BadRecurrenceError(ValueError):
    """A rule that can't be read, or that would take too long to follow; the text says which."""


class _TooFarError(Exception):
    """The rule's next window lies beyond what may be looked at."""


@dataclass(frozen=True, slots=True)
class Window:
    """From ``start`` up to but without ``end``, both UTC."""

    start: datetime
    end: datetime


class _Months(frozenset[int]):
    """The months of a rule, and the days that may still be looked at.

    dateutil asks each day's month first; a rule that never comes (the 30th of February) would
    otherwise run to the year 9999.
    """

    left: int = MOST_DAYS_LOOKED_AT

    def __contains__(self, month: object) -> bool:
        self.left -= 1
        if self.left < 0:
            raise _TooFarError
        return frozenset.__contains__(self, month)


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A first window, and the rule by which it comes again; an empty rule is once."""

    starts_at: datetime
    ends_at: datetime
    rule: str = ""
    time_zone: str = "UTC"

    def check(self) -> None:
        """Raises BadRecurrenceError where the rule is wrong, never comes or takes too long."""
        if self.ends_at <= self.starts_at:
            raise BadRecurrenceError("It ends before it starts.")
        if not self.rule:
            return
        if self.ends_at - self.starts_at > LONGEST:
            raise BadRecurrenceError("A window that comes again lasts at most 31 days.")
        try:
            found = next(iter(self._starts(self.starts_at, None)), None)
        except _TooFarError:
            found = None
        if found is None:
            raise BadRecurrenceError("This never comes: no day fits all of its parts.")

    def windows(self, start: datetime, end: datetime) -> tuple[Window, ...]:
        """Those that overlap ``[start, end)``, in order; overlapping ones are one.

        A rule that was stored unchecked and can't be followed has none.
        """
        if not self.rule:
            one = Window(self.starts_at, self.ends_at)
            return (one,) if one.start < end and one.end > start and one.end > one.start else ()
        found: list[Window] = []
        chunk = (start - _EPOCH) // _CHUNK
        while _EPOCH + chunk * _CHUNK < end:
            found += _chunk(self, chunk)
            chunk += 1
        return tuple(w for w in merged(found) if w.start < end and w.end > start)

    def at(self, moment: datetime) -> Window | None:
        """The window that holds at a moment."""
        found = self.windows(moment, moment + timedelta(microseconds=1))
        return found[0] if found else None

    def coming(self, after: datetime, most: int) -> list[Window]:
        """The next ``most`` windows that end after a moment, within two years."""
        found: list[Window] = []
        for chunk in range(27):
            start = after + chunk * _CHUNK
            found += [w for w in self.windows(start, start + _CHUNK) if w.end > after]
            found = list(merged(found))
            if len(found) > most:
                break
        return found[:most]

    def _read(self) -> _Read:
        return _read(self.rule, self.starts_at, self.time_zone)

    def _starts(
        self, after: datetime, before: datetime | None
    ) -> Iterator[tuple[datetime, datetime]]:
        """Starts from ``after`` on, before ``before``: as UTC, and by the zone's clock."""
        zone, read = ZoneInfo(self.time_zone), self._read()
        first = _naive(self.starts_at, zone)
        wanted = _naive(after, zone) - timedelta(days=1)
        rule = read.from_near(first, wanted)
        months: frozenset[int] = frozenset(getattr(rule, "_bymonth", None) or range(1, 13))
        setattr(rule, "_bymonth", _Months(months))  # noqa: B010  (not in its types)
        for local in rule:
            moment = _aware(local, zone)
            if before is not None and moment >= before:
                return
            if moment >= after:
                yield moment, local


@dataclass(frozen=True, slots=True)
class _Read:
    """A rule's text, checked."""

    text: str
    frequency: str
    interval: int
    count: bool
    until: datetime | None

    def from_near(self, first: datetime, wanted: datetime) -> rrule.rrule:
        """The rule from its first start on, or from a later one of the same rhythm.

        Days and weeks are jumped over in whole intervals, so that a rule of many years costs no
        more than a new one; with a COUNT all have to be counted.
        """
        start = first
        if not self.count and wanted > first and self.frequency in ("DAILY", "WEEKLY"):
            days = self.interval * (7 if self.frequency == "WEEKLY" else 1)
            start = first + timedelta(days=(wanted - first).days // days * days)
        found = rrule.rrulestr(self.text, dtstart=start)
        if not isinstance(found, rrule.rrule):
            raise BadRecurrenceError("One rule is needed, such as FREQ=WEEKLY;BYDAY=SU.")
        return found.replace(until=self.until) if self.until else found


@lru_cache(maxsize=1_024)
def _chunk(recurrence: Recurrence, chunk: int) -> tuple[Window, ...]:
    start = _EPOCH + chunk * _CHUNK
    zone = ZoneInfo(recurrence.time_zone)
    lasts = _naive(recurrence.ends_at, zone) - _naive(recurrence.starts_at, zone)
    found = []
    try:
        since = start - lasts - timedelta(hours=3)
        for begin, local in recurrence._starts(since, start + _CHUNK):
            end = _aware(local + lasts, zone)
            if end > start and end > begin:
                found.append(Window(begin, end))
    except (BadRecurrenceError, _TooFarError):
        return ()
    return tuple(found)


def merged(windows: Iterable[Window]) -> Iterator[Window]:
    """In order, and those that touch as one."""
    last: Window | None = None
    for window in sorted(windows, key=lambda w: (w.start, w.end)):
        if last is not None and window.start <= last.end:
            last = Window(last.start, max(last.end, window.end))
            continue
        if last is not None:
            yield last
        last = window
    if last is not None:
        yield last


@lru_cache(maxsize=1_024)
def _read(rule: str, starts_at: datetime, time_zone: str) -> _Read:
    text = rule.strip().removeprefix("RRULE:").strip().upper()
    parts: dict[str, str] = {}
    for part in text.strip(";").split(";"):
        name, _, value = part.partition("=")
        if name not in PARTS:
            raise BadRecurrenceError(
                f"{name[:20]!r} is no part of a rule here; there are {', '.join(PARTS)}."
            )
        if name in parts or not value:
            raise BadRecurrenceError(f"{name} is given twice or has no value.")
        parts[name] = value
    frequency = parts.get("FREQ", "")
    if frequency not in FREQUENCIES:
        raise BadRecurrenceError(
            f"FREQ={frequency[:20]} is not one of {', '.join(FREQUENCIES)}; several times a day is"
            " DAILY with BYHOUR=0,6,12,18."
        )
    interval = _whole(parts, "INTERVAL", 1, 1_000) or 1
    _whole(parts, "COUNT", 1, 10_000)
    times = [len(set(parts.get(name, "0").split(","))) for name in ("BYHOUR", "BYMINUTE")]
    if times[0] * times[1] > MOST_STARTS_A_DAY:
        raise BadRecurrenceError(
            f"It starts {times[0] * times[1]} times a day; at most {MOST_STARTS_A_DAY} are allowed."
        )
    if (
        frequency == "YEARLY"
        and "BYMONTH" not in parts
        and re.search(r"\d", parts.get("BYDAY", ""))
    ):
        raise BadRecurrenceError("BYDAY with a number needs BYMONTH where FREQ is YEARLY.")
    if "COUNT" in parts and "UNTIL" in parts:
        raise BadRecurrenceError("COUNT and UNTIL exclude each other.")
    until = _until(parts.pop("UNTIL", ""), time_zone)
    read = _Read(
        ";".join(f"{name}={value}" for name, value in parts.items()),
        frequency, interval, "COUNT" in parts, until,
    )  # fmt: skip
    try:
        first = _naive(starts_at, ZoneInfo(time_zone))
        read.from_near(first, first)
    except BadRecurrenceError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise BadRecurrenceError(f"This is no rule of RFC 5545: {error}.") from None
    return read


def _whole(parts: dict[str, str], name: str, least: int, most: int) -> int | None:
    if name not in parts:
        return None
    value = parts[name]
    if not re.fullmatch(r"\d{1,6}", value) or not least <= int(value) <= most:
        raise BadRecurrenceError(
            f"{name}={value[:20]} is no whole number from {least:,} to {most:,}."
        )
    return int(value)


def _until(text: str, time_zone: str) -> datetime | None:
    if not text:
        return None
    found = re.fullmatch(r"(\d{8})(T(\d{6})(Z?))?", text)
    try:
        if not found:
            raise ValueError
        clock = found[3] or "235959"
        local = datetime.strptime(found[1] + clock, "%Y%m%d%H%M%S")
    except ValueError:
        raise BadRecurrenceError(
            f"UNTIL={text[:20]} is no day or moment; one is 20261231 or 20261231T220000Z."
        ) from None
    if found[4]:
        return _naive(local.replace(tzinfo=UTC), ZoneInfo(time_zone))
    return local


def _naive(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None, microsecond=0)


def _aware(local: datetime, zone: ZoneInfo) -> datetime:
    return local.replace(tzinfo=zone, fold=0).astimezone(UTC)
