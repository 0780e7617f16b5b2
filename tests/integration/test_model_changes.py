"""Challenge, promote and roll back while events stream in, the consumer killed in between: nothing
lost, nothing twice, each score accounted.

Which model scored each event is said twice, by the log of versions and by the anomaly itself.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from django.conf import settings
from django.db.models import Sum
from django.test import override_settings

from anomalies.models import Anomaly, Candidate
from detection import gate_faults, model_store, succession
from detection.features import FEATURE_NAMES
from detection.live_at import live_at
from detection.models import Disagreement, ModelVersion, ShadowHour, VersionLog
from detection.scoring import TRUSTED_AFTER
from detection.training import train
from streams.models import Rollup, Stream
from tests.conftest import MakeTopic
from tests.integration.harness import (
    Consumer,
    Message,
    await_until,
    events,
    stored_events,
)

PARTITIONS = 2
# docs/training.md has the figures.
RATE = int(os.environ.get("LOAD_RATE", "20000"))
STEP = int(os.environ.get("LOAD_STEP", "20000"))  # events between two changes
AHEAD = 2 * STEP  # so many more may be on their way
LIVE_WITHIN_S = 5.0

pytestmark = pytest.mark.django_db(transaction=True)


def save(stream: Stream, seed: int, scale: float) -> ModelVersion:
    """A forest that finds everything over ``scale`` odd."""
    rows = np.random.default_rng(seed).normal(0, scale, (800, len(FEATURE_NAMES)))
    trained = train("isolation_forest", rows, seed=seed, params={"n_estimators": 20})
    return model_store.save(trained, stream=stream, algorithm="isolation_forest")


class Load(threading.Thread):
    """Sends the messages at a rate, in twentieths of a second, until it is told to end.

    It goes no further than `allowed`: on a slow machine there are events left for every change.
    """

    def __init__(self, bootstrap: str, topic: str, messages: list[Message], rate: int) -> None:
        super().__init__(daemon=True)
        self._to, self._topic, self._messages, self._rate = bootstrap, topic, messages, rate
        self._over = threading.Event()
        self.sent = self.allowed = 0
        self.per_s = 0.0

    def run(self) -> None:
        producer = Producer({"bootstrap.servers": self._to, "linger.ms": 5,
                             "queue.buffering.max.messages": 1_000_000})  # fmt: skip
        began, slice_, waited = time.monotonic(), self._rate // 20, 0.0
        while self.sent < len(self._messages) and not self._over.is_set():
            if self.sent >= self.allowed:
                idle = time.monotonic()
                self._over.wait(0.01)
                waited += time.monotonic() - idle
                continue
            for partition, value in self._messages[self.sent : self.sent + slice_]:
                producer.produce(self._topic, value, partition=partition)
            producer.poll(0)
            self.sent = min(self.sent + slice_, len(self._messages))
            time.sleep(max(0.0, began + waited + self.sent / self._rate - time.monotonic()))
        assert producer.flush(60) == 0
        self.per_s = self.sent / (time.monotonic() - began - waited)

    def end(self) -> list[Message]:
        """What was sent."""
        self._over.set()
        self.join(120)
        return self._messages[: self.sent]


def good(value: bytes) -> bool:
    return b'"metric": 5' not in value


def shadowed(messages: list[Message], partition: int, start: int, end: int) -> int:
    """Events a challenger has to score: of these offsets, those its series can be trusted at."""
    seen: dict[tuple[str, str], int] = {}
    found = 0
    mine = (value for p, value in messages if p == partition)
    for offset, value in enumerate(mine):
        if not good(value):
            continue
        event = json.loads(value)
        series = event["source"], event["metric"]
        count = seen.get(series, 0)
        seen[series] = count + 1
        found += count >= TRUSTED_AFTER and start <= offset < end
    return found


class Log:
    """The log of versions of a stream, as it grows."""

    def __init__(self, stream: str) -> None:
        self.rows = VersionLog.objects.filter(incarnation__stream__name=stream)

    def live(self) -> set[str]:
        """Models and challengers of the events to come, of all partitions: "1,2?" """
        newest = self.rows.order_by("partition", "-from_offset").distinct("partition")
        return {_said(entry) for entry in newest.select_related("scoring_version")}

    def stretch(self, partition: int, said: str) -> tuple[int, int]:
        """[from, until) offsets of the partition under these models."""
        entries = list(self.rows.filter(partition=partition).order_by("from_offset"))
        for entry, following in pairwise(entries):
            if _said(entry) == said:
                return entry.from_offset, following.from_offset
        raise AssertionError(f"{said} never counted")


def _said(entry: VersionLog) -> str:
    payload = entry.scoring_version.payload
    models = [str(m["version"]) for m in payload["models"]]
    return ",".join([*models, *(f"{m['version']}?" for m in payload.get("challengers", ()))])


def gated() -> Any:
    """The gate opens by itself, after an hour of events."""
    detection = settings.VIGIL.anomaly_detection
    rules = {"auto_promote": True, "shadow_hours": 1, "max_alerts_per_day_ratio": 1e4}
    registry = detection.registry.model_copy(update=rules)
    changed = detection.model_copy(update={"registry": registry})
    return override_settings(VIGIL=settings.VIGIL.model_copy(update={"anomaly_detection": changed}))


@pytest.mark.slow
def test_challenge_promote_and_roll_back_under_load(
    topic: MakeTopic, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A second or two of the gate's work: the events don't wait for it.
    monkeypatch.setattr(gate_faults, "HISTORY_EVENTS", 4 * STEP + AHEAD)
    monkeypatch.setattr(gate_faults, "MOST_SERIES", 4)
    monkeypatch.setattr(gate_faults, "FAULTS", 200)
    # The challenger is to differ, so it may alarm as it likes.
    monkeypatch.setattr(gate_faults, "FALSE_TOLERANCE", 1e4)
    place, name = topic(PARTITIONS), f"t-{uuid.uuid4().hex[:10]}"
    messages = events(9 * STEP + AHEAD, PARTITIONS, series=40, faults=0.0008, healthy=200)

    def started() -> Consumer:
        return Consumer(name, place, name, VIGIL_KAFKA__BATCH_SIZE="10000",
                        VIGIL_KAFKA__GROUP_INSTANCE_ID=name,
                        VIGIL_ANOMALY_DETECTION__WEIGHTS='{"isolation_forest": 3.0}',
                        )  # fmt: skip

    consumer, log = started(), Log(name)
    await_until(lambda: log.rows.count() == PARTITIONS)
    stream = Stream.objects.get(name=name)
    first, second = save(stream, 1, 2.0), save(stream, 2, 0.5)

    load = Load(kafka, place, messages, RATE)
    load.allowed, began = AHEAD, time.monotonic()
    load.start()

    def judged() -> None:
        await_until(lambda: stored_events(place) > 9 * STEP // 2)  # so many it takes
        before, load.allowed = load.sent, load.allowed + STEP
        with gated():
            (said,) = succession.judge_all({"bootstrap.servers": kafka})
        assert said.endswith("passed the gate and is champion"), said
        assert load.sent > before

    def killed() -> None:
        nonlocal consumer
        consumer.kill()
        consumer = started()

    def await_some(more: int) -> None:
        """Events under what is live now."""
        enough = stored_events(place) + more
        await_until(lambda: stored_events(place) > enough)

    took = []
    changes: list[tuple[Callable[[], object], str]] = [
        (lambda: model_store.promote(first.pk), "1"),
        (lambda: model_store.challenge(second.pk), "1,2?"),
        (killed, "1,2?"),
        (judged, "2"),
        (lambda: model_store.roll_back(stream, "", "isolation_forest"), "1"),
        (lambda: model_store.roll_back(stream, "", "isolation_forest"), ""),
    ]
    for change, expected in changes:
        load.allowed += STEP
        await_some(STEP // 2)
        change()
        asked = time.monotonic()
        await_until(lambda expected=expected: log.live() == {expected}, 30)  # type: ignore[misc]
        took.append(time.monotonic() - asked)
    assert load.is_alive()  # all of it happened while events were on their way
    load.allowed = len(messages) - 1
    await_some(STEP // 2)
    messages = load.end()
    total = sum(good(value) for _, value in messages)
    await_until(lambda: stored_events(place) == total, 120)
    scored_per_s = total / (time.monotonic() - began)
    consumer.stop()
    print(f"sent {total:,} at {load.per_s:,.0f}/s, stored {scored_per_s:,.0f}/s, live after "
          f"{', '.join(f'{s:.1f}' for s in took)} s")  # fmt: skip
    assert max(took) < LIVE_WITHIN_S

    # Nothing lost, nothing twice: offsets counted them, and so did the minutes.
    counted = Rollup.objects.filter(incarnation__stream=stream).aggregate(n=Sum("count"))["n"]
    assert counted == stored_events(place) == total

    # Each event of the challenger's time is once in its sums, the kill notwithstanding.
    for partition in range(PARTITIONS):
        start, end = log.stretch(partition, "1,2?")
        rows = ShadowHour.objects.filter(challenger=second, partition=partition)
        scored = rows.aggregate(n=Sum("events"))["n"]
        assert scored == shadowed(messages, partition, start, end) > 0
    assert not ShadowHour.objects.filter(challenger=first).exists()
    # What it alone flagged alarmed nobody.
    alone = Disagreement.objects.filter(challenger=second, challenger_score__gte=0.8)
    places = set(alone.values_list("partition", "offset"))
    told = Anomaly.objects.filter(incarnation__stream=stream)
    near = Candidate.objects.filter(incarnation__stream=stream, score__gte=0.8)
    flagged = {*told.values_list("partition", "offset"), *near.values_list("partition", "offset")}
    print(f"{len(places)} flagged by the challenger alone, {told.count()} anomalies")
    assert places
    assert not places & flagged

    # Each anomaly names what the log names at its offset, and every stretch of the log has some.
    entries: dict[int, list[VersionLog]] = {p: [] for p in range(PARTITIONS)}
    for entry in log.rows.select_related("scoring_version").order_by("from_offset"):
        entries[entry.partition].append(entry)
    used = []
    for row in told:
        entry = [e for e in entries[row.partition] if e.from_offset <= row.offset][-1]
        said = {m["algorithm"]: (m["version"], m["sha256"])
                for m in entry.scoring_version.payload["models"]}  # fmt: skip
        names = {name: (m["version"], m["sha256"]) for name, m in row.models_used.items()}
        assert row.scoring_version_id == entry.scoring_version_id
        assert names == said
        used.append(_said(entry))
    assert set(used) == {"", "1", "1,2?", "2"}
    # And the page's question has the same answer.
    last = log.rows.latest("created_at")
    (found,) = live_at(last.created_at, stream=name)
    assert [one.models for one in found.versions] == [[]]
