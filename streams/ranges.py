"""Ranges of time as pages and charts use them: from a word in the URL to two moments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

NAMED: dict[str, tuple[str, int]] = {
    "1h": ("Last hour", 3_600),
    "6h": ("Last 6 hours", 21_600),
    "24h": ("Last 24 hours", 86_400),
    "7d": ("Last 7 days", 604_800),
    "30d": ("Last 30 days", 2_592_000),
    "all": ("All time", 0),
}
# What one bucket may last, so that axes fall on round times.
ROUND_STEPS_S = (60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)


@dataclass(frozen=True, slots=True)
class Range:
    """From `start` up to but without `end`; `name` is the word it was asked for by."""

    name: str
    start: datetime
    end: datetime

    @property
    def label(self) -> str:
        return NAMED[self.name][0] if self.name in NAMED else "Chosen time"

    @property
    def short(self) -> str:
        """As in "35 M in 24 h"."""
        words = {"1h": "1 h", "6h": "6 h", "24h": "24 h", "7d": "7 d", "30d": "30 d"}
        return words.get(self.name, "all time")

    @property
    def seconds(self) -> float:
        return (self.end - self.start).total_seconds()


def named_range(
    name: str,
    now: datetime,
    *,
    default: str = "24h",
    whole: tuple[datetime, datetime] | None = None,
) -> Range:
    """The range called `name`, or the default; `all` is `whole`, from the first to the last event.

    >>> named_range("1h", datetime(2024, 1, 1, 12, tzinfo=UTC)).start.hour
    11
    """
    if name not in NAMED:
        name = default
    if name == "all":
        start, end = whole or (now - timedelta(days=1), now)
        return Range("all", start, max(end, start + timedelta(minutes=10)) + timedelta(seconds=1))
    return Range(name, now - timedelta(seconds=NAMED[name][1]), now)


def step_for(seconds: float, points: int) -> int:
    """The shortest round bucket, in seconds, that needs no more than `points` of them.

    >>> step_for(86_400, 300), step_for(3_600, 300)
    (300, 60)
    """
    for step in ROUND_STEPS_S:
        if seconds / step <= points:
            return step
    days = int(seconds / points / 86_400) + 1
    return days * 86_400


def from_epoch(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
