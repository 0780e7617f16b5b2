"""Who changed what, with before and after: one row for each change, in its own transaction."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db.models import Model

from alerts.models import AuditEntry

Actor = AbstractBaseUser | AnonymousUser | None


def record(
    actor: Actor,
    action: AuditEntry.Action,
    thing: Model,
    before: Any = None,
    after: Any = None,
    *,
    via: str = "page",
    reverts: AuditEntry | None = None,
) -> AuditEntry:
    """Write an entry; where nothing is known of who it was, it says so."""
    user = actor if actor is not None and actor.is_authenticated else None
    return AuditEntry.objects.create(
        actor_id=user.pk if user is not None else None,
        actor_name=user.get_username()[:150] if user is not None else f"({via})",
        via=via, action=action, kind=thing._meta.label, object_id=str(thing.pk)[:60],
        object_name=str(thing)[:300], before=before, after=after, reverts=reverts,
    )  # fmt: skip
