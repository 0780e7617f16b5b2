"""What is usual for a series by hour and weekday, in the time zone of its stream, from rollups."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import median
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from streams.history import buckets
from streams.models import Series
from streams.ranges import from_epoch

WEEKS = 6
HOUR_S = 3_600
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
WEEKEND = (6, 7)


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of the day: the median over days of its mean, least and greatest value."""

    hour: int
    low: float | None
    mid: float | None
    high: float | None
    days: int


@dataclass(frozen=True, slots=True)
class Profile:
    """What is usual at each hour; ``today`` holds the present day's own means so far."""

    choice: str
    choices: list[tuple[str, str]]
    zone: str
    hours: list[Hour]
    today: list[float | None]
    now: float | None
    days: int

    @property
    def known(self) -> bool:
        return any(hour.mid is not None for hour in self.hours)

    @property
    def present(self) -> Hour | None:
        """The hour that is now."""
        return None if self.now is None else self.hours[int(self.now) % 24]


Row = tuple[int, int, date, float, float, float]  # weekday, hour, day, least, mean, greatest


def profile(series: Series, choice: str, now: datetime) -> Profile:
    """The last six weeks of a series' own event time, for all days or some of them."""
    last = series.last_event_at or now
    zone = _zone(series.stream.time_zone)
    local = last.astimezone(zone)
    rows = _rows(series, last, zone)
    today = DAYS[local.isoweekday() - 1]
    names = {today.lower(): {local.isoweekday()}, "weekend": set(WEEKEND)}
    choice = choice if choice in names else "all"
    wanted = names.get(choice, set(range(1, 8)))
    # Today is shown beside what is usual, so it is no part of it.
    others = [r for r in rows if r[0] in wanted and r[2] != local.date()]
    shown = others or [r for r in rows if r[0] in wanted]
    hours = [_hour(i, [r for r in shown if r[1] == i]) for i in range(24)]
    present = {r[1]: r[4] for r in rows if r[2] == local.date()}
    live = now - last < timedelta(days=1)
    at = now.astimezone(zone) if live else local
    return Profile(
        choice, [("all", "All"), (today.lower(), today), ("weekend", "Weekend")], str(zone), hours,
        [present.get(i) for i in range(24)], at.hour + at.minute / 60,
        len({r[2] for r in shown}),
    )  # fmt: skip


def _rows(series: Series, last: datetime, zone: ZoneInfo) -> list[Row]:
    """One row per hour that was; the medians over days are taken of those."""
    start = last - timedelta(weeks=WEEKS)
    found = buckets([series.pk], start, last + timedelta(seconds=1), HOUR_S).get(series.pk, [])
    rows = []
    for hour in found:
        at = from_epoch(hour.t).astimezone(zone)
        rows.append((at.isoweekday(), at.hour, at.date(), hour.min, hour.mean, hour.max))
    return rows


def _hour(hour: int, rows: list[Row]) -> Hour:
    if not rows:
        return Hour(hour, None, None, None, 0)
    return Hour(hour, median(r[3] for r in rows), median(r[4] for r in rows),
                median(r[5] for r in rows), len(rows))  # fmt: skip


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")
