"""Rounds: what people do reaches the receivers that had heard, and the dead man is asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pydantic import SecretStr

from alerts import incidents, leases, rounds
from alerts.models import Incident, Notification
from alerts.outgoing import Client, Guard
from tests import builders
from tests.alerts import rows
from tests.alerts.http_server import Server, plain, serving

pytestmark = pytest.mark.django_db


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


def told(one: Incident) -> set[tuple[str, str]]:
    found = Notification.objects.filter(incident=one, state="waiting")
    return set(found.values_list("receiver__name", "reason"))


def test_what_people_do_is_told_once_to_those_who_had_heard() -> None:
    pager, slack = rows.receiver("pager", kind="pagerduty"), rows.receiver("slack", kind="slack")
    rows.receiver("other", kind="pagerduty")
    one, now = rows.incident(), timezone.now()
    for to in (pager, slack):
        rows.notification(to, one, state="sent")
    incidents.acknowledge(one.pk, builders.user())
    assert [rounds.follow_people(now) for _ in range(2)] == [1, 0]
    assert told(one) == {("pager", "acknowledged")}
    incidents.resolve(one.pk, None)
    assert [rounds.follow_people(now) for _ in range(2)] == [2, 0]
    assert told(one) == {("pager", "acknowledged"), ("pager", "resolved"), ("slack", "resolved")}


def test_a_rule_may_keep_the_end_to_itself() -> None:
    one = rows.incident(rule_version=rows.version(tell_resolved=False))
    rows.notification(rows.receiver(), one, state="sent")
    incidents.resolve(one.pk, None)
    assert rounds.follow_people(timezone.now()) == 0


def test_what_waits_for_a_receiver_that_is_switched_off_is_cancelled() -> None:
    off, on = rows.receiver("off", enabled=False), rows.receiver("on")
    gone, kept = rows.notification(off), rows.notification(on)
    assert rounds.cancel_switched_off() == 1
    states = dict(Notification.objects.values_list("pk", "state"))
    assert (states[gone.pk], states[kept.pk]) == ("cancelled", "waiting")


@pytest.fixture
def watched(server: Server, settings: Any) -> Server:
    url = SecretStr(f"{server.url}/ping/hush-hush-hush-hush")
    given = settings.VIGIL.alerts.model_copy(
        update={"dead_man_url": url, "allowed_networks": ("127.0.0.0/8",)}
    )
    settings.VIGIL = settings.VIGIL.model_copy(update={"alerts": given})
    return server


def test_the_dead_man_is_asked_only_while_consumers_and_evaluator_live(watched: Server) -> None:
    now = timezone.now()
    assert not rounds.ask_dead_man("a", now)
    builders.consumer()
    assert not rounds.ask_dead_man("a", now)
    held = leases.take(rounds.EVALUATOR, "e", 10)
    assert held is not None
    assert rounds.ask_dead_man("a", now)
    assert not rounds.ask_dead_man("b", now)  # not each process of its own
    assert [got.method for got in watched.got] == ["GET"]
    leases.release(held)
    assert not rounds.alive(now)
    assert not rounds.alive(now + timedelta(minutes=2))


def test_a_dead_man_that_refuses_shows_no_address_in_the_log(
    watched: Server, caplog: pytest.LogCaptureFixture
) -> None:
    builders.consumer()
    assert leases.take(rounds.EVALUATOR, "e", 10)
    watched.usual = plain(500)
    with caplog.at_level("WARNING"):
        assert not rounds.ask_dead_man("a", timezone.now(), Client(Guard.of(["127.0.0.0/8"])))
    assert "hush" not in caplog.text
