"""Writes what a rule's machine decided: incidents, members, timeline, messages, notifications.

Everything is written whole at the end of a round, inside its transaction; ids come from the
incident's key, so that a round that is repeated meets the same rows.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from alerts import live
from alerts.incidents import MOST_SOURCES, announce, as_json, note, open_again
from alerts.machine import (
    FOREIGN,
    Decision,
    Held,
    Joined,
    Machine,
    Opened,
    Reopened,
    Resolved,
    Signal,
    Worse,
)
from alerts.models import (
    Incident,
    IncidentAnomaly,
    IncidentMessage,
    Notification,
    Receiver,
    Rule,
    RuleVersion,
    TimelineEntry,
)
from alerts.routing import Notice, Routed
from anomalies.models import Anomaly, Severity
from streams.clock import from_us

ALERTMANAGER = Receiver.Kind.ALERTMANAGER
_NAMESPACE = uuid.UUID("b3a1d9a0-6d0a-5c53-8e0f-0d8b7f0c6a11")


def notification_id(key: str, receiver: int, reason: str, number: int) -> uuid.UUID:
    """The id, and idempotency key, of an incident's ``number``-th word to a receiver."""
    return uuid.uuid5(_NAMESPACE, f"{key}/{receiver}/{reason}/{number}")


@dataclass(slots=True)
class _Page:
    """One incident in this round."""

    incident: Incident
    joined: list[Signal] = field(default_factory=list)
    joined_us: int = 0
    grouped: int = 0
    changes: list[tuple[str, datetime]] = field(default_factory=list)
    entries: list[TimelineEntry] = field(default_factory=list)
    notices: list[tuple[Notice, Signal]] = field(default_factory=list)


class Ledger:
    """One rule's decisions of one round.

    Args:
        incidents: those that the machine knows, locked, by key.
        receivers: by name.
        now: wall-clock time of the round.
    """

    def __init__(
        self,
        rule: Rule,
        version: RuleVersion,
        incidents: Mapping[str, Incident],
        receivers: Mapping[str, Receiver],
        now: datetime,
    ) -> None:
        self._rule, self._version, self._now = rule, version, now
        self._receivers = receivers
        self._pages = {key: _Page(incident) for key, incident in incidents.items()}
        self._touched: dict[str, None] = {}
        self.notifications = 0

    def see(self, decision: Decision) -> None:
        """Take one decision down."""
        if not decision.key:
            return
        if isinstance(decision, Opened):
            self._open(decision)
        page = self._pages.get(decision.key)
        if page is None:
            return
        self._touched[decision.key] = None
        incident, at = page.incident, from_us(decision.at_us)
        incident.last_at = max(incident.last_at, at)
        if isinstance(decision, Joined):
            page.joined.append(decision.signal)
            page.joined_us = decision.at_us
        elif isinstance(decision, Worse):
            incident.severity = decision.severity
            self._note(page, "worse", f"worse-{decision.at_us}-{decision.severity}", at,
                       f"Now {_rank(decision.severity)}: {_about(decision.signal)}.",
                       announced="worse")  # fmt: skip
        elif isinstance(decision, Reopened):
            self._reopen(page, decision, at)
        elif isinstance(decision, Resolved):
            self._resolve(page, decision, at)
        elif isinstance(decision, Held):
            self._held(page, decision, at)
        elif isinstance(decision, Routed):
            self._told(page, decision, at)

    def write(self, machines: Mapping[str, Machine]) -> None:
        """Store it all. ``machines``: by incident, for who takes part by now."""
        pages = [self._pages[key] for key in self._touched]
        for page in pages:
            machine = machines.get(str(page.incident.key))
            sources = machine.sources(str(page.incident.key)) if machine else []
            self._settle(page, sources)
        fresh = [p.incident for p in pages if p.incident.pk is None]
        Incident.objects.bulk_create(fresh)
        for page in pages:
            for entry in page.entries:
                entry.incident = page.incident
        self._members(pages)
        messages: list[IncidentMessage] = []
        for page in pages:
            messages += [announce(page.incident, change, at) for change, at in page.changes]
        words = [n for page in pages for n in self._words(page)]
        Incident.objects.bulk_update(
            [p.incident for p in pages],
            ["title", "state", "severity", "first_at", "last_at", "anomaly_count", "sources",
             "acknowledged_at", "acknowledged_by", "resolved_at", "resolved_by", "reopened",
             "snoozed_until", "last_notified_at", "sequence", "updated_at"],
        )  # fmt: skip
        TimelineEntry.objects.bulk_create(
            [e for page in pages for e in page.entries], ignore_conflicts=True
        )
        IncidentMessage.objects.bulk_create(messages)
        Notification.objects.bulk_create(words, ignore_conflicts=True)
        self.notifications = len(words)
        live.changed(p.incident.pk for p in pages)

    # -- decisions -----------------------------------------------------------------------------

    def _open(self, decision: Opened) -> None:
        signal, at = decision.signal, from_us(decision.at_us)
        known = self._pages.get(decision.key)
        if known is not None:
            return
        incident = Incident(
            key=uuid.UUID(decision.key), rule=self._rule, rule_version=self._version,
            group=decision.group[:600], title=title_of(signal), severity=signal.severity,
            first_at=from_us(signal.at_us if signal.onset_us is None else signal.onset_us),
            last_at=at, opened_at=self._now, sources=[signal.source], origin=_origin(signal),
        )  # fmt: skip
        page = _Page(incident, joined=[signal], joined_us=decision.at_us)
        self._pages[decision.key] = page
        self._note(page, "opened", "opened", at, f"{_about(signal)}.", announced="opened")

    def _reopen(self, page: _Page, decision: Reopened, at: datetime) -> None:
        incident = page.incident
        if incident.state == Incident.State.RESOLVED:
            open_again(incident)
        incident.severity = decision.severity
        self._note(page, "reopened", f"reopened-{decision.at_us}", at,
                   f"It is back: {_about(decision.signal)}.", announced="reopened")  # fmt: skip

    def _resolve(self, page: _Page, decision: Resolved, at: datetime) -> None:
        incident = page.incident
        incident.state, incident.resolved_at = Incident.State.RESOLVED, self._now
        incident.resolved_by, incident.snoozed_until = None, None
        self._note(page, "resolved", f"resolved-{decision.at_us}", at,
                   "Resolved by itself: nothing of it is open any more.",
                   announced="resolved")  # fmt: skip
        if incident.pk is not None:
            incident.notifications.filter(
                state=Notification.State.WAITING, due_at__gt=self._now
            ).update(state=Notification.State.CANCELLED)

    def _held(self, page: _Page, decision: Held, at: datetime) -> None:
        if decision.why == "grouping":
            page.grouped += 1
        elif decision.why == "cooldown":
            self._note(page, "held", f"held-cooldown-{decision.at_us}", at,
                       "Not told yet: the rule's cool-down runs.",
                       data={"why": "cooldown"})  # fmt: skip

    def _told(self, page: _Page, routed: Routed, at: datetime) -> None:
        tell = routed.tell
        ident = f"{tell.reason}-{tell.number}"
        if routed.kept == "silence":
            self._note(page, "held", f"held-silence-{tell.number}", at,
                       f"Nobody was told: the silence “{routed.by}” holds.",
                       data={"why": "silence", "silence": routed.by})  # fmt: skip
            return
        if not routed.notices:
            text = "Nobody was told: " + (
                "no receiver of the rule takes this." if self._version.spec.get("send")
                else "the rule has no receivers."
            )  # fmt: skip
            if tell.reason != "resolved":
                self._note(page, "held", f"held-{ident}", at, text, data={"why": "receivers"})
            return
        incident = page.incident
        names = []
        for notice in routed.notices:
            receiver = self._receivers.get(notice.receiver)
            if why := _unfit(receiver, incident):
                self._note(page, "held", f"held-{ident}-{notice.receiver}", at,
                           f"{notice.receiver} was not told: {why}.",
                           data={"why": "receiver", "receiver": notice.receiver})  # fmt: skip
            elif notice.after_s > 0 and incident.state == Incident.State.ACKNOWLEDGED:
                continue
            else:
                page.notices.append((notice, tell.signal))
                later = f" in {notice.after_s / 60:g} min" if notice.after_s > 0 else ""
                names.append(notice.receiver + later)
        if names:
            self._note(page, "notified", f"notified-{ident}", at,
                       f"{_REASONS[tell.reason]}: {', '.join(names)}.",
                       data={"reason": tell.reason, "receivers": names})  # fmt: skip

    def _note(
        self, page: _Page, kind: str, ident: str, at: datetime, text: str, *,
        announced: str = "", data: dict[str, object] | None = None,
    ) -> None:  # fmt: skip
        text = text[0].upper() + text[1:]
        given = (data or {}) | {"event_at": at.isoformat()}
        page.entries.append(note(page.incident, kind, text, ident=ident, at=self._now, data=given))
        if announced:
            page.changes.append((announced, at))

    # -- rows ----------------------------------------------------------------------------------

    def _settle(self, page: _Page, sources: list[str]) -> None:
        """The incident's row as it is after the round."""
        incident = page.incident
        incident.updated_at = self._now
        incident.anomaly_count += len(page.joined)
        if sources:
            incident.sources = sources[:MOST_SOURCES]
        first = min((s.onset_us or s.at_us for s in page.joined), default=None)
        if first is not None:
            incident.first_at = min(incident.first_at, from_us(first))
        if len(sources) > 1:
            base = _MORE.sub("", incident.title)
            incident.title = f"{base[:280]} and {len(sources) - 1} more"
        joined = page.joined[1:] if incident.pk is None else page.joined
        if joined:
            several = {s.source for s in joined}
            text = _about(joined[0]) if len(joined) == 1 else (
                f"{len(joined)} more anomalies of {_sources(several)}"
            )  # fmt: skip
            grouped = f" {page.grouped} were not told by themselves." if page.grouped else ""
            self._note(page, "joined", f"joined-{joined[0].anomaly}", from_us(page.joined_us),
                       f"{text}.{grouped}", data={"count": len(joined)})  # fmt: skip

    def _members(self, pages: list[_Page]) -> None:
        wanted = {
            uuid.UUID(s.anomaly): page.incident
            for page in pages
            for s in page.joined
            if s.what == "anomaly"
        }
        there = set(Anomaly.objects.filter(pk__in=list(wanted)).values_list("pk", flat=True))
        IncidentAnomaly.objects.bulk_create(
            [IncidentAnomaly(incident=i, anomaly_id=a) for a, i in wanted.items() if a in there],
            ignore_conflicts=True,
        )

    def _words(self, page: _Page) -> list[Notification]:
        incident = page.incident
        found = []
        for notice, signal in page.notices:
            receiver = self._receivers[notice.receiver]
            if notice.if_told and not _was_escalated(incident, receiver):
                continue
            due = self._now + timedelta(seconds=notice.after_s)
            if incident.snoozed_until is not None:
                due = max(due, incident.snoozed_until)
            found.append(
                Notification(
                    id=notification_id(notice.key, receiver.pk, notice.reason, notice.number),
                    incident=incident, rule_version=self._version, receiver=receiver,
                    reason=notice.reason, severity=notice.severity,
                    event_at=from_us(notice.at_us), due_at=due,
                    only_if_unacknowledged=notice.after_s > 0,
                    payload=as_json(incident) | {
                        "reason": notice.reason, "event_at": from_us(notice.at_us).isoformat(),
                        "notified_severity": str(Severity(notice.severity).label),
                        "anomaly": _signal_json(signal),
                    },
                )
            )  # fmt: skip
        if found:
            incident.last_notified_at = self._now
        return found


def _unfit(receiver: Receiver | None, incident: Incident) -> str:
    """Why a receiver can't be told of an incident; empty where it can."""
    if receiver is None:
        return "this receiver does not exist"
    if not receiver.enabled:
        return "this receiver is switched off"
    if incident.origin == Incident.Origin.ALERTMANAGER and receiver.kind == ALERTMANAGER:
        return "what came from an Alertmanager is not sent to one, or it would go round in circles"
    return ""


def _was_escalated(incident: Incident, receiver: Receiver) -> bool:
    if incident.pk is None:
        return False
    return Notification.objects.filter(
        incident=incident, receiver=receiver, reason=Notification.Reason.ESCALATED,
        state__in=(Notification.State.SENT, Notification.State.SENDING),
    ).exists()  # fmt: skip


_REASONS = {
    "opened": "To be told", "worse": "To be told that it is worse",
    "again": "To be told again", "resolved": "To be told that it is over",
    "still_firing": "To be told that it goes on after a silence",
}  # fmt: skip


_MORE = re.compile(r" and \d+ more$")


def _origin(signal: Signal) -> str:
    foreign = signal.stream.startswith(FOREIGN)
    return Incident.Origin.ALERTMANAGER if foreign else Incident.Origin.VIGIL


def title_of(signal: Signal) -> str:
    """What an incident is called by its first anomaly; " and 3 more" counts further sources."""
    if signal.what == "pipeline":
        return f"Pipeline: {signal.metric}"
    words = {"no_events": "no events", "drift": "drift"}.get(
        signal.what, signal.kind.replace("_", " ")
    )
    named = f"{words[:1].upper()}{words[1:]} of {signal.metric or 'all metrics'} on {signal.source}"
    return named[:300]


def _about(signal: Signal) -> str:
    score = (
        "" if signal.score is None or signal.what != "anomaly" else f", score {signal.score:.2f}"
    )
    return f"{title_of(signal)}, {_rank(signal.severity)}{score}"


def _signal_json(signal: Signal) -> dict[str, object]:
    return {
        "id": signal.anomaly, "stream": signal.stream, "source": signal.source,
        "metric": signal.metric, "anomaly_type": signal.kind, "anomaly_score": signal.score,
        "severity": _rank(signal.severity), "direction": signal.direction,
        "tags": dict(signal.tags),
    }  # fmt: skip


def _rank(severity: int) -> str:
    return str(Severity(severity).label)


def _sources(several: set[str]) -> str:
    return sorted(several)[0] if len(several) == 1 else f"{len(several)} sources"
