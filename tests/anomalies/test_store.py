"""What a scored batch leaves in the database, and that a replay meets the same rows."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from django.db import OperationalError, connection, transaction

from anomalies.models import Anomaly, Candidate, Outbox
from anomalies.store import AnomalySink
from config.wiring import load_model, scoring_base
from detection.scoring import ScoringEngine
from detection.thresholds import Policy
from detection.versions import compile_version
from streams import checkpoint
from streams.batch import EventBatch
from streams.checkpoint import Owned
from streams.models import Rollup, Series, Stream
from streams.series import SeriesIndex
from streams.series_store import SeriesStore

START = 1_704_067_200_000_000
MINUTE = 60_000_000
STEPS = 560
SPIKE = 400
NOW = dt.datetime(2026, 5, 20, 12, tzinfo=dt.UTC)


class Lab:
    """One partition's engine and sink."""

    def __init__(self, stream: Stream, owned: Owned) -> None:
        self.stream, self.owned = stream, owned
        self.engine: ScoringEngine = ScoringEngine(SeriesIndex())
        self.engine.attach(0)
        self.sink = AnomalySink(stream, self.engine, lambda: NOW)
        payload = {
            **scoring_base(settings.VIGIL), "time_zone": "UTC", "models": [],
            "policies": [Policy("p", version=3, threshold=0.8).as_dict()],
        }  # fmt: skip
        self.version = compile_version(0, payload, load_model)

    def batch(self, start: int, end: int) -> EventBatch:
        """Two series, one of them with a spike of five events at SPIKE; an event a minute each."""
        codes = [self.engine.index.code("web-1", "cpu"), self.engine.index.code("web-2", "cpu")]
        offset = np.arange(2 * start, 2 * end, dtype=np.int64)
        step = offset // 2
        values = 50 + (step * 7 % 10) / 5.0
        odd = (offset % 2 == 0) & (step >= SPIKE) & (step < SPIKE + 5)
        values[odd] += 300
        return EventBatch(
            START + step * MINUTE, np.array(codes, dtype=np.int32)[offset % 2],
            values.reshape(-1, 1), np.zeros(len(offset), dtype=np.int32), offset,
            committable={0: 2 * end},
        )  # fmt: skip

    def write(self, start: int, end: int, *, flush: bool = True, silent_below: int = 0) -> Any:
        scored = self.engine.process(self.batch(start, end), self.version, {0: silent_below})
        SeriesStore().ensure(self.stream, self.engine.index)
        pending = self.sink.build([scored], {0: self.owned}, flush=flush)
        self.store(pending)
        return pending

    def store(self, pending: Any) -> None:
        self.sink.prepare(pending)
        with transaction.atomic():
            self.sink.write(pending)


@pytest.fixture
def lab(transactional_db: None) -> Lab:
    stream = Stream.objects.create(name="raw", topic="raw")
    life = checkpoint.incarnation(stream, "id-1")
    return Lab(stream, checkpoint.acquire(life, 0, "me"))


def everything() -> dict[str, Any]:
    """All rows but wall-clock columns, which the anomalies' are."""
    skipped = {"stored_at", "updated_at"}
    names = [f.attname for f in Anomaly._meta.concrete_fields if f.name not in skipped]
    return {
        "anomalies": sorted(Anomaly.objects.values_list(*names), key=str),
        "outbox": sorted(Outbox.objects.values_list("anomaly_id", "sequence", "kind", "payload"),
                         key=str),
        "candidates": sorted(
            Candidate.objects.values_list("series", "offset", "score", "levels", "deviation")
        ),
        "rollups": sorted(Rollup.objects.values_list(), key=str),
        "series": sorted(Series.objects.values_list("pk", "events", "last_value", "last_event_at")),
    }  # fmt: skip


def test_an_episode_is_one_anomaly_with_its_context_and_its_changes(lab: Lab) -> None:
    pending = lab.write(0, STEPS)
    anomaly = Anomaly.objects.get(source="web-1", offset=2 * SPIKE)
    assert (anomaly.metric, anomaly.state, anomaly.stream) == ("cpu", "closed", lab.stream)
    assert anomaly.policy == "p v3"
    assert anomaly.threshold == 0.8
    assert anomaly.score >= 0.8
    assert anomaly.direction == 1
    assert anomaly.peak_value >= anomaly.value > 300
    assert anomaly.peak_score >= anomaly.score
    assert anomaly.expected_low < anomaly.expected_mid < anomaly.expected_high < 100
    assert anomaly.onset_at <= anomaly.peak_at <= anomaly.end_at
    assert anomaly.offset <= anomaly.last_offset
    assert len(anomaly.context) == 60
    assert anomaly.context[-1] == [(START + SPIKE * MINUTE) / 1000, anomaly.value]
    assert set(anomaly.detectors) == {"online", "zscore", "shift"}
    assert "cpu on web-1 was" in anomaly.explanation
    changes = Outbox.objects.filter(anomaly=anomaly).order_by("sequence")
    kinds = list(changes.values_list("kind", flat=True))
    assert kinds[0] == "onset"
    assert kinds[-1] == "closed"
    assert set(kinds[1:-1]) <= {"update"}
    assert list(changes.values_list("sequence", flat=True)) == list(range(len(kinds)))
    # Ends are for the rules only; the rest waits to be published.
    assert [row.published_at is not None for row in changes] == [k == "closed" for k in kinds]
    assert pending.found.onsets == Anomaly.objects.count()


def test_writing_the_same_rows_again_changes_nothing(lab: Lab) -> None:
    pending = lab.write(0, STEPS)
    once = everything()
    assert all(once.values())
    lab.store(pending)
    assert everything() == once


def test_a_replay_by_another_process_changes_nothing(lab: Lab) -> None:
    for at in range(0, STEPS, 20):
        lab.write(at, at + 20)
    once = everything()
    other = Lab(lab.stream, lab.owned)
    other.write(0, STEPS)
    assert everything() == once


def test_a_silent_replay_writes_nothing_but_knows_the_open_episode(lab: Lab) -> None:
    until = SPIKE + 3
    lab.write(0, until)
    assert Anomaly.objects.get(source="web-1", offset=2 * SPIKE).state == "open"
    expected = Lab(lab.stream, lab.owned)
    once = everything()
    scored = expected.engine.process(expected.batch(0, until), expected.version, {0: 2 * until})
    SeriesStore().ensure(lab.stream, expected.engine.index)
    pending = expected.sink.build([scored], {0: lab.owned}, flush=False, replaying=[0])
    assert (pending.anomalies, pending.outbox, pending.candidates, pending.rollups) == (
        [], [], [], [],
    )  # fmt: skip
    assert pending.found.onsets == 0
    expected.store(pending)
    assert everything() == once
    expected.write(until, STEPS)
    lab.write(until, STEPS)
    assert Anomaly.objects.get(source="web-1", offset=2 * SPIKE).state == "closed"


def test_minutes_that_are_open_are_written_with_a_flush_and_grow(lab: Lab) -> None:
    lab.write(0, 10, flush=False)
    assert Rollup.objects.count() == 18  # the tenth minute of both is open
    assert Series.objects.filter(events=0).count() == 2
    lab.write(10, 11)
    assert Rollup.objects.count() == 22
    assert sorted(Series.objects.values_list("source", "events")) == [("web-1", 11), ("web-2", 11)]
    assert sum(Rollup.objects.values_list("count", flat=True)) == 22


def test_near_misses_are_kept_with_their_levels(lab: Lab) -> None:
    lab.write(0, STEPS)
    spike = Candidate.objects.get(offset=2 * SPIKE)
    anomaly = Anomaly.objects.get(offset=2 * SPIKE, source="web-1")
    assert (spike.score, spike.value) == (anomaly.score, anomaly.value)
    assert spike.levels >> 8 & 1  # the default threshold is one of the levels
    assert spike.deviation == pytest.approx(spike.value - spike.expected_mid)
    assert Candidate.objects.filter(score__lt=0.6).count() == 0


def test_a_lost_connection_is_an_error_that_the_runner_waits_out(lab: Lab) -> None:
    """psycopg's own cursors are used, but what comes out must be Django's error."""
    scored = lab.engine.process(lab.batch(0, STEPS), lab.version, {})
    SeriesStore().ensure(lab.stream, lab.engine.index)
    pending = lab.sink.build([scored], {0: lab.owned}, flush=True)
    terminate_own_connection()
    with pytest.raises(OperationalError):
        lab.sink.prepare(pending)
    connection.close()
    lab.sink.prepare(pending)
    terminate_own_connection()
    with pytest.raises(OperationalError):
        lab.sink.write(pending)
    connection.close()
    # On a new connection the same rows go through.
    lab.store(pending)
    assert Anomaly.objects.exists()


def terminate_own_connection() -> None:
    pid = connection.connection.info.backend_pid
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
    finally:
        other.close()


def test_all_events_go_to_the_topic_before_the_transaction_and_once(lab: Lab) -> None:
    sent: list[list[tuple[bytes | None, bytes | None]]] = []
    lab.sink = AnomalySink(lab.stream, lab.engine, lambda: NOW, sent.append)
    pending = lab.write(0, SPIKE + 1, silent_below=10)
    lab.sink.prepare(pending)
    assert len(sent) == 1
    rows = [json.loads(value or b"") for _, value in sent[0]]
    assert [r["offset"] for r in rows] == list(range(10, 2 * (SPIKE + 1)))
    assert sent[0][0][0] == b"web-1"
    assert rows[0] == {
        "source": "web-1", "metric": "cpu", "value": 51.0, "timestamp": "2024-01-01T00:05:00Z",
        "is_anomaly": False, "anomaly_score": None, "stream": "raw", "partition": 0, "offset": 10,
        "late": False, "change": "event",
    }  # fmt: skip
    odd = [r for r in rows if r["is_anomaly"]]
    assert [r["offset"] for r in odd] == [2 * SPIKE]
    assert odd[0]["anomaly_score"] >= 0.8


def wide(lab: Lab, n: int) -> EventBatch:
    """n wide events of one pump; its flow leaves the others from 500 to 519 on."""
    step = np.arange(n, dtype=np.int64)
    swing = np.sin(step[:, None] / np.array([7.0, 19.0]))
    noise = np.stack([np.sin(step * step * (j + 2) * 0.37) for j in range(3)], axis=1)
    values = swing @ np.array([[1.0, -2.0, 3.0], [2.0, 1.0, 0.3]]) + 0.3 * noise
    values[500:520, 1] += 20
    code = lab.engine.index.code("pump-1", "vector: amps + flow + heat")
    return EventBatch(
        START + step * MINUTE, np.full(n, code, dtype=np.int32), values,
        np.zeros(n, dtype=np.int32), step, ("amps", "flow", "heat"), {0: n},
    )  # fmt: skip


def test_a_vectors_anomaly_holds_the_share_of_each_value(lab: Lab) -> None:
    scored = lab.engine.process(wide(lab, 600), lab.version, {})
    SeriesStore().ensure(lab.stream, lab.engine.index)
    pending = lab.sink.build([scored], {0: lab.owned}, flush=True)
    lab.store(pending)
    row = Anomaly.objects.get()
    assert (row.source, row.metric) == ("pump-1", "vector: amps + flow + heat")
    assert row.anomaly_type == "multivariate"
    assert row.offset == 500
    assert row.state == "closed"
    assert row.direction == 1
    assert list(row.detectors) == ["vector"]
    assert row.detectors["vector"] == row.score > 0.8
    assert list(row.features) == ["amps", "flow", "heat"]
    assert row.expected_low == 0 < row.expected_mid < row.expected_high < row.value
    shares = row.evidence["shares"]
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=shares.__getitem__) == "flow"
    values = row.evidence["values"]
    assert list(values) == ["amps", "flow", "heat"]
    assert all(set(said) == {"value", "level", "usual", "expected"} for said in values.values())
    flow = values["flow"]
    assert flow["level"] - flow["expected"] > 10 > abs(flow["usual"])
    assert "flow lay at" in row.explanation
    assert "together lay" in row.explanation
    assert "flow" in row.explanation
    outbox = Outbox.objects.get(sequence=0).payload
    assert outbox["anomaly_type"] == "multivariate"
    assert outbox["explanation"] == row.explanation
    rollups = Rollup.objects.all()
    assert sum(r.count for r in rollups) == 200  # of what was judged, not of the training
    assert min(r.min for r in rollups) >= 0
    series = Series.objects.get()
    assert (series.events, series.last_value) == (200, rollups.latest("minute").last)


def test_a_vector_in_training_leaves_its_series_and_no_rows(lab: Lab) -> None:
    scored = lab.engine.process(wide(lab, 300), lab.version, {})
    SeriesStore().ensure(lab.stream, lab.engine.index)
    lab.store(lab.sink.build([scored], {0: lab.owned}, flush=True))
    assert Series.objects.get().events == 0
    assert not Rollup.objects.exists()
