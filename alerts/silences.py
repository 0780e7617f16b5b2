"""Silences and maintenance windows as they are stored, ended and copied; read for the evaluator."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone
from pydantic import ValidationError

from alerts.hours import Timetable
from alerts.models import Hours, Silence
from alerts.quieting import Quiet
from alerts.recurrence import Recurrence, Window
from alerts.spec import Matcher
from streams import audit
from streams.audit import Action, Actor

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a silence stands now. ``state`` is "active", "coming", "over" or "off"."""

    state: str
    window: Window | None
    coming: tuple[Window, ...]


def quiet(row: Silence) -> Quiet:
    """A stored silence, ready to be asked; raises ValueError where its row can't be read."""
    return Quiet(str(row.pk or "new"), row.name, Matcher.model_validate(row.matcher),
                 recurrence(row), row.maintenance)  # fmt: skip


def recurrence(row: Silence) -> Recurrence:
    """Its first window, and how that comes again."""
    return Recurrence(row.starts_at, row.ends_at, row.recurrence, row.time_zone)


def enabled(rows: Iterable[Silence] | None = None) -> tuple[Quiet, ...]:
    """All that count; one that can't be read holds nothing back, and is logged."""
    found = []
    for row in Silence.objects.filter(enabled=True).order_by("pk") if rows is None else rows:
        try:
            found.append(quiet(row))
        except (ValidationError, ValueError, KeyError) as error:
            log.error("silence.unreadable", extra={"silence": row.pk, "error": str(error)[:300]})
    return tuple(found)


def timetables() -> dict[str, Timetable]:
    """All hours by name; one that can't be read counts as none."""
    found = {}
    for row in Hours.objects.order_by("pk"):
        try:
            found[row.name] = Timetable.read(row)
        except (ValidationError, ValueError) as error:
            log.error("hours.unreadable", extra={"hours": row.pk, "error": str(error)[:300]})
    return found


def standing(row: Silence, now: datetime, most: int = 4) -> Standing:
    """Whether it holds now, and its next windows."""
    if not row.enabled:
        return Standing("off", None, ())
    span = recurrence(row)
    window = span.at(now)
    coming = tuple(w for w in span.coming(now, most) if w.start > now)
    state = "active" if window else "coming" if coming else "over"
    return Standing(state, window, coming)


def save(row: Silence, user: Actor, before: dict[str, Any] | None) -> None:
    """Store a new or changed silence with its entry in the audit."""
    with transaction.atomic():
        if before is None:
            row.created_by_id = audit.key_of(user)
        row.save()
        action = Action.CREATED if before is None else Action.CHANGED
        audit.record(user, action, row, before, facts(row))


def end_now(row: Silence, user: Actor, now: datetime | None = None) -> None:
    """What it keeps back is told within seconds, if it still fires.

    One that comes again is switched off; one that comes once ends now.
    """
    now = now or timezone.now()
    with transaction.atomic():
        row = Silence.objects.select_for_update().get(pk=row.pk)
        before = facts(row)
        if row.recurrence or row.starts_at >= now:
            row.enabled = False
        else:
            row.ends_at = min(row.ends_at, now)
        row.save(update_fields=["enabled", "ends_at"])
        audit.record(user, Action.CHANGED, row, before, facts(row))


def facts(row: Silence) -> dict[str, Any]:
    """What a silence says, as JSON data."""
    return {
        "name": row.name, "match": row.matcher, "from": row.starts_at.isoformat(),
        "to": row.ends_at.isoformat(), "again": row.recurrence, "time_zone": row.time_zone,
        "maintenance": row.maintenance, "enabled": row.enabled, "comment": row.comment,
    }  # fmt: skip
