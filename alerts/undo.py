"""What taking a change back is: a plan that says what it would do and what stands against it."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import models

from alerts import audit_log
from alerts.audit_words import Change, between
from streams import audit
from streams.audit import Action
from streams.models import AuditEntry

Person = AbstractBaseUser | AnonymousUser
Facts = dict[str, Any]


class RevertError(Exception):
    """It can't be taken back; the text says why."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A field that somebody changed again since."""

    change: Change
    by: AuditEntry | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What taking an entry back would do. ``now``: the thing as it stands, for the fingerprint."""

    does: str = ""
    changes: tuple[Change, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    now: Any = None
    page: tuple[str, int] | None = None  # where it leads
    to: Facts = field(default_factory=dict)

    @property
    def seen(self) -> str:
        """What a form hands back: that this very state was looked at."""
        text = json.dumps([self.now, self.to], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class Kind(ABC):
    """How one kind of thing is taken back."""

    @abstractmethod
    def plan(self, entry: AuditEntry) -> Plan: ...

    @abstractmethod
    def do(self, entry: AuditEntry, found: Plan, user: Person) -> None: ...


class Row(Kind):
    """Things that are one row: fields go back to what they were."""

    model: type[models.Model]
    page = ""
    made = "Delete it on its page instead."
    """What to do about one that was made."""
    gone = ""
    """Why one that was deleted can't be made again; empty where it can."""

    def facts(self, row: Any) -> Facts:
        return audit.facts(row)

    @abstractmethod
    def write(self, row: Any, to: Facts, user: Person, before: Facts | None) -> None:
        """Set these facts and store, with an entry in the audit."""

    def plan(self, entry: AuditEntry) -> Plan:
        row = self.model._default_manager.filter(pk=entry.object_id).first()
        if entry.action == Action.ACTED:
            raise RevertError("What was sent or tried can't be taken back.")
        if entry.action == Action.CREATED:
            if row is None:
                raise RevertError("It is gone already.")
            raise RevertError(f"It was made by this. {self.made}")
        if entry.action == Action.DELETED:
            if row is not None:
                raise RevertError("It is there again.")
            if self.gone:
                raise RevertError(self.gone)
            to = dict(entry.before or {})
            return Plan("Makes it again as it was.", tuple(between(entry.kind, None, to)), to=to)
        if row is None:
            raise RevertError("It was deleted since: take that back first.")
        now = self.facts(row)
        to, changes, conflicts = differences(entry, now)
        return Plan("Sets these fields to what they were before.", changes, conflicts, now,
                    (self.page, row.pk) if self.page else None, to)  # fmt: skip

    def do(self, entry: AuditEntry, found: Plan, user: Person) -> None:
        if entry.action == Action.DELETED:
            self.write(self.model(), found.to, user, None)
            return
        row = self.model._default_manager.select_for_update(of=("self",)).get(pk=entry.object_id)
        before = self.facts(row)
        self.write(row, before | found.to, user, before)


def differences(
    entry: AuditEntry, now: Facts
) -> tuple[Facts, tuple[Change, ...], tuple[Conflict, ...]]:
    """Fields to set back, in words, and those of them that were changed again since."""
    before, after = dict(entry.before or {}), dict(entry.after or {})
    to = {k: v for k, v in before.items() if after.get(k) != v and now.get(k) != v}
    if not to:
        raise RevertError("It is again as it was before: there is nothing to take back.")
    mine = {k: now.get(k) for k in to}
    changes = tuple(between(entry.kind, mine, to))
    again = {k for k in to if now.get(k) != after.get(k)}
    conflicts = tuple(
        Conflict(change, _who_since(entry, key))
        for key in sorted(again)
        for change in between(entry.kind, {key: after.get(key)}, {key: now.get(key)})
    )
    return to, changes, conflicts


def checked(row: models.Model) -> None:
    """Raises ValidationError where a field can't be so; empty JSON or nobody is no mistake."""
    fields = row._meta.fields
    row.full_clean(exclude=[f.name for f in fields if isinstance(f, models.JSONField) or f.null])


def _who_since(entry: AuditEntry, key: str) -> AuditEntry | None:
    """The latest entry after this one that changed the field."""
    for other in audit_log.later(entry)[:200]:
        was, now = dict(other.before or {}), dict(other.after or {})
        if was.get(key) != now.get(key):
            return other
    return None
