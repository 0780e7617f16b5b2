"""Weekly timetables with holidays: whether a moment lies within them, and when that changes. Pure.

Hours keep their time zone's clock across daylight saving. On a holiday nothing counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import holidays as public
from pydantic import BaseModel, ConfigDict, Field, field_validator

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Clock = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$")]
LONGEST_DAYS = 400


class Span(BaseModel):
    """Some days of the week, from one time to another; an end at or before the start is the next
    day's."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    days: Annotated[
        tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...], Field(min_length=1)
    ]
    start: Annotated[str, Field(alias="from", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    end: Annotated[Clock, Field(alias="to")]


class HoursSpec(BaseModel):
    """A timetable as it is stored, exported and applied."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_zone: str = "UTC"
    weekly: Annotated[tuple[Span, ...], Field(max_length=50)] = ()
    holidays: Annotated[str, Field(max_length=20)] = ""
    dates: Annotated[tuple[date, ...], Field(max_length=1_000)] = ()

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        return checked_zone(name)

    @field_validator("holidays")
    @classmethod
    def _known_country(cls, code: str) -> str:
        if code:
            days_off(code, 2026)
        return code


def checked_zone(name: str) -> str:
    """The name itself; raises ValueError where it names no time zone."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name[:60]!r} is no time zone; one is Europe/Berlin or UTC") from None
    return name


@lru_cache(maxsize=512)
def days_off(code: str, year: int) -> frozenset[date]:
    """Public holidays of a country or one of its parts (``DE``, ``DE-BY``) in a year.

    Raises:
        ValueError: where there is no such country or part.
    """
    country, _, part = code.partition("-")
    try:
        return frozenset(public.country_holidays(country, subdiv=part or None, years=year))
    except (NotImplementedError, KeyError, AttributeError):
        raise ValueError(
            f"{code!r} is no country with known holidays; one is DE, DE-BY or US-CA"
        ) from None


@dataclass(frozen=True)
class Timetable:
    """``HoursSpec``, ready to be asked."""

    spec: HoursSpec
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_zone", ZoneInfo(self.spec.time_zone))

    @classmethod
    def read(cls, stored: Any) -> Timetable:
        """Of a dict or of a row of ``alerts.models.Hours``."""
        if not isinstance(stored, dict):
            names = ("time_zone", "weekly", "holidays", "dates")
            stored = {name: getattr(stored, name) for name in names}
        return cls(HoursSpec.model_validate(stored))

    def within(self, at: datetime) -> bool:
        """Whether an aware moment lies within the hours; ends are outside."""
        return any(start <= at < end for start, end in self._around(at.astimezone(self._zone)))

    def next_change(self, at: datetime) -> datetime | None:
        """When ``within`` is next another one than now, at most 400 days ahead; None if never."""
        now = self.within(at)
        local = at.astimezone(self._zone).date()
        for ahead in range(LONGEST_DAYS):
            edges = {
                edge
                for span in self._of_day(local + timedelta(days=ahead - 1))
                for edge in span
                if edge > at
            }
            for edge in sorted(edges):
                if self.within(edge) != now:
                    return edge
        return None

    def _around(self, local: datetime) -> list[tuple[datetime, datetime]]:
        today = local.date()
        return [*self._of_day(today - timedelta(days=1)), *self._of_day(today)]

    def is_off(self, day: date) -> bool:
        """Whether it is a holiday or another day off."""
        public_one = self.spec.holidays and day in days_off(self.spec.holidays, day.year)
        return day in self.spec.dates or bool(public_one)

    def _of_day(self, day: date) -> list[tuple[datetime, datetime]]:
        if self.is_off(day):
            return []
        name = DAYS[day.weekday()]
        return [self._span(day, span) for span in self.spec.weekly if name in span.days]

    def _span(self, day: date, span: Span) -> tuple[datetime, datetime]:
        until = day + timedelta(days=1) if span.end <= span.start or span.end == "24:00" else day
        end = "00:00" if span.end == "24:00" else span.end
        return self._moment(day, span.start), self._moment(until, end)

    def _moment(self, day: date, clock: str) -> datetime:
        hour, minute = clock.split(":")
        local = datetime.combine(day, time(int(hour), int(minute)), tzinfo=self._zone)
        return local.astimezone(UTC)
