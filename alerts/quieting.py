"""What a silence keeps back: its matcher and its windows, ready to be asked. Pure.

A silence counts by the event time of what would be told, so a backlog is silenced as live traffic
is. It never changes an incident.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from alerts.machine import Choice, Signal
from alerts.recurrence import Recurrence, Window
from alerts.spec import Matcher
from streams.clock import from_us, to_us

NAMED_ONLY = "-"
"""In a matcher's ``rules``: no rule by itself, only those that name the silence."""
MOST_IN_A_CHAIN = 1_000


@dataclass(frozen=True)
class Quiet:
    """One silence. ``ident`` tells it from others of the same name."""

    ident: str
    name: str
    matcher: Matcher
    recurrence: Recurrence
    maintenance: bool = False
    _choice: Choice = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_choice", Choice(self.matcher))

    def means(self, signal: Signal, rule: str, named: Sequence[str] = ()) -> bool:
        """Whether it speaks of this signal of this rule, whatever the time.

        ``named`` are the silences that the rule itself names: those hold for all it tells.
        """
        if self.name in named:
            return True
        if self.matcher.rules and rule not in self.matcher.rules:
            return False
        return self._choice.holds(signal)

    def at(self, moment: datetime) -> Window | None:
        """The window that holds at a moment."""
        return self.recurrence.at(moment)


def holding(
    silences: Sequence[Quiet], signal: Signal, at_us: int, rule: str, named: Sequence[str] = ()
) -> tuple[Quiet, Window] | None:
    """The first silence that keeps this signal's word back at an event time, with its window."""
    moment = from_us(at_us)
    for silence in silences:
        window = silence.at(moment)
        if window is not None and silence.means(signal, rule, named):
            return silence, window
    return None


def quiet_until(
    silences: Sequence[Quiet], signal: Signal, at_us: int, rule: str, named: Sequence[str] = ()
) -> int:
    """From which event time on no silence keeps this signal's word back any more.

    Windows that follow each other without a gap are one; ``at_us`` itself where none holds then.
    """
    for _ in range(MOST_IN_A_CHAIN):
        found = holding(silences, signal, at_us, rule, named)
        if found is None:
            break
        at_us = to_us(found[1].end)
    return at_us


def overlapping(
    silences: Sequence[Quiet], start: datetime, end: datetime
) -> list[tuple[Quiet, Window]]:
    """All windows within a range, by their starts."""
    found = [(s, w) for s in silences for w in s.recurrence.windows(start, end)]
    return sorted(found, key=lambda pair: (pair[1].start, pair[0].name))


def lasting(window: Window) -> timedelta:
    """How long a window lasts."""
    return window.end - window.start
