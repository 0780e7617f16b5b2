"""Silences and hours as rows, ready for the pure parts that ask them."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from alerts.hours import Timetable
from alerts.models import Hours, Silence
from alerts.quieting import Quiet
from alerts.recurrence import BadRecurrenceError, Recurrence
from alerts.spec import Matcher

log = logging.getLogger(__name__)


def silences() -> list[Quiet]:
    """Those that are enabled; one that can't be read is logged and holds nothing back."""
    found = []
    for row in Silence.objects.filter(enabled=True).order_by("pk"):
        try:
            found.append(quiet_of(row))
        except (ValidationError, BadRecurrenceError) as error:
            log.warning("silence.unreadable name=%s error=%s", row.name, error)
    return found


def quiet_of(row: Silence) -> Quiet:
    """One silence.

    Raises:
        pydantic.ValidationError: its matcher is wrong.
        BadRecurrenceError: its windows are.
    """
    windows = Recurrence(row.starts_at, row.ends_at, row.recurrence, row.time_zone)
    windows.check()
    return Quiet(str(row.pk), row.name, Matcher.model_validate(row.matcher), windows,
                 row.maintenance)  # fmt: skip


def timetables() -> dict[str, Timetable]:
    """Hours by name; one that can't be read is logged and left out: then steps always count."""
    found = {}
    for row in Hours.objects.order_by("pk"):
        try:
            found[row.name] = Timetable.read(row)
        except ValidationError as error:
            log.warning("hours.unreadable name=%s error=%s", row.name, error)
    return found
