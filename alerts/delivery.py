"""Sends what is due: claims a notification, tries once, and keeps how that ended.

Any number of workers may run and be killed at any time. A claim is one transaction: the row is
taken by ``SKIP LOCKED``, its receiver gives a token of its rate, and the attempt stands as
``unknown`` before anything is sent. Who dies amid sending leaves exactly that; the claim lapses,
and the notification goes out again under the same key. Within an incident a receiver hears things
in the order in which they were decided.
"""

from __future__ import annotations

import logging
import random
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import F, Q
from django.utils import timezone
from pydantic import ValidationError

from alerts import live, vault, wording
from alerts.hours import Timetable
from alerts.models import Attempt, Incident, Notification, Receiver, TimelineEntry
from alerts.outgoing import Client, Guard
from alerts.receivers import KINDS, Result
from anomalies.models import Severity

log = logging.getLogger(__name__)

Outcome, Reason, State = Attempt.Outcome, Notification.Reason, Notification.State
CHANNEL = "vigil_notifications"
SWEEP_S = 2.0
AT_ONCE = 3
"""Most sends to one receiver at a time: a slow one does not keep all workers."""
BACKOFF_S, LONGEST_BACKOFF_S = 2.0, 900.0
BREAKS_AFTER, BREAK_S, LONGEST_BREAK_S = 5, 30.0, 600.0
SLOW_DOWN_S = 60.0
PUT_OFF = timedelta(seconds=60)
REPEATED = frozenset({Reason.OPENED, Reason.WORSE, Reason.AGAIN, Reason.REMINDER,
                      Reason.STILL_FIRING, Reason.ESCALATED})  # fmt: skip
"""After these a reminder follows, where the rule wants one."""
FIRST = (64, 1_000_000)
"""So many of what is due are looked at; all of it where those wait for others before them."""
SETTLED = ("state", "last_error", "claimed_by", "claimed_until")
_NAMESPACE = uuid.UUID("7d9f3c52-0c1e-5b7e-8a55-3f0f5b1c2d11")

_DUE = """
WITH busy AS MATERIALIZED (
  SELECT receiver_id, count(*) AS n FROM alerts_notification
  WHERE state = 'sending' AND claimed_until > %(now)s GROUP BY receiver_id
), open AS MATERIALIZED (
  SELECT r.id FROM alerts_receiver r LEFT JOIN busy ON busy.receiver_id = r.id
  WHERE r.enabled
    AND (r.closed_until IS NULL OR r.closed_until <= %(now)s)
    AND (r.tokens_at IS NULL OR LEAST(r.per_minute, r.tokens + r.per_minute / 60.0
         * EXTRACT(EPOCH FROM %(now)s - r.tokens_at)) >= 1)
    AND COALESCE(busy.n, 0) < %(at_once)s
), first AS MATERIALIZED (
  SELECT n.id FROM alerts_notification n
  WHERE n.due_at <= %(now)s
    AND (n.state = 'waiting' OR (n.state = 'sending' AND n.claimed_until <= %(now)s))
    AND (n.reason = 'test' OR n.receiver_id IN (SELECT id FROM open))
  ORDER BY n.due_at, n.created_at LIMIT %(most)s
)
SELECT n.id FROM alerts_notification n
WHERE n.id IN (SELECT id FROM first) AND n.due_at <= %(now)s
  AND (n.state = 'waiting' OR (n.state = 'sending' AND n.claimed_until <= %(now)s))
  AND NOT EXISTS (
    SELECT 1 FROM alerts_notification b
    WHERE b.incident_id = n.incident_id AND b.receiver_id = n.receiver_id AND b.id <> n.id
      AND b.state IN ('waiting', 'sending')
      AND (b.created_at, b.id) < (n.created_at, n.id)
      AND (b.state = 'sending' OR b.attempts > 0 OR b.due_at <= %(now)s))
ORDER BY n.due_at, n.created_at
LIMIT 1 FOR UPDATE OF n SKIP LOCKED
"""
# A receiver that is tried again after its breaker's time gets one try: the others wait for it.
_TAKE = """
UPDATE alerts_receiver SET
  tokens = CASE WHEN tokens_at IS NULL THEN GREATEST(per_minute, 1) ELSE LEAST(per_minute,
    tokens + per_minute / 60.0 * EXTRACT(EPOCH FROM %(now)s - tokens_at)) END - 1,
  tokens_at = %(now)s,
  closed_until = CASE WHEN failures_in_a_row >= %(breaks)s THEN %(probe)s ELSE closed_until END
WHERE id = %(receiver)s AND (closed_until IS NULL OR closed_until <= %(now)s)
  AND (tokens_at IS NULL OR LEAST(per_minute, tokens + per_minute / 60.0
       * EXTRACT(EPOCH FROM %(now)s - tokens_at)) >= 1)
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A notification that is ours to send until ``claimed_until``."""

    notification: Notification
    attempt: Attempt


@dataclass(slots=True)
class Deliverer:
    """One worker.

    Args:
        owner: names it, among all of the installation.
        client: makes the requests.
        claim_s: how long a claim holds; longer than any try may take.
        dice: for jitter.
    """

    owner: str
    client: Client
    claim_s: float = 60.0
    max_attempts: int = 20
    now: Callable[[], datetime] = timezone.now
    dice: random.Random = field(default_factory=random.Random)

    @classmethod
    def of_settings(cls, owner: str) -> Deliverer:
        """As the configuration says."""
        given = settings.VIGIL.alerts
        return cls(owner, Client(Guard.of(given.allowed_networks)), given.claim_s,
                   given.max_attempts)  # fmt: skip

    def step(self) -> bool:
        """Look at one notification that is due; False where none is."""
        claimed = self._claim()
        if isinstance(claimed, Claim):
            self.finish(claimed, self._send(claimed.notification))
        return claimed is not None

    def drain(self, most: int = 10_000) -> int:
        """Steps until nothing is due; returns how many."""
        return next((n for n in range(most) if not self.step()), most)

    # -- claiming ------------------------------------------------------------------------------

    def _claim(self) -> Claim | bool | None:
        """A claim; True where a row was dealt with otherwise; None where nothing is due."""
        now = self.now()
        with transaction.atomic(), connection.cursor() as cursor:
            found = None
            for most in FIRST:
                cursor.execute(_DUE, {"now": now, "at_once": AT_ONCE, "most": most})
                if (found := cursor.fetchone()) is not None:
                    break
            else:
                return None
            rows = Notification.objects.select_related("receiver", "receiver__quiet_hours")
            row = rows.select_related("incident", "rule_version__rule").get(pk=found[0])
            if self._settled(row, now):
                return True
            if row.reason != Reason.TEST and not self._token(cursor, row.receiver_id, now):
                return True  # another worker took the last one between the two statements
            number = row.attempts + 1
            attempt = Attempt.objects.create(
                notification=row, number=number, started_at=now, outcome=Outcome.UNKNOWN,
                worker=self.owner[:100],
            )  # fmt: skip
            row.state, row.attempts = State.SENDING, number
            row.claimed_by, row.claimed_until = self.owner[:100], self._until(now)
            row.save(update_fields=["state", "attempts", "claimed_by", "claimed_until"])
        return Claim(row, attempt)

    def _token(self, cursor: Any, receiver: int, now: datetime) -> bool:
        cursor.execute(_TAKE, {"now": now, "receiver": receiver, "breaks": BREAKS_AFTER,
                                "probe": self._until(now)})  # fmt: skip
        return bool(cursor.rowcount)

    def _until(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self.claim_s)

    def _settled(self, row: Notification, now: datetime) -> bool:
        """Whether a due row needs no sending now: cancelled, put off, or collected."""
        if row.attempts - row.forgiven >= self.max_attempts:
            _die(row, row.last_error or "The sender died each time.", now)
            return True
        if why := _needless(row):
            row.state, row.last_error = State.CANCELLED, why
            row.save(update_fields=["state", "last_error"])
            return True
        if row.reason in (Reason.TEST, Reason.DIGEST) or row.attempts:
            return False
        snoozed = row.incident.snoozed_until if row.incident is not None else None
        if snoozed is not None and snoozed > now:
            return _put_off(row, snoozed)
        if row.severity >= Severity.CRITICAL:
            return False
        if end := _quiet_until(row.receiver, now):
            return _put_off(row, end)
        return row.receiver.digest_minutes > 0 and _collected(row, now)

    # -- sending -------------------------------------------------------------------------------

    def _send(self, row: Notification) -> Result:
        """One try. Whatever goes wrong is a result: a worker outlives its receivers."""
        receiver = row.receiver
        kind = KINDS.get(receiver.kind)
        if kind is None:
            return Result(Outcome.PERMANENT, "kind", f"There is no kind {receiver.kind!r}.")
        try:
            secrets = vault.revealed(receiver.secrets)
        except vault.SecretError as error:
            return Result(Outcome.PERMANENT, "secret", str(error))
        try:
            result = kind.send(wording.message_of(row), receiver.settings, secrets, self.client)
        except Exception as error:
            log.exception("delivery.failed kind=%s notification=%s", receiver.kind, row.pk)
            result = Result(Outcome.TRANSIENT, "fault", f"{type(error).__name__} in Vigil itself.")
        excerpt = vault.struck(result.excerpt, secrets.values())
        return Result(result.outcome, vault.struck(result.status, secrets.values()), excerpt,
                      result.wait_s)  # fmt: skip

    # -- finishing -----------------------------------------------------------------------------

    def finish(self, claim: Claim, result: Result) -> None:
        """Store how a try ended. Where the claim has lapsed meanwhile only the attempt says so."""
        now, attempt = self.now(), claim.attempt
        spent = (now - attempt.started_at).total_seconds() * 1_000
        with transaction.atomic():
            Attempt.objects.filter(pk=attempt.pk).update(
                outcome=result.outcome, latency_ms=round(max(spent, 0.0), 1),
                status=_plain(result.status)[:40], excerpt=_plain(result.excerpt)[:500],
            )  # fmt: skip
            row = (
                Notification.objects.select_for_update()
                .filter(pk=claim.notification.pk, claimed_by=self.owner[:100],
                        attempts=attempt.number, state=State.SENDING)
                .first()
            )  # fmt: skip
            if row is None:
                log.warning("delivery.lapsed notification=%s", claim.notification.pk)
                return
            row.claimed_by, row.claimed_until = "", None
            row.receiver, row.incident = claim.notification.receiver, claim.notification.incident
            if result.outcome == Outcome.OK:
                self._sent(row, claim.notification, now)
            else:
                self._failed(row, result, now)

    def _sent(self, row: Notification, claimed: Notification, now: datetime) -> None:
        row.state, row.sent_at, row.last_error = State.SENT, now, ""
        row.save(update_fields=[*SETTLED, "sent_at"])
        Receiver.objects.filter(pk=row.receiver_id).update(
            failures_in_a_row=0, closed_until=None, last_ok_at=now, last_error=""
        )
        _told(row, "sent", f"Sent to {row.receiver.name}: {Reason(row.reason).label.lower()}.", now)
        _remind(row, claimed, now)

    def _failed(self, row: Notification, result: Result, now: datetime) -> None:
        words = _plain(f"{result.status}: {result.excerpt}" if result.excerpt else result.status)
        row.last_error = words[:400]
        changes: dict[str, Any] = {"last_error": words[:400]}
        if result.outcome == Outcome.SLOW_DOWN:
            wait = SLOW_DOWN_S if result.wait_s is None else result.wait_s
            changes["closed_until"] = now + timedelta(seconds=wait)
        elif result.outcome == Outcome.TRANSIENT:
            changes |= self._breaker(row.receiver_id, now)
        elif result.outcome == Outcome.PERMANENT:
            # It answers, so it is not out of order: what was sent or set is wrong.
            changes |= {"failures_in_a_row": 0, "closed_until": None}
        if row.reason != Reason.TEST:
            Receiver.objects.filter(pk=row.receiver_id).update(**changes)
        tries = row.attempts - row.forgiven
        last = tries >= (1 if row.reason == Reason.TEST else self.max_attempts)
        if result.outcome == Outcome.PERMANENT or last:
            _die(row, words, now)
            return
        wait = result.wait_s if result.wait_s is not None else self.backoff_s(tries)
        row.state, row.due_at = State.WAITING, now + timedelta(seconds=wait)
        row.save(update_fields=[*SETTLED, "due_at"])

    def _breaker(self, receiver: int, now: datetime) -> dict[str, Any]:
        failures = (
            Receiver.objects.select_for_update().values_list("failures_in_a_row", flat=True)
            .get(pk=receiver) + 1
        )  # fmt: skip
        found: dict[str, Any] = {"failures_in_a_row": failures}
        if failures >= BREAKS_AFTER:
            wait = min(LONGEST_BREAK_S, BREAK_S * 2.0 ** min(failures - BREAKS_AFTER, 10))
            found["closed_until"] = now + timedelta(seconds=wait)
        return found

    def backoff_s(self, attempts: int) -> float:
        """Exponential with full jitter: anything up to 2, 4, 8 … 900 s, and at least half a one."""
        longest = min(LONGEST_BACKOFF_S, BACKOFF_S * 2.0 ** min(attempts - 1, 20))
        return max(0.5, self.dice.uniform(0, longest))


def run(owner: str, stop: threading.Event, workers: int | None = None) -> None:
    """Workers until ``stop`` is set; they look when something is stored, and every 2 s."""
    bell = threading.Condition()
    count = workers or settings.VIGIL.alerts.workers
    threads = [
        threading.Thread(target=_work, args=(f"{owner}/{i}", stop, bell), daemon=True,
                         name=f"deliver-{i}")
        for i in range(count)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    _listen(stop, bell)
    with bell:
        bell.notify_all()
    for thread in threads:
        thread.join(5)


def _work(owner: str, stop: threading.Event, bell: threading.Condition) -> None:
    deliverer = Deliverer.of_settings(owner)
    known: object = None
    while not stop.is_set():
        try:
            connection.ensure_connection()
            if connection.connection is not known:
                known = connection.connection
                with connection.cursor() as cursor:
                    # A worker that is frozen amid a claim must not keep the others from its row.
                    cursor.execute("SET idle_in_transaction_session_timeout = '5s'")
            busy = deliverer.step()
        except DatabaseError as error:
            log.warning("delivery.postponed error=%s", " ".join(str(error).split())[:300])
            connection.close()
            busy = False
        if not busy:
            with bell:
                if not stop.is_set():
                    bell.wait(SWEEP_S)
    connection.close()


def _listen(stop: threading.Event, bell: threading.Condition) -> None:
    """Ring when a transaction that stored notifications commits; PostgreSQL tells it."""
    while not stop.is_set():
        try:
            connection.ensure_connection()
            raw: Any = connection.connection
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
            while not stop.is_set():
                for _ in raw.notifies(timeout=0.5, stop_after=1):
                    with bell:
                        bell.notify_all()
        except Exception as error:  # a lost connection shows in many ways; the sweep goes on
            log.warning("delivery.deaf error=%s", " ".join(str(error).split())[:300])
            connection.close()
            stop.wait(SWEEP_S)
    connection.close()


def resend(row: Notification, now: datetime) -> bool:
    """Send one again that was given up or cancelled, with all its tries; False: it was neither."""
    over = Notification.objects.filter(pk=row.pk, state__in=(State.DEAD, State.CANCELLED))
    changed = over.update(
        state=State.WAITING, due_at=now, only_if_unacknowledged=False, forgiven=F("attempts")
    )  # fmt: skip
    return bool(changed)


def send_test(receiver: Receiver, by: str, now: datetime, rule: str = "") -> Notification:
    """A test for a receiver, on its way through everything that a real one passes.

    Args:
        rule: the name of the rule that would tell it, where the test is of a rule.
    """
    return Notification.objects.create(
        id=uuid.uuid4(), receiver=receiver, reason=Reason.TEST, severity=Severity.MEDIUM,
        event_at=now, due_at=now, payload={"by": by} | ({"rule": rule} if rule else {}),
    )  # fmt: skip


# ---- What a row may need instead of being sent --------------------------------------------------
def _needless(row: Notification) -> str:
    incident = row.incident
    if incident is None:
        return ""
    if row.only_if_unacknowledged and incident.state != Incident.State.OPEN:
        return f"The incident is {incident.get_state_display().lower()}."
    if row.reason == Reason.REMINDER and incident.state != Incident.State.OPEN:
        return f"The incident is {incident.get_state_display().lower()}."
    # What was put off (quiet hours, a digest) and is over by now was never worth a word.
    put_off = row.due_at - row.created_at > PUT_OFF and not row.attempts
    if put_off and row.reason in REPEATED and incident.state == Incident.State.RESOLVED:
        return "It was over before its time came."
    if row.reason == Reason.RESOLVED and not row.attempts and not _has_heard(row):
        return "This receiver never heard of the incident."
    return ""


def _has_heard(row: Notification) -> bool:
    """Whether it was, may have been, or is about to be told of the incident before."""
    return (
        Notification.objects.filter(incident=row.incident_id, receiver=row.receiver_id)
        .exclude(pk=row.pk)
        .filter(state__in=(State.SENT, State.DIGESTED, State.SENDING, State.DEAD))
        .exists()
    )


def _put_off(row: Notification, until: datetime) -> bool:
    row.due_at = until
    row.save(update_fields=["due_at"])
    return True


def _quiet_until(receiver: Receiver, now: datetime) -> datetime | None:
    if receiver.quiet_hours is None:
        return None
    try:
        table = Timetable.read(receiver.quiet_hours)
    except ValidationError:
        return None  # told too often is better than never
    return table.next_change(now) if table.within(now) else None


def _collected(row: Notification, now: datetime) -> bool:
    """Put a row into its receiver's digest: written once the oldest has waited long enough."""
    # One worker at a time makes a receiver's digest.
    receiver = Receiver.objects.select_for_update().get(pk=row.receiver_id)
    spell = timedelta(minutes=receiver.digest_minutes)
    put_off = Q(due_at__lte=now + spell, only_if_unacknowledged=False) & (
        Q(incident__snoozed_until=None) | Q(incident__snoozed_until__lte=now)
    )
    waiting = list(
        Notification.objects.select_for_update(skip_locked=True, of=("self",))
        .filter(Q(due_at__lte=now) | put_off, receiver=receiver, state=State.WAITING, attempts=0,
                severity__lt=Severity.CRITICAL, incident__isnull=False)
        .order_by("created_at", "id")[:200]
    )  # fmt: skip
    waiting = [w for w in waiting if w.reason != Reason.TEST and not _needless(w)]
    if not waiting:
        return False
    ripe = min(max(w.created_at, w.due_at - spell) for w in waiting) + spell
    if ripe > now:
        return _put_off(row, ripe)
    if len(waiting) == 1:
        return False
    key = uuid.uuid5(_NAMESPACE, f"digest/{waiting[0].pk}")
    digest, _ = Notification.objects.get_or_create(
        id=key,
        defaults={
            "receiver": receiver, "reason": Reason.DIGEST, "due_at": now,
            "severity": max(w.severity for w in waiting),
            "event_at": max(w.event_at for w in waiting),
            "payload": {"parts": [wording.line_of(w) for w in waiting]},
        },
    )  # fmt: skip
    Notification.objects.filter(pk__in=[w.pk for w in waiting]).update(
        state=State.DIGESTED, digest=digest
    )
    return True


# ---- What follows a try -------------------------------------------------------------------------
def _die(row: Notification, words: str, now: datetime) -> None:
    row.state, row.last_error, row.claimed_by, row.claimed_until = State.DEAD, words[:400], "", None
    row.save(update_fields=SETTLED)
    log.error("delivery.dead notification=%s receiver=%s error=%s", row.pk, row.receiver_id, words)
    _told(row, "undelivered", f"{row.receiver.name} could not be told: {words[:300]}", now)


def _told(row: Notification, kind: str, text: str, now: datetime) -> None:
    if row.incident_id is not None:
        entry = TimelineEntry(
            incident_id=row.incident_id, ident=f"{kind}-{row.pk}-{row.attempts}", at=now,
            kind=kind, text=text, data={"notification": str(row.pk), "receiver": row.receiver.name},
        )  # fmt: skip
        TimelineEntry.objects.bulk_create([entry], ignore_conflicts=True)
        live.changed([row.incident_id])


def _remind(row: Notification, claimed: Notification, now: datetime) -> None:
    """The next reminder of a rule that wants them; one waits at a time for each receiver."""
    version = claimed.rule_version
    every = float(version.spec.get("remind_s", 0) or 0) if version is not None else 0.0
    if every <= 0 or row.reason not in REPEATED or row.incident_id is None:
        return
    due = now + timedelta(seconds=every)
    mine = Notification.objects.filter(
        incident=row.incident_id, receiver=row.receiver_id, reason=Reason.REMINDER
    )
    if mine.filter(state=State.WAITING).update(due_at=due):
        return
    number = mine.count() + 1
    Notification.objects.get_or_create(
        id=uuid.uuid5(_NAMESPACE, f"reminder/{row.incident_id}/{row.receiver_id}/{number}"),
        defaults={
            "incident_id": row.incident_id, "rule_version": version, "receiver": row.receiver,
            "reason": Reason.REMINDER, "severity": row.severity, "event_at": row.event_at,
            "due_at": due, "only_if_unacknowledged": True,
            "payload": row.payload | {"number": number},
        },
    )  # fmt: skip


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
