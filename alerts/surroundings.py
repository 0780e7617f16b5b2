"""Teams, hours and tags: what rules and receivers lean on, stored and deleted with their entries
in the audit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from alerts.models import Hours, Receiver, Rule, Tag, Team
from alerts.rules import naming
from streams import audit
from streams.audit import Action, Actor

Thing = Team | Hours | Tag


class InUseError(Exception):
    """It can't be deleted: something leans on it; the text is for people."""


def facts(row: Thing) -> dict[str, Any]:
    """What one says, as JSON data."""
    found = audit.facts(row)
    if isinstance(row, Team):
        found["members"] = sorted(row.members.values_list("username", flat=True))
    return found


def save(
    row: Thing, user: Actor, before: dict[str, Any] | None, members: Iterable[User] | None = None
) -> None:
    """Store a new or changed one. ``before``: its facts, None for a new one."""
    with transaction.atomic():
        row.save()
        if members is not None and isinstance(row, Team):
            row.members.set(members)
        audit.record(user, Action.CHANGED if before else Action.CREATED, row, before, facts(row))


def delete(row: Thing, user: Actor) -> None:
    """Delete one; raises InUseError where something leans on it."""
    with transaction.atomic():
        if uses := used_by(row):
            raise InUseError(f"{row} can't be deleted: {', '.join(uses)} need it.")
        audit.record(user, Action.DELETED, row, facts(row), None)
        row.delete()


def used_by(row: Thing) -> list[str]:
    """What leans on it, by name; a tag is only a name that patterns may find."""
    if isinstance(row, Hours):
        quiet = Receiver.objects.filter(quiet_hours=row).order_by("name")
        return _named("rule", naming("hours", row.name)) + _named("receiver", _names(quiet))
    if isinstance(row, Team):
        rules = Rule.objects.filter(team=row, retired_at=None).order_by("name")
        receivers = Receiver.objects.filter(team=row).order_by("name")
        return _named("rule", _names(rules)) + _named("receiver", _names(receivers))
    return []


def _names(rows: Any) -> list[str]:
    return list(rows.values_list("name", flat=True))


def _named(what: str, names: Iterable[str]) -> list[str]:
    return [f"{what} {name}" for name in names]
