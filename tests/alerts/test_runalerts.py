"""Real processes of the evaluator, killed and frozen: the same incidents, and nobody told twice."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from alerts.evaluator import LEASE, Evaluator
from alerts.models import (
    Incident,
    IncidentAnomaly,
    IncidentMessage,
    Lease,
    Notification,
    RuleState,
    TimelineEntry,
)
from anomalies.models import Outbox
from tests.alerts import scene
from tests.alerts.alerts_process import Process
from tests.conftest import MakeTopic
from tests.integration.harness import await_until

pytestmark = pytest.mark.django_db(transaction=True)
ANOMALIES = 1_500
KILLS = 6


@pytest.fixture
def start(topic: MakeTopic) -> Iterator[Any]:
    """Starts processes, and ends them after the test."""
    made: list[Process] = []
    place = topic(1)

    def begin(name: str) -> Process:
        made.append(Process(name, place))
        return made[-1]

    yield begin
    for one in made:
        one.process.send_signal(signal.SIGCONT)
        one.kill()


def backlog() -> None:
    scene.receiver("ops")
    scene.rule(group={"by": "source", "resolve_after_s": 60}, send=[{"receiver": "ops"}])
    draw = random.Random(4)
    for i in range(ANOMALIES):
        at = i * 2 + draw.random()
        scene.anomaly(at, f"s{draw.randint(0, 30)}", metric=f"m{i}", ends=at + draw.randint(1, 90))
    scene.watermark(10_000)


def outcome() -> dict[str, Any]:
    """All that must be the same."""
    return {
        "incidents": sorted(
            Incident.objects.values_list(
                "key",
                "state",
                "anomaly_count",
                "severity",
                "reopened",
                "sequence",
                "first_at",
                "last_at",
            )
        ),
        "members": sorted(IncidentAnomaly.objects.values_list("incident__key", "anomaly_id")),
        "words": sorted(Notification.objects.values_list("id", "reason", "event_at")),
        "messages": sorted(
            IncidentMessage.objects.values_list("incident__key", "sequence", "payload__change")
        ),
    }


def forget() -> None:
    """As if nothing had been judged."""
    Incident.objects.all().delete()
    RuleState.objects.all().delete()
    Lease.objects.all().delete()
    Outbox.objects.update(evaluated_at=None)


def waiting() -> int:
    return Outbox.objects.filter(evaluated_at=None).count()


def test_kills_between_rounds_and_within_leave_the_same_and_tell_nobody_twice(start: Any) -> None:
    backlog()
    evaluator = Evaluator("calm")
    while waiting():
        evaluator.step()
    expected = outcome()
    assert len(expected["words"]) > 100
    forget()

    draw = random.Random(9)
    for i in range(KILLS):
        one = start(f"killed-{i}")
        await_until(lambda n=i: Lease.objects.filter(name=LEASE, owner=f"killed-{n}").exists())  # type: ignore[misc]
        time.sleep(draw.uniform(0, 0.8))  # anywhere within a round, or between two
        one.kill()
        Lease.objects.update(until=None)
    last = start("last")
    await_until(lambda: waiting() == 0, 120)
    last.kill()

    assert outcome() == expected
    assert TimelineEntry.objects.filter(kind="opened").count() == Incident.objects.count()


def test_of_two_one_works_and_a_frozen_one_that_wakes_up_is_fenced(start: Any) -> None:
    scene.rule(group={"by": "source"})
    scene.watermark(100)
    one = start("one")
    await_until(lambda: Lease.objects.filter(owner="one").exists())
    other = start("other")
    scene.anomaly(0, "a")
    await_until(lambda: Incident.objects.count() == 1)
    assert Lease.objects.get(name=LEASE).owner == "one"

    one.process.send_signal(signal.SIGSTOP)
    await_until(lambda: Lease.objects.get(name=LEASE).owner == "other", 60, 0.05)
    scene.anomaly(1, "b")
    await_until(lambda: Incident.objects.count() == 2)
    one.process.send_signal(signal.SIGCONT)
    scene.anomaly(2, "c")
    await_until(lambda: Incident.objects.count() == 3)
    await_until(lambda: "fenced" in one.output() or "postponed" in one.output(), 30, 0.05)

    lease = Lease.objects.get(name=LEASE)
    assert (lease.owner, lease.epoch) == ("other", 2)
    assert IncidentMessage.objects.count() == 3
    other.process.send_signal(signal.SIGTERM)
    assert other.process.wait(20) == 0
    await_until(lambda: Lease.objects.get(name=LEASE).owner == "one", 20, 0.05)


def test_each_change_is_published_once_the_broker_has_it(start: Any) -> None:
    scene.rule()
    scene.anomaly(0, "a", ends=1)
    scene.watermark(2_000)
    start("one")
    await_until(lambda: IncidentMessage.objects.exclude(published_at=None).count() == 2, 60, 0.05)

    assert [m.payload["change"] for m in IncidentMessage.objects.order_by("id")] == [
        "opened", "resolved",
    ]  # fmt: skip
