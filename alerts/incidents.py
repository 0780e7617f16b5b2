"""What people do with incidents, and how an incident's state, timeline and messages are written.

Pages, the API and signed links act through these functions; the evaluator writes by the same ones.
Each action is one transaction on the locked row, leaves an entry in the timeline, and a message
for the topic of alerts where the state changed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, User
from django.db import transaction
from django.utils import timezone

from alerts import live
from alerts.errors import ActionError
from alerts.models import (
    Incident,
    IncidentAnomaly,
    IncidentMessage,
    Notification,
    TimelineEntry,
)
from anomalies import feedback
from anomalies.models import Severity

Actor = AbstractBaseUser | None
State = Incident.State
LONGEST_COMMENT = 4_000
LONGEST_SNOOZE = timedelta(days=30)
STATES = {State.OPEN: "open", State.ACKNOWLEDGED: "acknowledged", State.RESOLVED: "resolved"}


def as_json(incident: Incident) -> dict[str, Any]:
    """As programs read it: in the API, on the topic and in notifications.

    Loads the rule and the people where they are not loaded.
    """
    return {
        "id": str(incident.key),
        "number": incident.pk,
        "title": incident.title,
        "state": str(incident.state),
        "severity": Severity(incident.severity).label,
        "rule": incident.rule.name if incident.rule else None,
        "rule_version": incident.rule_version.number if incident.rule_version else None,
        "group": incident.group,
        "stream": _stream(incident.group),
        "sources": incident.sources,
        "anomalies": incident.anomaly_count,
        "first_at": _text(incident.first_at),
        "last_at": _text(incident.last_at),
        "opened_at": _text(incident.opened_at),
        "acknowledged_at": _text(incident.acknowledged_at),
        "acknowledged_by": _name(incident.acknowledged_by),
        "resolved_at": _text(incident.resolved_at),
        "resolved_by": _name(incident.resolved_by),
        "assignee": _name(incident.assignee),
        "snoozed_until": _text(incident.snoozed_until),
        "merged_into": incident.merged_into_id,
        "label": incident.label or None,
        "reopened": incident.reopened,
        "origin": incident.origin,
    }


def entry_json(entry: TimelineEntry) -> dict[str, Any]:
    """One entry of a timeline as programs read it."""
    return {"at": _text(entry.at), "kind": entry.kind, "text": entry.text, "data": entry.data,
            "by": _name(entry.actor)}  # fmt: skip


def note(
    incident: Incident,
    kind: str,
    text: str,
    *,
    ident: str,
    at: datetime,
    actor: Actor = None,
    data: dict[str, Any] | None = None,
) -> TimelineEntry:
    """An entry of the timeline, not stored yet."""
    return TimelineEntry(
        incident=incident, ident=ident[:120], at=at, kind=kind, text=text,
        actor_id=None if actor is None else actor.pk, data=data or {},
    )  # fmt: skip


def announce(incident: Incident, change: str, at: datetime) -> IncidentMessage:
    """The next message of an incident, not stored yet. Its id is (incident, sequence)."""
    incident.sequence += 1
    payload = as_json(incident) | {
        "message_id": f"{incident.key}:{incident.sequence}",
        "sequence": incident.sequence,
        "change": change,
        "at": _text(at),
    }
    return IncidentMessage(incident=incident, sequence=incident.sequence, payload=payload)


# ---- Actions -------------------------------------------------------------------------------------
def acknowledge(pk: int, user: Actor, *, now: datetime | None = None) -> Incident:
    """Somebody takes care: escalations and reminders end. Again: nothing changes.

    Raises:
        ActionError: it is resolved or was merged.
        Incident.DoesNotExist: there is none of this number.
    """

    def act(incident: Incident, at: datetime) -> None:
        if incident.state == State.ACKNOWLEDGED:
            return
        _not(incident, State.RESOLVED, "acknowledge", "Reopen it first.")
        incident.state, incident.acknowledged_at = State.ACKNOWLEDGED, at
        incident.acknowledged_by_id = _pk(user)
        _cancel(incident, at, only_if_unacknowledged=True)
        _log(incident, "acknowledged", f"{_who(user)} acknowledged it.", at, user, announced=True)

    return _on(pk, act, now)


def resolve(pk: int, user: Actor, *, now: datetime | None = None) -> Incident:
    """It is over, says somebody. A new anomaly opens it again within the rule's time.

    Raises:
        ActionError: it was merged.
        Incident.DoesNotExist: there is none of this number.
    """

    def act(incident: Incident, at: datetime) -> None:
        if incident.state == State.RESOLVED:
            return
        incident.state, incident.resolved_at = State.RESOLVED, at
        incident.resolved_by_id = _pk(user)
        incident.snoozed_until = None
        _cancel(incident, at)
        _log(incident, "resolved", f"{_who(user)} resolved it.", at, user, announced=True)

    return _on(pk, act, now)


def reopen(pk: int, user: Actor, *, now: datetime | None = None) -> Incident:
    """It is not over after all.

    Raises:
        ActionError: it was merged.
        Incident.DoesNotExist: there is none of this number.
    """

    def act(incident: Incident, at: datetime) -> None:
        if incident.state != State.RESOLVED:
            return
        open_again(incident)
        _log(incident, "reopened", f"{_who(user)} opened it again.", at, user, announced=True)

    return _on(pk, act, now)


def assign(
    pk: int, to: User | None, user: Actor, *, now: datetime | None = None
) -> Incident:  # fmt: skip
    """Who is to take care; None: nobody in particular."""

    def act(incident: Incident, at: datetime) -> None:
        if incident.assignee_id == _pk(to):
            return
        incident.assignee = to
        whom = f"assigned it to {to.get_username()}" if to is not None else "assigned it to nobody"
        _log(incident, "assigned", f"{_who(user)} {whom}.", at, user, announced=True)

    return _on(pk, act, now)


def comment(pk: int, text: str, user: Actor, *, now: datetime | None = None) -> Incident:
    """Somebody's words in the timeline.

    Raises:
        ActionError: there are none, or too many.
        Incident.DoesNotExist: there is no incident of this number.
    """
    words = text.strip()
    if not words or len(words) > LONGEST_COMMENT or "\x00" in words:
        raise ActionError(
            "text", "This is no comment that fits.", f"1 to {LONGEST_COMMENT} characters"
        )

    def act(incident: Incident, at: datetime) -> None:
        _log(incident, "comment", words, at, user)

    return _on(pk, act, now, merged=True)


def snooze(
    pk: int, until: datetime | None, user: Actor, *, now: datetime | None = None
) -> Incident:
    """Nobody is told anything of it until then; what became due meanwhile is told at its end.

    ``None`` ends the snooze at once.

    Raises:
        ActionError: the moment is past or too far, or it is resolved or was merged.
        Incident.DoesNotExist: there is none of this number.
    """

    def act(incident: Incident, at: datetime) -> None:
        _not(incident, State.RESOLVED, "snooze", "There is nothing to keep quiet.")
        if until is not None and not at < until <= at + LONGEST_SNOOZE:
            raise ActionError("until", "This moment is past, or too far ahead.",
                              "a moment within the next 30 days")  # fmt: skip
        before, incident.snoozed_until = incident.snoozed_until, until
        waiting = incident.notifications.filter(state=Notification.State.WAITING)
        if until is not None:
            waiting.filter(due_at__lt=until).update(due_at=until)
            said = f"{_who(user)} snoozed it until {until:%Y-%m-%d %H:%M} UTC."
        elif before is None:
            return
        else:
            waiting.filter(due_at=before).update(due_at=at)
            said = f"{_who(user)} ended the snooze."
        _log(incident, "snoozed", said, at, user, announced=True)

    return _on(pk, act, now)


def label(pk: int, value: str, user: Actor, *, now: datetime | None = None) -> Incident:
    """Say what it was; its anomalies take the label as if each had been labelled.

    An anomaly that somebody labelled by itself, otherwise than this incident, keeps that.

    Raises:
        ActionError: there is no such label.
        Incident.DoesNotExist: there is none of this number.
    """
    if value not in Incident.Label.values:
        allowed = ", ".join(filter(None, Incident.Label.values))
        raise ActionError("label", "This is no label.", allowed)

    def act(incident: Incident, at: datetime) -> None:
        before = incident.label
        if before == value:
            return
        incident.label = value
        own = incident.members.filter(anomaly__label__in={"", before}).order_by("anomaly_id")
        keys = list(own.values_list("anomaly_id", flat=True))
        for key in keys:
            feedback.set_label(key, value, user, at)
        said = (
            f"labelled it {Incident.Label(value).label.lower()}" if value else "took the label back"
        )
        kept = incident.members.count() - len(keys)
        rest = f"; {kept} keep labels of their own" if kept else ""
        _log(incident, "labelled", f"{_who(user)} {said}, with {_many(len(keys))}{rest}.", at, user,
             announced=True, data={"label": value or None})  # fmt: skip

    return _on(pk, act, now, merged=True)


def merge(pk: int, into: int, user: Actor, *, now: datetime | None = None) -> Incident:
    """Put an incident into another one: its anomalies move, it is resolved, and it leads there.

    Returns:
        the one that it went into.

    Raises:
        ActionError: they are the same, or one of them was merged already.
        Incident.DoesNotExist: one of the numbers is unknown.
    """
    if pk == into:
        raise ActionError("into", "An incident can't be merged into itself.", "another number")
    at = now or timezone.now()
    with transaction.atomic():
        rows = {i.pk: i for i in Incident.objects.select_for_update(of=("self",))
                .filter(pk__in=[pk, into]).order_by("pk")}  # fmt: skip
        if pk not in rows:
            raise Incident.DoesNotExist
        if into not in rows:
            raise ActionError("into", f"There is no incident {into}.", "the number of an incident")
        gone, target = rows[pk], rows[into]
        for one in (gone, target):
            _not_merged(one, "into" if one is target else "state")
        have = IncidentAnomaly.objects.filter(incident=target).values("anomaly_id")
        gone.members.exclude(anomaly_id__in=have).update(incident=target)
        gone.members.all().delete()
        if gone.state != State.RESOLVED:
            gone.state, gone.resolved_at, gone.resolved_by_id = State.RESOLVED, at, _pk(user)
        gone.merged_into = target
        gone.snoozed_until = None
        _cancel(gone, at)
        target.anomaly_count += gone.anomaly_count
        target.severity = max(target.severity, gone.severity)
        target.first_at = min(target.first_at, gone.first_at)
        target.last_at = max(target.last_at, gone.last_at)
        target.sources = list(dict.fromkeys([*target.sources, *gone.sources]))[:MOST_SOURCES]
        _log(gone, "merged", f"{_who(user)} merged it into {target}.", at, user,
             announced=True, data={"into": target.pk})  # fmt: skip
        _log(target, "merged", f"{_who(user)} merged {gone} into it, with"
             f" {_many(gone.anomaly_count)}.", at, user, announced=True,
             data={"from": gone.pk})  # fmt: skip
        gone.save()
        target.save()
        live.changed([pk, into])
    return target


MOST_SOURCES = 10
"""That an incident's row names; its members name them all."""


def open_again(incident: Incident) -> None:
    """The fields of an incident that is open once more."""
    incident.state = State.OPEN
    incident.resolved_at = incident.acknowledged_at = None
    incident.resolved_by = incident.acknowledged_by = None
    incident.reopened += 1


def _on(
    pk: int,
    act: Callable[[Incident, datetime], None],
    now: datetime | None,
    merged: bool = False,
) -> Incident:
    with transaction.atomic():
        rows = Incident.objects.select_for_update(of=("self",)).select_related(
            "rule", "rule_version", "assignee", "acknowledged_by", "resolved_by"
        )
        incident = rows.get(pk=pk)
        if not merged:
            _not_merged(incident, "state")
        act(incident, now or timezone.now())
        incident.save()
        live.changed([pk])
    return incident


def _log(
    incident: Incident,
    kind: str,
    text: str,
    at: datetime,
    user: Actor,
    *,
    announced: bool = False,
    data: dict[str, Any] | None = None,
) -> None:
    number = incident.timeline.count()
    note(incident, kind, text, ident=f"{kind}-{number}-{at.timestamp():.6f}", at=at, actor=user,
         data=data).save()  # fmt: skip
    if announced:
        announce(incident, kind, at).save()


def _cancel(incident: Incident, at: datetime, **only: Any) -> None:
    """Words that wait for their time and are not needed any more."""
    incident.notifications.filter(state=Notification.State.WAITING, due_at__gt=at, **only).exclude(
        reason=Notification.Reason.RESOLVED
    ).update(state=Notification.State.CANCELLED)


def _not(incident: Incident, state: str, verb: str, hint: str) -> None:
    if incident.state == state:
        raise ActionError("state", f"{incident} is {STATES[State(state)]}: you can't {verb} it.",
                          hint)  # fmt: skip


def _not_merged(incident: Incident, field: str) -> None:
    if incident.merged_into_id is not None:
        raise ActionError(
            field, f"{incident} was merged into INC-{incident.merged_into_id}.",
            f"INC-{incident.merged_into_id}",
        )  # fmt: skip


def _stream(group: str) -> str | None:
    by, _, rest = group.partition(":")
    return None if by == "rule" or not rest else rest.split("/")[0]


def _many(n: int) -> str:
    return f"{n} anomal{'y' if n == 1 else 'ies'}"


def _who(user: Actor) -> str:
    return user.get_username() if user is not None else "The API"


def _pk(user: Actor) -> Any:
    return None if user is None else user.pk


def _name(user: Any) -> str | None:
    return None if user is None else user.get_username()


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")
