"""What delivery does now and then, beside sending: all of it harmless when repeated.

People's acknowledgements and ends go to the receivers that had heard of the incident; what waits
for a receiver that is switched off is cancelled; and the dead-man's address is asked while
consumers and evaluator live, so that a service elsewhere notices when they don't.
"""

from __future__ import annotations

import logging
import threading
import uuid
from datetime import datetime, timedelta

from django.conf import settings
from django.db import DatabaseError, connection
from django.utils import timezone

from alerts import incidents, leases, outgoing, vault
from alerts.models import Incident, IncidentMessage, Lease, Notification, Receiver
from alerts.outgoing import Client, Guard
from streams.models import ConsumerStatus

log = logging.getLogger(__name__)

EVERY_S = 2.0
LOOK_BACK = 500
"""Messages that are looked at each time: ids are given before they are committed, so a later look
may find an earlier one."""
RECENT = timedelta(hours=1)
ALIVE = timedelta(seconds=60)
EVALUATOR, DEAD_MAN = "evaluator", "dead-man"
_NAMESPACE = uuid.UUID("2a6f1d9e-7f34-5d0b-a4b2-6b7c1e9f0a55")
Reason, State = Notification.Reason, Notification.State
KNOWS_ACKNOWLEDGED = ("pagerduty", "webhook")
"""Kinds that are told of an acknowledgement: it changes something at the other end."""


def run(owner: str, stop: threading.Event) -> None:
    """Rounds until ``stop`` is set."""
    while not stop.is_set():
        try:
            now = timezone.now()
            follow_people(now)
            cancel_switched_off()
            ask_dead_man(owner, now)
        except DatabaseError as error:
            log.warning("rounds.postponed error=%s", " ".join(str(error).split())[:300])
            connection.close()
        stop.wait(EVERY_S)
    connection.close()


def follow_people(now: datetime) -> int:
    """Write what receivers are to hear of what people did to incidents; returns how many.

    Whoever was told that it began is told that somebody takes care (where that kind knows such a
    thing) or that it is over. The evaluator tells of the ends that it finds itself.
    """
    found = IncidentMessage.objects.filter(created_at__gte=now - RECENT).select_related(
        "incident__rule_version"
    )
    written = 0
    for message in found.order_by("-id")[:LOOK_BACK]:
        change, incident = message.payload.get("change"), message.incident
        if change == "acknowledged" and incident.state == Incident.State.ACKNOWLEDGED:
            written += _tell(message, Reason.ACKNOWLEDGED, now)
        elif change == "resolved" and incident.state == Incident.State.RESOLVED:
            version = incident.rule_version
            if version is None or version.spec.get("tell_resolved", True):
                written += _tell(message, Reason.RESOLVED, now)
    return written


def _tell(message: IncidentMessage, reason: Notification.Reason, now: datetime) -> int:
    incident = message.incident
    rows = Notification.objects.filter(incident=incident)
    heard = rows.filter(state__in=(State.SENT, State.DIGESTED, State.SENDING))
    told = set(heard.exclude(reason__in=(Reason.TEST,)).values_list("receiver_id", flat=True))
    # Those of the evaluator were stored with the message; ours have this message's number.
    told -= set(
        rows.filter(reason=reason, created_at__gte=message.created_at - timedelta(seconds=5))
        .values_list("receiver_id", flat=True)
    )  # fmt: skip
    if not told:
        return 0
    receivers = Receiver.objects.filter(pk__in=told, enabled=True)
    if reason == Reason.ACKNOWLEDGED:
        receivers = receivers.filter(kind__in=KNOWS_ACKNOWLEDGED)
    made = [
        Notification(
            id=uuid.uuid5(_NAMESPACE, f"{incident.key}/{r.pk}/{reason}/{message.sequence}"),
            incident=incident, rule_version=incident.rule_version, receiver=r, reason=reason,
            severity=incident.severity, event_at=now, due_at=now,
            payload=incidents.as_json(incident) | {"reason": str(reason)},
        )
        for r in receivers
    ]  # fmt: skip
    Notification.objects.bulk_create(made, ignore_conflicts=True)
    return len(made)


def cancel_switched_off() -> int:
    """What waits for a receiver that was switched off is not sent once it is on again."""
    waiting = Notification.objects.filter(
        state=State.WAITING, receiver__enabled=False, due_at__lte=timezone.now()
    )
    return waiting.exclude(reason=Reason.TEST).update(
        state=State.CANCELLED, last_error="The receiver is switched off."
    )


def alive(now: datetime) -> bool:
    """Whether a consumer and the evaluator have given a sign within the last minute."""
    consumers = ConsumerStatus.objects.filter(beat_at__gte=now - ALIVE).exclude(state="stopped")
    return consumers.exists() and Lease.objects.filter(name=EVALUATOR, until__gt=now).exists()


def ask_dead_man(owner: str, now: datetime, client: Client | None = None) -> bool:
    """GET the dead-man's address, at most each ``dead_man_s`` of all processes, while all is well.

    Returns whether it was asked and answered with success.
    """
    given = settings.VIGIL.alerts
    if given.dead_man_url is None or not alive(now):
        return False
    if leases.take(DEAD_MAN, owner, given.dead_man_s) is None:
        return False
    url = given.dead_man_url.get_secret_value()
    try:
        answer = (client or Client(Guard.of(given.allowed_networks))).request("GET", url)
    except outgoing.OutgoingError as error:
        log.warning("dead_man.unreachable error=%s", vault.struck(str(error), [url]))
        return False
    if not 200 <= answer.status < 300:
        log.warning("dead_man.refused status=%s", answer.status)
        return False
    return True
