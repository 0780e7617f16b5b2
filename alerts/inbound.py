"""Alerts of an Alertmanager, taken in: each becomes an anomaly that opens, and closes when it ends.

The rules judge them like any other, where they name ``alertmanager:*`` as a stream. An alert is
known by its fingerprint and its beginning, so a repeat meets the same row. What Vigil itself sent
to that Alertmanager comes back with its incident's id, and is left out: there is no circle.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from django.db import transaction
from django.db.models import F
from django.utils import timezone
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, ValidationError

from alerts.errors import IntakeError
from alerts.first_rule import once
from alerts.intake import EARLIEST, LATEST, NAMESPACE, push
from alerts.machine import FOREIGN
from alerts.models import InboundAlert, InboundSource, Incident
from alerts.problems import problems_of
from alerts.receivers.alertmanager import INCIDENT_LABEL
from alerts.spec import Group, Matcher, RuleSpec
from anomalies.models import Anomaly, Outbox, Severity
from anomalies.results import result_of
from streams.audit import Actor

log = logging.getLogger(__name__)

Pushed = list[dict[str, Any]]
MOST_ALERTS = 2_000
TYPE = "alert"
RULE = "Alertmanager"
SPEC = RuleSpec(
    match=Matcher(streams=(f"{FOREIGN}*",)),
    group=Group(by="metric", resolve_after_s=1, reopen_within_s=900),
)
SEVERITIES = {
    "critical": Severity.CRITICAL, "page": Severity.CRITICAL, "emergency": Severity.CRITICAL,
    "fatal": Severity.CRITICAL, "p1": Severity.CRITICAL, "high": Severity.HIGH,
    "error": Severity.HIGH, "major": Severity.HIGH, "p2": Severity.HIGH,
    "warning": Severity.MEDIUM, "warn": Severity.MEDIUM, "medium": Severity.MEDIUM,
    "minor": Severity.MEDIUM, "p3": Severity.MEDIUM, "low": Severity.LOW, "info": Severity.LOW,
    "none": Severity.LOW, "notice": Severity.LOW, "p4": Severity.LOW, "p5": Severity.LOW,
}  # fmt: skip
"""What an alert's label ``severity`` means; another word, or none, means medium."""
WHERE = ("instance", "service", "pod", "node", "host", "job", "cluster", "namespace")
"""Labels that say where it is, in this order: the first that is there is the anomaly's source."""


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("text without null characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("valid Unicode") from None
    return text


Text = Annotated[str, Field(max_length=10_000), AfterValidator(_storable)]
Texts = Annotated[dict[Text, Text], Field(max_length=200)]


class Alert(BaseModel):
    """One alert of the message. What else stands in it is not read."""

    status: Literal["firing", "resolved"]
    labels: Texts
    annotations: Texts = Field(default_factory=dict)
    startsAt: AwareDatetime  # noqa: N815  (Alertmanager's names)
    endsAt: AwareDatetime | None = None  # noqa: N815
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{1,64}$")]


class Message(BaseModel):
    """The body of Alertmanager's webhook, version 4."""

    version: Literal["4"]
    alerts: Annotated[list[Alert], Field(max_length=MOST_ALERTS)]
    truncatedAlerts: Annotated[int, Field(ge=0)] = 0  # noqa: N815


@dataclass(slots=True)
class Taken:
    """What became of a message's alerts."""

    new: int = 0
    resolved: int = 0
    repeated: int = 0
    unknown: int = 0  # ended, but nobody told that it began
    own: int = 0  # came from here
    truncated: int = 0

    def as_json(self) -> dict[str, int]:
        return asdict(self)


# ---- Sources and their tokens -------------------------------------------------------------------
def new_token(source: InboundSource) -> str:
    """Give a source another token; it is returned this once and stored only as a hash."""
    token = f"vigil_{secrets.token_urlsafe(32)}"
    source.token_hash = hashed(token)
    source.token_at = timezone.now()
    return token


def hashed(token: str) -> str:
    """As it is stored: it is long and random, so one round is enough."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def source_of(token: str) -> InboundSource | None:
    """The source that sends this token, if it is switched on."""
    return InboundSource.objects.filter(token_hash=hashed(token), enabled=True).first()


def ensure_rule(actor: Actor = None) -> bool:
    """With the first source comes a rule that takes its alerts; whoever retires it, keeps it so."""
    return once("alertmanager rule", RULE, SPEC, actor)


# ---- Taking in ----------------------------------------------------------------------------------
def read(body: Any) -> Message:
    """The message that a JSON body holds; raises IntakeError with the first mistake's place."""
    if not isinstance(body, dict):
        raise IntakeError("body", "The body is no JSON object.", "a message of version 4")
    try:
        message = Message.model_validate(body)
    except ValidationError as error:
        first = problems_of(error, Message)[0]
        raise IntakeError(first.path or "body", f"Found {first.found}.", first.allowed) from None
    for i, alert in enumerate(message.alerts):
        if not EARLIEST <= alert.startsAt.astimezone(UTC) < LATEST:
            raise IntakeError(f"alerts.{i}.startsAt", "This moment is out of range.",
                              "1970 to 2199")  # fmt: skip
    return message


def take_in(message: Message, name: str, source: InboundSource | None = None) -> Taken:
    """Store what is new and what ended, in one transaction.

    Args:
        name: the source's, which is part of the stream's name that rules see.
    """
    taken = Taken(truncated=message.truncatedAlerts)
    own = _own([a for a in message.alerts if a.labels.get(INCIDENT_LABEL)])
    pushed: Pushed = []
    with transaction.atomic():
        for alert in message.alerts:
            if alert.labels.get(INCIDENT_LABEL) in own:
                taken.own += 1
            elif alert.status == "firing":
                _firing(alert, name, source, taken, pushed)
            else:
                _resolved(alert, taken, pushed)
        if source is not None:
            InboundSource.objects.filter(pk=source.pk).update(
                last_at=timezone.now(), alerts=F("alerts") + taken.new, own=F("own") + taken.own
            )
        if pushed:
            transaction.on_commit(lambda: push(pushed))
    if message.truncatedAlerts:
        log.warning("inbound.truncated source=%s alerts=%d", name, message.truncatedAlerts)
    return taken


def _firing(
    alert: Alert, name: str, source: InboundSource | None, taken: Taken, pushed: Pushed
) -> None:  # fmt: skip
    starts = alert.startsAt.astimezone(UTC)
    pk = uuid.uuid5(NAMESPACE, f"alertmanager/{alert.fingerprint}/{starts.isoformat()}")
    known = InboundAlert.objects.filter(fingerprint=alert.fingerprint, starts_at=starts).first()
    if known is not None:
        taken.repeated += 1
        if known.annotations != alert.annotations:
            known.annotations = alert.annotations
            Anomaly.objects.filter(pk=known.anomaly_id).update(message=_words(alert))
        known.save(update_fields=["annotations", "received_at"])
        return
    anomaly, made = Anomaly.objects.get_or_create(id=pk, defaults=_columns(alert, name, starts))
    if not made:  # another request stores it at this moment
        taken.repeated += 1
        return
    InboundAlert.objects.create(
        fingerprint=alert.fingerprint, starts_at=starts, anomaly=anomaly, source=source,
        source_name=name, labels=alert.labels, annotations=alert.annotations,
    )  # fmt: skip
    result = result_of(anomaly)
    _change(anomaly, 0, Outbox.Kind.ONSET, result)
    pushed.append(result | {"change": "onset"})
    taken.new += 1


def _resolved(alert: Alert, taken: Taken, pushed: Pushed) -> None:
    starts = alert.startsAt.astimezone(UTC)
    rows = InboundAlert.objects.select_for_update(of=("self",)).select_related("anomaly")
    known = rows.filter(fingerprint=alert.fingerprint, starts_at=starts).first()
    if known is None:
        taken.unknown += 1
        return
    if known.ends_at is not None:
        taken.repeated += 1
        return
    ends = alert.endsAt.astimezone(UTC) if alert.endsAt is not None else timezone.now()
    known.ends_at = min(max(ends, starts), timezone.now())
    known.save(update_fields=["ends_at", "received_at"])
    anomaly = known.anomaly
    anomaly.state, anomaly.end_at = Anomaly.State.CLOSED, known.ends_at
    anomaly.save(update_fields=["state", "end_at", "updated_at"])
    result = result_of(anomaly)
    _change(anomaly, 1, Outbox.Kind.CLOSED, result | {"at": result["end_timestamp"]})
    pushed.append(result | {"change": "closed"})
    taken.resolved += 1


def _own(alerts: list[Alert]) -> set[str]:
    """Ids among their labels that are of incidents of this Vigil."""
    given = {a.labels[INCIDENT_LABEL] for a in alerts}
    keys = {}
    for text in given:
        try:
            keys[uuid.UUID(text)] = text
        except ValueError:
            continue
    found = Incident.objects.filter(key__in=list(keys)).values_list("key", flat=True)
    return {keys[key] for key in found}


def _columns(alert: Alert, name: str, starts: datetime) -> dict[str, Any]:
    labels = alert.labels
    where = next((labels[n] for n in WHERE if labels.get(n)), name)
    return {
        "source": where[:255], "metric": (labels.get("alertname") or "alert")[:255],
        "origin": Anomaly.Origin.ALERTMANAGER, "kind": TYPE, "anomaly_type": TYPE,
        "state": Anomaly.State.OPEN, "severity": severity_of(labels), "onset_at": starts,
        "end_at": starts, "peak_at": starts, "message": _words(alert),
    }  # fmt: skip


def severity_of(labels: Mapping[str, str]) -> Severity:
    """By the label ``severity``, or ``priority``."""
    word = labels.get("severity") or labels.get("priority") or ""
    return SEVERITIES.get(word.strip().lower(), Severity.MEDIUM)


def _words(alert: Alert) -> str:
    given = alert.annotations
    said = [given.get(n, "").strip() for n in ("summary", "description", "message")]
    return "\n".join(s for s in dict.fromkeys(said) if s)[:4_000]


def _change(anomaly: Anomaly, sequence: int, kind: Outbox.Kind, payload: dict[str, Any]) -> None:
    # It came from elsewhere: the topic of results is for what was found here.
    Outbox.objects.create(
        anomaly=anomaly, sequence=sequence, kind=kind, published_at=timezone.now(),
        payload=payload | {"sequence": sequence, "change": kind.value},
    )  # fmt: skip
