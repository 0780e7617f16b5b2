"""Deliveries: classes of errors, rate, breaker, order, what is put off, and what is never lost."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from alerts import delivery, vault
from alerts.delivery import Deliverer, resend
from alerts.models import Attempt, Hours, Incident, Notification, Receiver
from alerts.outgoing import Client, Guard
from alerts.receivers import Result
from tests.alerts import rows
from tests.alerts.http_server import Server, plain, reset, serving

pytestmark = pytest.mark.django_db

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)  # a Tuesday


@dataclass
class Clock:
    at: datetime = START

    def __call__(self) -> datetime:
        return self.at

    def ahead(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass
class Bench:
    server: Server
    clock: Clock = field(default_factory=Clock)

    def worker(self, owner: str = "w1", **more: Any) -> Deliverer:
        client = Client(Guard.of(["127.0.0.0/8"]), total_s=1)
        return Deliverer(owner, client, now=self.clock, dice=random.Random(3), **more)

    def receiver(self, name: str = "ops", **more: Any) -> Receiver:
        return rows.receiver(name, self.server.url, **more)

    def note(self, to: Receiver, of: Incident | None = None, reason: str = "opened",
             **more: Any) -> Notification:  # fmt: skip
        given = {"due_at": self.clock(), "event_at": self.clock(), "created": self.clock()} | more
        return rows.notification(to, of, reason, **given)

    @property
    def reasons(self) -> list[str]:
        return [got.json["reason"] for got in self.server.got]


@pytest.fixture
def bench() -> Iterator[Bench]:
    with serving() as server:
        yield Bench(server)


def fresh(row: Notification) -> Notification:
    return Notification.objects.get(pk=row.pk)


def timeline(row: Notification) -> Any:
    assert row.incident is not None
    return row.incident.timeline


def tries(row: Notification) -> list[str]:
    return list(row.tries.order_by("number").values_list("outcome", flat=True))


def test_what_is_due_is_sent_once_with_an_attempt(bench: Bench) -> None:
    to = bench.receiver()
    row = bench.note(to)
    later = bench.note(to, due_at=START + timedelta(seconds=1))
    assert bench.worker().drain() == 1
    assert (fresh(row).state, fresh(later).state) == ("sent", "waiting")
    (attempt,) = row.tries.all()
    assert (attempt.outcome, attempt.status, attempt.worker) == ("ok", "200", "w1")
    assert bench.server.keys == {str(row.pk): 1}
    to.refresh_from_db()
    assert to.last_ok_at == START
    assert list(timeline(row).values_list("kind", flat=True)) == ["sent"]


def test_a_passing_error_is_tried_again_later_and_later(bench: Bench) -> None:
    row = bench.note(bench.receiver())
    bench.server.answers = [plain(500), reset, plain(502)]
    worker = bench.worker()
    waits = []
    while fresh(row).state != "sent":
        assert worker.drain() >= 1
        waits.append((fresh(row).due_at - bench.clock()).total_seconds())
        bench.clock.at = max(bench.clock(), fresh(row).due_at)
    assert tries(row) == ["transient", "transient", "transient", "ok"]
    assert all(0.5 <= w <= 2.0 * 2**i for i, w in enumerate(waits[:3]))
    assert set(bench.server.keys.values()) == {4}


def test_backoff_has_full_jitter_and_a_limit(bench: Bench) -> None:
    worker = bench.worker()
    for attempts, longest in ((1, 2.0), (4, 16.0), (30, 900.0)):
        waits = [worker.backoff_s(attempts) for _ in range(2_000)]
        assert min(waits) < 0.6
        assert 0.9 * longest < max(waits) <= longest
    assert len(set(waits)) > 1_900


def test_a_lasting_error_is_given_up_at_once_and_can_be_sent_again(bench: Bench) -> None:
    row = bench.note(bench.receiver())
    bench.server.answers = [plain(404, b"no such hook")]
    bench.worker().drain()
    assert fresh(row).state == "dead"
    assert fresh(row).last_error == "404: no such hook"
    assert timeline(row).filter(kind="undelivered").exists()
    assert bench.worker().drain() == 0
    assert resend(row, bench.clock())
    bench.worker().drain()
    assert fresh(row).state == "sent"
    assert tries(row) == ["permanent", "ok"]
    assert not resend(row, bench.clock())


def test_it_is_given_up_after_so_many_tries(bench: Bench) -> None:
    row = bench.note(bench.receiver())
    bench.server.usual = plain(500)
    worker = bench.worker(max_attempts=3)
    for _ in range(10):
        worker.drain()
        bench.clock.ahead(1_000)
    assert (fresh(row).state, fresh(row).attempts) == ("dead", 3)
    resend(row, bench.clock())
    worker.drain()
    assert (fresh(row).state, fresh(row).attempts) == ("waiting", 4)


def test_told_to_slow_down_the_whole_receiver_waits_as_long(bench: Bench) -> None:
    to = bench.receiver()
    first, second = bench.note(to), bench.note(to)
    bench.server.answers = [plain(429, retry_after="40")]
    worker = bench.worker()
    worker.drain()
    bench.clock.ahead(39)
    assert worker.drain() == 0
    bench.clock.ahead(2)
    assert worker.drain() == 2
    assert {fresh(first).state, fresh(second).state} == {"sent"}
    assert sorted(tries(first) + tries(second)) == ["ok", "ok", "slow_down"]


def test_no_more_a_minute_than_a_receiver_takes(bench: Bench) -> None:
    to = bench.receiver(per_minute=6)
    for _ in range(20):
        bench.note(to)
    worker = bench.worker()
    sent = []
    for _ in range(120):
        worker.drain()
        sent.append(len(bench.server.got))
        bench.clock.ahead(1)
    assert sent[0] == 6  # a minute's worth at once
    assert sent[59] <= 12
    assert sent[119] <= 18


def test_a_broken_receiver_is_left_alone_and_tried_with_one(bench: Bench) -> None:
    to, other = bench.receiver(), bench.receiver("other")
    broken = [bench.note(to) for _ in range(12)]
    bench.server.usual = plain(500)
    worker = bench.worker()
    worker.drain()
    assert len(bench.server.got) == delivery.BREAKS_AFTER
    to.refresh_from_db()
    assert to.closed_until == START + timedelta(seconds=delivery.BREAK_S)
    good = bench.note(other)
    bench.server.usual = plain(200)
    worker.drain()
    assert fresh(good).state == "sent"
    assert len(bench.server.got) == delivery.BREAKS_AFTER + 1
    # Half open: one tries, and the others follow once it got through.
    bench.clock.ahead(delivery.BREAK_S + 1)
    claim = worker._claim()
    assert isinstance(claim, delivery.Claim)
    assert bench.worker("w2").step() is False
    worker.finish(claim, worker._send(claim.notification))
    worker.drain()
    bench.clock.ahead(60)
    worker.drain()
    assert {fresh(row).state for row in broken} == {"sent"}


def test_a_sender_that_died_leaves_an_unknown_attempt_and_another_sends_again(
    bench: Bench,
) -> None:
    row = bench.note(bench.receiver())
    dead = bench.worker("dead", claim_s=60)
    claim = dead._claim()
    assert isinstance(claim, delivery.Claim)
    dead._send(claim.notification)  # it arrives, and then the worker dies
    other = bench.worker("other")
    assert other.drain() == 0
    bench.clock.ahead(61)
    assert other.drain() == 1
    assert tries(row) == ["unknown", "ok"]
    assert bench.server.keys == {str(row.pk): 2}
    assert fresh(row).state == "sent"
    # The dead one was only asleep: what it says changes the attempt and nothing else.
    dead.finish(claim, Result(delivery.Outcome.TRANSIENT, "500", "late"))
    assert (fresh(row).state, tries(row)) == ("sent", ["transient", "ok"])


def test_within_an_incident_a_receiver_hears_things_in_order(bench: Bench) -> None:
    to, one = bench.receiver(), rows.incident()
    opened = bench.note(to, one, created=START - timedelta(seconds=3))
    bench.note(to, one, "resolved", created=START - timedelta(seconds=2), due_at=START
               - timedelta(seconds=9))  # fmt: skip
    bench.server.answers = [plain(500)]
    worker = bench.worker()
    worker.drain()
    assert bench.reasons == ["opened"]
    assert fresh(opened).state == "waiting"
    bench.clock.ahead(60)
    worker.drain()
    assert bench.reasons == ["opened", "opened", "resolved"]


def test_the_end_is_not_told_to_who_never_heard_of_it(bench: Bench) -> None:
    one = rows.incident(state="resolved")
    row = bench.note(bench.receiver(), one, "resolved")
    bench.worker().drain()
    assert (fresh(row).state, bench.reasons) == ("cancelled", [])


def test_an_escalation_waits_and_is_cancelled_by_an_acknowledgement(bench: Bench) -> None:
    to = bench.receiver()
    taken, not_taken = rows.incident(), rows.incident()
    late = {"due_at": START + timedelta(minutes=10), "only_if_unacknowledged": True}
    first = bench.note(to, taken, "escalated", **late)
    second = bench.note(to, not_taken, "escalated", **late)
    worker = bench.worker()
    assert worker.drain() == 0
    Incident.objects.filter(pk=taken.pk).update(state="acknowledged")
    bench.clock.ahead(601)
    worker.drain()
    assert (fresh(first).state, fresh(second).state) == ("cancelled", "sent")
    assert "acknowledged" in fresh(first).last_error


def test_reminders_come_until_somebody_acknowledges(bench: Bench) -> None:
    one = rows.incident()
    bench.note(bench.receiver(), one, rule_version=rows.version(remind_s=600))
    worker = bench.worker()
    for _ in range(35):
        worker.drain()
        bench.clock.ahead(60)
    assert bench.reasons == ["opened", "reminder", "reminder", "reminder"]
    Incident.objects.filter(pk=one.pk).update(state="acknowledged")
    for _ in range(35):
        worker.drain()
        bench.clock.ahead(60)
    assert len(bench.reasons) == 4
    assert max(bench.server.keys.values()) == 1


def test_a_snoozed_incident_is_told_of_afterwards(bench: Bench) -> None:
    one = rows.incident(snoozed_until=START + timedelta(hours=1))
    row = bench.note(bench.receiver(), one)
    worker = bench.worker()
    worker.drain()
    assert fresh(row).due_at == START + timedelta(hours=1)
    bench.clock.ahead(3_601)
    worker.drain()
    assert fresh(row).state == "sent"


def test_quiet_hours_keep_back_what_is_not_critical(bench: Bench) -> None:
    hours = Hours.objects.create(
        name="nights", time_zone="Europe/Berlin",
        weekly=[{"days": ["mon", "tue", "wed"], "from": "12:00", "to": "07:00"}],
    )  # fmt: skip
    to = bench.receiver(quiet_hours=hours)
    quiet, loud = bench.note(to), bench.note(to, rows.incident(severity=4))
    over = rows.incident(state="resolved")
    gone = bench.note(to, over)
    worker = bench.worker()
    worker.drain()
    assert (fresh(quiet).state, fresh(loud).state) == ("waiting", "sent")
    assert fresh(quiet).due_at == datetime(2026, 11, 25, 6, 0, tzinfo=UTC)
    bench.clock.ahead(19 * 3_600)
    worker.drain()
    assert (fresh(quiet).state, fresh(gone).state) == ("sent", "cancelled")


def test_a_digest_collects_and_says_it_once(bench: Bench) -> None:
    to = bench.receiver(digest_minutes=10)
    few = [bench.note(to) for _ in range(3)]
    worker = bench.worker()
    worker.drain()
    assert bench.reasons == []
    bench.clock.ahead(300)
    few.append(bench.note(to))
    critical = bench.note(to, rows.incident(severity=4))
    worker.drain()
    assert bench.reasons == ["opened"]
    assert fresh(critical).state == "sent"
    bench.clock.ahead(301)
    worker.drain()
    assert bench.reasons == ["opened", "digest"]
    assert {fresh(row).state for row in few} == {"digested"}
    assert len({fresh(row).digest_id for row in few}) == 1
    text = bench.server.got[1].json["text"]
    assert text.count("checkout-eu") == 4
    # One alone is sent as what it is.
    alone = bench.note(to)
    worker.drain()
    bench.clock.ahead(601)
    worker.drain()
    assert (fresh(alone).state, bench.reasons[-1]) == ("sent", "opened")


def test_secrets_stand_in_no_attempt_and_no_error(bench: Bench) -> None:
    to = bench.receiver(secrets=vault.seal({"secret": rows.SECRET, "authorization": "hush-hush"}))

    def echo(handler: Any, got: Any) -> None:
        plain(400, f"{got.headers} {rows.SECRET}".encode())(handler, got)

    bench.server.usual = echo
    row = bench.note(to)
    bench.worker().drain()
    kept = str(Attempt.objects.values_list()) + str(Notification.objects.values_list())
    kept += str(list(timeline(row).values_list()))
    to.refresh_from_db()
    kept += str([to.last_error, to.settings])
    assert "hush" not in kept
    assert rows.SECRET not in kept
    assert vault.STRUCK in kept


def test_secrets_that_cannot_be_opened_give_up_with_a_sentence(bench: Bench) -> None:
    row = bench.note(bench.receiver(secrets="nonsense"))
    bench.worker().drain()
    assert fresh(row).state == "dead"
    assert "SECRET_KEY_FALLBACKS" in fresh(row).last_error


def test_a_fault_of_our_own_does_not_end_the_worker(bench: Bench) -> None:
    to = bench.receiver(settings=["not", "a", "dict"])
    row, good = bench.note(to), bench.note(bench.receiver("other"))
    bench.worker().drain()
    assert (tries(row), fresh(good).state) == (["transient"], "sent")


def test_a_test_is_tried_once_even_while_the_breaker_is_open(bench: Bench) -> None:
    to = bench.receiver(closed_until=START + timedelta(hours=1), enabled=False)
    row = delivery.send_test(to, "anna", bench.clock())
    bench.server.answers = [plain(500)]
    bench.worker().drain()
    assert fresh(row).state == "dead"
    row = delivery.send_test(to, "anna", bench.clock())
    bench.worker().drain()
    assert fresh(row).state == "sent"
    assert "anna" in bench.server.got[1].json["text"]


@pytest.mark.django_db(transaction=True)
def test_storing_a_notification_rings_once_it_is_committed(bench: Bench) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"LISTEN {delivery.CHANNEL}")
    raw: Any = connection.connection
    bench.note(bench.receiver())
    assert len(list(raw.notifies(timeout=5, stop_after=1))) == 1
