"""Takes changes back: what that would do, whether later changes stand against it, and doing it.

Taking back is a change like any other: it is written down, names the entry that it takes back, and
can be taken back itself. A rule's text only becomes a draft, which goes live through its preview.
"""

from __future__ import annotations

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from alerts.audit_words import kind_word
from alerts.undo import Person, Plan, RevertError
from alerts.undo_kinds import KINDS
from streams import audit
from streams.models import AuditEntry
from streams.roles import may_operate


def plan(entry: AuditEntry) -> Plan:
    """What would be done; raises :class:`RevertError` where nothing can be."""
    kind = KINDS.get(entry.kind)
    if kind is None:
        raise RevertError(f"Changes of this kind ({kind_word(entry.kind)}) are not taken back.")
    return kind.plan(entry)


def may(entry: AuditEntry, user: Person) -> bool:
    """Whether this person may take it back: who may make such a change may undo one."""
    if entry.kind == "detection.ThresholdPolicy":
        return bool(user.has_perm("detection.change_thresholdpolicy")) if isinstance(user, User) \
            else False  # fmt: skip
    return may_operate(user)


def take_back(entry: AuditEntry, user: Person, seen: str, anyway: bool = False) -> Plan:
    """Do what :func:`plan` said.

    Args:
        seen: the plan's that was looked at.
        anyway: over later changes too.

    Raises:
        RevertError: it can't be done, or not so: the text says why.
    """
    try:
        with transaction.atomic(), audit.taking_back(entry):
            found = plan(entry)
            if found.seen != seen:
                raise RevertError("It has changed since you looked. Look at it again, then decide.")
            if found.conflicts and not anyway:
                raise RevertError("It was changed again since: say that those changes go as well.")
            KINDS[entry.kind].do(entry, found, user)
    except IntegrityError:
        raise RevertError("It can't be so again: another one has its name by now.") from None
    except ValidationError as error:
        raise RevertError(" ".join(error.messages)) from None
    return found
