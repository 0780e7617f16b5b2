"""Rules at work with everything real: Kafka, consumer, `runalerts`, and a server that is told."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from alerts import silences
from alerts.models import Incident, IncidentAnomaly, Silence, TimelineEntry
from anomalies.models import Anomaly
from tests.alerts import rows, scene
from tests.alerts.alerts_process import Process
from tests.alerts.http_server import Server, serving
from tests.conftest import MakeTopic
from tests.integration.harness import Consumer, await_until, produce, stored_events

pytestmark = pytest.mark.django_db(transaction=True)
LOCAL = {"VIGIL_ALERTS__ALLOWED_NETWORKS": "127.0.0.0/8"}
WITHIN_S = 10.0
SOURCES, METRICS, HEALTHY, FAULTY, STEP_S = 50, 20, 100, 8, 10


@pytest.fixture
def told() -> Iterator[Server]:
    with serving() as server:
        rows.receiver("ops", url=server.url)
        yield server


@pytest.fixture
def alerts_process(topic: MakeTopic, told: Server) -> Iterator[Process]:
    process = Process("e2e", topic(1), **LOCAL)
    yield process
    process.kill()


def quieten(source: str) -> Silence:
    now = timezone.now()
    row = Silence(
        name=f"repair of {source}", matcher={"sources": [source]},
        starts_at=now - timedelta(minutes=5), ends_at=now + timedelta(hours=1),
    )  # fmt: skip
    silences.save(row, "anna", None)
    return row


def test_what_still_fires_is_told_within_ten_seconds_of_a_silences_end(
    told: Server, alerts_process: Process
) -> None:
    by_itself, by_hand = quieten("a"), quieten("b")
    scene.rule(group={"by": "source"}, send=[{"receiver": "ops"}])
    now_s = (timezone.now() - scene.START).total_seconds()
    for source in ("a", "b", "over"):
        scene.anomaly(now_s, source, ends=now_s + 1 if source == "over" else None)
    # The stream comes to rest while a consumer runs: its time goes on with the wall clock.
    scene.watermark(now_s + 2)
    scene.alive()
    await_until(lambda: TimelineEntry.objects.filter(kind="held").count() == 2, 60, 0.05)
    assert {got.json["details"]["sources"][0] for got in told.got} <= {"over"}

    before = silences.facts(by_itself)
    end = by_itself.ends_at = timezone.now() + timedelta(seconds=3)
    silences.save(by_itself, "anna", before)
    silences.end_now(by_hand, "anna")
    ends = {"a": end, "b": timezone.now()}
    heard: dict[str, datetime] = {}

    def both() -> bool:
        scene.alive()
        for got in list(told.got):
            if got.json["reason"] == "still_firing":
                heard.setdefault(got.json["details"]["sources"][0], timezone.now())
        return set(heard) == {"a", "b"}

    await_until(both, 60, 0.05)
    late = {source: (heard[source] - ends[source]).total_seconds() for source in heard}
    print(f"told after a silence's end: {late}")
    assert all(0 <= seconds <= WITHIN_S for seconds in late.values()), late


def test_a_thousand_anomalies_of_one_cause_are_one_incident_and_two_words_at_most(
    topic: MakeTopic, kafka: str, told: Server, alerts_process: Process
) -> None:
    place, name = topic(2), f"burst-{uuid.uuid4().hex[:8]}"
    scene.rule(
        "burst", match={"streams": [name]},
        group={"by": "incident", "wait_s": 20, "resolve_after_s": 86_400},
        send=[{"receiver": "ops"}],
    )  # fmt: skip
    dice = random.Random(5)
    began = int(time.time()) - (HEALTHY + FAULTY) * STEP_S
    messages = []
    for step in range(HEALTHY + FAULTY):
        for source in range(SOURCES):
            for metric in range(METRICS):
                value = 100 + dice.gauss(0, 1) + (60 if step >= HEALTHY else 0)
                body = {
                    "source": f"s{source}", "metric": f"m{metric}", "value": round(value, 3),
                    "timestamp": (began + step * STEP_S) * 1_000,
                }  # fmt: skip
                messages.append((source % 2, json.dumps(body).encode()))
    consumer = Consumer(name, place, name)
    produce(kafka, place, messages)
    await_until(lambda: stored_events(place) == len(messages), 180, 0.1)
    fault = datetime.fromtimestamp(began + HEALTHY * STEP_S, UTC)
    of_fault = Anomaly.objects.filter(stream__name=name, onset_at__gte=fault)
    assert of_fault.count() >= SOURCES * METRICS

    members = IncidentAnomaly.objects.filter(anomaly__in=of_fault)
    await_until(lambda: members.count() == of_fault.count(), 60, 0.1)
    burst = Incident.objects.get(pk=members.values_list("incident", flat=True)[0])
    assert members.exclude(incident=burst).count() == 0
    await_until(lambda: any(g.json["incident"] == str(burst.key) for g in told.got), 60, 0.1)
    consumer.stop()
    words = Counter(g.json["reason"] for g in told.got if g.json["incident"] == str(burst.key))
    print(f"{members.count()} anomalies, 1 incident, told {dict(words)}")
    assert 1 <= sum(words.values()) <= 2
