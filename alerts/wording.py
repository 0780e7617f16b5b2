"""What a notification says: its own words, or a receiver's templates filled in with them.

A template that fails never keeps a message back: the usual words go out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.urls import reverse

from alerts import links, texts
from alerts.message import SEVERITY_NAMES, Message
from alerts.models import Incident, Notification

log = logging.getLogger(__name__)
Reason = Notification.Reason

SUBJECT = "{{ word }}: {{ title }}"
BODY = """{{ sentence }}
{% if anomalies > 1 %}{{ anomalies }} anomalies of {{ sources|join:", " }}, first {{ first_at }}.
{% elif sources %}{{ sources|join:", " }}, {{ first_at }}.
{% endif %}{% if rule %}Rule: {{ rule }}.{% endif %}"""
SENTENCES = {
    Reason.OPENED: "Something is out of the ordinary.",
    Reason.WORSE: "It got worse.",
    Reason.AGAIN: "It goes on, with further anomalies.",
    Reason.REMINDER: "Nobody has acknowledged it so far.",
    Reason.ESCALATED: "Nobody acknowledged it in time, so you are told.",
    Reason.ACKNOWLEDGED: "Somebody takes care of it.",
    Reason.RESOLVED: "It is over.",
    Reason.STILL_FIRING: "It goes on after a silence.",
}
WORDS = {Reason.RESOLVED: "Resolved", Reason.ACKNOWLEDGED: "Acknowledged",
         Reason.REMINDER: "Reminder", Reason.ESCALATED: "Escalated"}  # fmt: skip
NAMES = ("word", "title", "sentence", "reason", "severity", "rule", "stream", "sources",
         "anomalies", "first_at", "last_at", "at", "incident", "url", "assignee",
         "acknowledged_by", "resolved_by", "anomaly")  # fmt: skip
"""What templates may name; ``anomaly`` has source, metric, anomaly_type, anomaly_score, tags."""


def message_of(row: Notification) -> Message:
    """A notification, worded for its receiver."""
    if row.incident is None:
        return _general(row)
    values = values_of(row)
    receiver = row.receiver
    subject = _filled(receiver.subject_template, SUBJECT, values, texts.LONGEST_SUBJECT)
    body = _filled(receiver.body_template, BODY, values, texts.LONGEST_BODY)
    return Message(
        key=row.pk, thread=str(row.incident.key), reason=row.reason, severity=row.severity,
        subject=" ".join(subject.split()) or str(values["title"]), body=body.strip(),
        at=row.event_at, links=_links(row, row.incident), facts=_facts(values),
        payload=dict(row.payload),
    )  # fmt: skip


def values_of(row: Notification) -> dict[str, Any]:
    """What templates see of a notification: as of when it was decided, with the present address."""
    given: Mapping[str, Any] = row.payload or {}
    incident = row.incident
    word = WORDS.get(Reason(row.reason), SEVERITY_NAMES.get(row.severity, "medium").capitalize())
    found = {name: given.get(name) for name in NAMES} | {
        "word": word,
        "title": given.get("title") or (incident.title if incident else "Vigil"),
        "sentence": SENTENCES.get(Reason(row.reason), ""),
        "reason": row.reason,
        "severity": SEVERITY_NAMES.get(row.severity, "medium"),
        "sources": list(given.get("sources") or []),
        "anomalies": int(given.get("anomalies") or 1),
        "first_at": _shown(given.get("first_at")),
        "last_at": _shown(given.get("last_at")),
        "at": _shown(row.event_at.isoformat()),
        "incident": str(incident) if incident else "",
        "url": _incident_url(incident) if incident else "",
        "anomaly": given.get("anomaly") or {},
    }
    return found


def line_of(row: Notification) -> dict[str, str]:
    """One line of a digest."""
    values = values_of(row)
    return {"word": values["word"], "title": values["title"], "at": values["at"],
            "incident": values["incident"], "url": values["url"]}  # fmt: skip


def previewed(subject: str, body: str, row: Notification) -> tuple[str, str]:
    """What templates of a form would give, with names that are not known shown as such.

    Raises:
        texts.TextError: with what is wrong.
    """
    values = values_of(row)
    missing = "⟨%s: not known⟩"
    return (
        " ".join(texts.rendered(subject or SUBJECT, values, texts.LONGEST_SUBJECT,
                                missing).split()),
        texts.rendered(body or BODY, values, texts.LONGEST_BODY, missing).strip(),
    )  # fmt: skip


def _general(row: Notification) -> Message:
    """Words of no incident: tests, digests, budgets."""
    given: Mapping[str, Any] = row.payload or {}
    links_of: tuple[tuple[str, str], ...] = ()
    if row.reason == Reason.TEST:
        by = f" {given['by']} sent it." if given.get("by") else ""
        of = f" The rule {given['rule']} would tell this receiver." if given.get("rule") else ""
        subject, body = (
            "Test: Vigil reaches this receiver",
            f"This is a test, nothing is wrong.{of}{by}",
        )
    elif row.reason == Reason.DIGEST:
        parts = [p for p in given.get("parts") or [] if isinstance(p, dict)]
        subject = f"{len(parts)} notifications"
        body = "\n".join(_digest_line(p) for p in parts)[: texts.LONGEST_BODY]
        if where := links.address("/"):
            links_of = (("Open Vigil", where),)
    else:
        subject = "Budget overspent" if row.reason == Reason.BUDGET else "Vigil"
        if given.get("name"):
            subject = f"{subject}: {given['name']}"[: texts.LONGEST_SUBJECT]
        body = str(given.get("title") or subject)[: texts.LONGEST_BODY]
        if where := links.address("/"):
            links_of = (("Open Vigil", where),)
    return Message(
        key=row.pk, thread=str(row.pk), reason=row.reason, severity=row.severity, subject=subject,
        body=body, at=row.event_at, links=links_of, payload=dict(given),
    )  # fmt: skip


def _digest_line(part: Mapping[str, Any]) -> str:
    line = f"{part.get('word')}: {part.get('title')} ({part.get('incident')}, {part.get('at')})"
    return f"{line} {part['url']}" if part.get("url") else line


def _filled(own: str, usual: str, values: Mapping[str, Any], longest: int) -> str:
    if own:
        try:
            return texts.rendered(own, values, longest)
        except texts.TextError as error:
            log.warning("wording.template_failed error=%s", error)
    return texts.rendered(usual, values, longest)


def _links(row: Notification, incident: Incident) -> tuple[tuple[str, str], ...]:
    where = _incident_url(incident)
    if not where:
        return ()
    found = [("Open in Vigil", where)]
    if row.reason not in (Reason.RESOLVED, Reason.ACKNOWLEDGED):
        found.append(("Acknowledge", links.action_address(incident.pk, "ack")))
    found.append(("False alarm", links.action_address(incident.pk, "false")))
    return tuple(found)


def _incident_url(incident: Incident) -> str:
    return links.address(reverse("incident", args=[incident.pk]))


def _facts(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    sources = [str(s) for s in values["sources"]]
    rows = (
        ("Rule", values["rule"]), ("Severity", values["severity"]),
        ("Sources", ", ".join(sources[:3]) + (f" and {len(sources) - 3} more"
                                              if len(sources) > 3 else "")),
        ("Anomalies", values["anomalies"]), ("Since", values["first_at"]),
        ("Incident", values["incident"]),
    )  # fmt: skip
    return tuple((name, str(value)) for name, value in rows if value)


def _shown(text: Any) -> str:
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return ""
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def sample(receiver: Any) -> Notification:
    """A notification that exists nowhere, for previews."""
    at = datetime(2026, 11, 23, 9, 38, tzinfo=UTC)
    incident = Incident(pk=463, key="8f7c1a52-1111-5222-8333-444455556666",
                        title="Level shift of payment_latency_ms on checkout-eu and 2 more",
                        first_at=at, last_at=at, opened_at=at, severity=4)  # fmt: skip
    return Notification(
        id="1f0c1a52-1111-5222-8333-444455556666", incident=incident, receiver=receiver,
        reason=Reason.OPENED, severity=4, event_at=at, due_at=at,
        payload={
            "title": incident.title, "rule": "Checkout paging", "stream": "webshop",
            "sources": ["checkout-eu", "payments-gw", "db-primary"], "anomalies": 14,
            "first_at": at.isoformat(), "last_at": at.isoformat(),
            "anomaly": {"source": "checkout-eu", "metric": "payment_latency_ms",
                        "anomaly_type": "level_shift", "anomaly_score": 0.97,
                        "tags": {"team": "payments"}},
        },
    )  # fmt: skip
