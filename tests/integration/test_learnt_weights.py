"""Learnt weights in a running consumer: live within seconds, from an offset on, no restart."""

from __future__ import annotations

import uuid

import pytest

from anomalies.models import Anomaly
from detection import learnt_weights
from detection.models import VersionLog
from detection.weights import Learnt
from streams.models import Stream
from tests.conftest import MakeTopic
from tests.integration.harness import Consumer, await_until, events, produce, stored_events

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_set_counts_from_an_offset_on_and_leaves_again(topic: MakeTopic, kafka: str) -> None:
    place, name = topic(1), f"w-{uuid.uuid4().hex[:10]}"
    messages = events(9_000, 1, series=3, faults=0.004)
    good = [i for i, (_, value) in enumerate(messages) if b'"metric": 5' not in value]
    consumer = Consumer(name, place, name)
    log = VersionLog.objects.filter(incarnation__stream__name=name).order_by("from_offset")

    def send(start: int, end: int) -> None:
        produce(kafka, place, messages[start:end])
        await_until(lambda: stored_events(place) == sum(i < end for i in good))

    def ids() -> list[int | None]:
        return [
            (entry.scoring_version.payload.get("learnt") or {}).get("id")
            for entry in log.select_related("scoring_version")
        ]

    send(0, 3_000)
    row = learnt_weights.save(
        Stream.objects.get(name=name), Learnt("weighted", {"online": 1.0}, 0.9, 1, 1, 1, 0),
        metrics={}, settings={}, actor="test",
    )  # fmt: skip
    assert ids() == [None]
    learnt_weights.use(row.pk, "test")
    await_until(lambda: ids() == [None, row.pk], 30)
    send(3_000, 6_000)
    learnt_weights.leave(row.pk, "test")
    await_until(lambda: ids() == [None, row.pk, None], 30)
    send(6_000, 9_000)
    consumer.stop()

    borders = [entry.from_offset for entry in log]
    assert borders == [0, 3_000, 6_000]
    found = Anomaly.objects.filter(incarnation__stream__name=name).select_related("scoring_version")
    seen = set()
    for anomaly in found:
        used = (anomaly.scoring_version.payload.get("learnt") or {}).get("id")  # type: ignore[union-attr]
        assert used == (row.pk if 3_000 <= anomaly.offset < 6_000 else None)
        if used:  # the only detector that counts, less a gain of log 5 / log 10
            assert anomaly.score == pytest.approx(
                1 - (1 - anomaly.detectors["online"]) ** row.gain, rel=1e-3
            )
        seen.add(used)
    assert seen == {None, row.pk}
