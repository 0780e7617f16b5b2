"""Who changed what: one entry for each change, in the transaction that makes it.

Every app writes here. Secrets never do: what a caller hands over as before and after is stored.
"""

from __future__ import annotations

import getpass
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db.models import ForeignKey, Model

from streams.models import AuditEntry

Action = AuditEntry.Action
Actor = AbstractBaseUser | AnonymousUser | str | None
"""A user, or what something that is none calls itself."""
_through: ContextVar[str] = ContextVar("audit_through", default="system")
_takes_back: ContextVar[AuditEntry | None] = ContextVar("audit_takes_back", default=None)


@contextmanager
def through(door: str) -> Iterator[None]:
    """What is changed meanwhile came by this door: "page", "admin", "api" or "command"."""
    token = _through.set(door)
    try:
        yield
    finally:
        _through.reset(token)


@contextmanager
def taking_back(entry: AuditEntry | None) -> Iterator[None]:
    """What is changed meanwhile takes this entry back."""
    token = _takes_back.set(entry)
    try:
        yield
    finally:
        _takes_back.reset(token)


def record(
    actor: Actor, action: Action, thing: Model, before: Any = None, after: Any = None
) -> AuditEntry | None:
    """Write an entry; None where a change changed nothing."""
    if action == Action.CHANGED and before == after:
        return None
    return AuditEntry.objects.create(
        actor_id=key_of(actor), actor_name=_name(actor), via=_through.get(), action=action,
        kind=thing._meta.label, object_id=str(thing.pk)[:60], object_name=str(thing)[:300],
        before=before, after=after, reverts=_takes_back.get(),
    )  # fmt: skip


def facts(row: Model, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """What a row says, as JSON data; a row that it leads to by that one's name."""
    found: dict[str, Any] = {}
    for field in row._meta.concrete_fields:
        if field.name in leave_out or field.primary_key:
            continue
        value = getattr(row, field.name)
        if isinstance(field, ForeignKey):
            value = None if value is None else getattr(value, "name", str(value))
        elif isinstance(value, datetime | date):
            value = value.isoformat()
        found[field.name] = value
    return found


def person_here() -> str:
    """Who sits at this machine's shell, for the record."""
    try:
        return f"{getpass.getuser()} (command)"
    except (KeyError, OSError):
        return "command"


def key_of(actor: Actor) -> Any:
    """The user's key; None where it is no user who is signed in."""
    if actor is None or isinstance(actor, str) or not actor.is_authenticated:
        return None
    return actor.pk


def _name(actor: Actor) -> str:
    if isinstance(actor, str) and actor:
        return actor[:150]
    if actor is None or isinstance(actor, str) or not actor.is_authenticated:
        return f"({_through.get()})"
    return actor.get_username()[:150]
