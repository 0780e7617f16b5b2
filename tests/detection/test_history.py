"""Training's view of the past: the topic's events by arrival, and the live scoring's features."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from detection.base import ScoringInput, SeriesOutput
from detection.detectors.online import OnlineDetector
from detection.history import Interval, feature_rows, read_events
from detection.state import StateStore
from streams.batch import EventBatch
from streams.codec import Codec
from streams.connectors.synthetic import JsonEncoder, World, grid
from streams.errors import BrokerError
from streams.producer import TopicProducer
from streams.series import SeriesIndex
from tests.conftest import MakeTopic

START = 1_704_067_200_000_000
MINUTE = 60_000_000
STEPS = 400

WORLD = World(grid(("a", "b", "c"), ("cpu", "mem")), interval_us=MINUTE, seed=3)


def fill(client: dict[str, Any], topic: str, *more: bytes) -> None:
    columns = WORLD.columns(START, START + STEPS * MINUTE)
    with TopicProducer(client) as producer:
        producer.send_many(topic, JsonEncoder(WORLD.lines).records(columns))
        for raw in more:
            producer.send(topic, raw)


@pytest.fixture
def client(kafka: str) -> dict[str, Any]:
    return {"bootstrap.servers": kafka}


def read(client: dict[str, Any], topic: str, **more: Any) -> tuple[SeriesIndex, list[EventBatch]]:
    index = SeriesIndex()
    return index, list(read_events(client, topic, Codec(index), share=1.0, **more))


def test_all_events_are_read_and_what_is_none_is_passed_over(
    client: dict[str, Any], topic: MakeTopic
) -> None:
    name = topic(3)
    fill(client, name, b"no event", b"")
    index, batches = read(client, name)
    assert sum(map(len, batches)) == 6 * STEPS
    assert len(index) == 6
    ends: dict[int, int] = {}
    for batch in batches:
        ends |= batch.committable
    assert sum(ends.values()) == 6 * STEPS + 2


def test_only_what_arrived_since_then_is_read(client: dict[str, Any], topic: MakeTopic) -> None:
    name = topic(2)
    fill(client, name)
    time.sleep(0.05)
    later = round(time.time() * 1e6)
    time.sleep(0.05)
    event = b'{"source": "x", "metric": "y", "value": 1, "timestamp": 1704067200}'
    with TopicProducer(client) as producer:
        producer.send(name, event, b"x")
    index, batches = read(client, name, since_us=later)
    assert (sum(map(len, batches)), index.names) == (1, [("x", "y")])
    assert read(client, name, since_us=later + 3_600_000_000)[1] == []


def test_of_too_many_events_the_newest_are_read(client: dict[str, Any], topic: MakeTopic) -> None:
    name = topic(1)
    fill(client, name)
    _, batches = read(client, name, max_events=600)
    offsets = np.concatenate([batch.offset for batch in batches])
    assert offsets.tolist() == list(range(6 * STEPS - 600, 6 * STEPS))


def test_an_empty_or_missing_topic_gives_nothing(client: dict[str, Any], topic: MakeTopic) -> None:
    assert read(client, topic(2))[1] == []
    assert read(client, "no-such-topic")[1] == []


def test_without_a_broker_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.connectors.topic.TIMEOUT_S", 0.3)
    with pytest.raises(BrokerError, match="no Kafka broker answers"):
        read({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, "x")


def batch_of(series: int, steps: int, index: SeriesIndex, seed: int = 0) -> EventBatch:
    """`series` series in two partitions, one event a minute each."""
    rng = np.random.default_rng(seed)
    codes = [index.code(f"s{number}", "cpu" if number % 2 else "mem") for number in range(series)]
    n = series * steps
    code = np.tile(np.array(codes, dtype=np.int32), steps)
    return EventBatch(
        np.repeat(START + np.arange(steps) * MINUTE, series),
        code,
        rng.normal(50, 5, (n, 1)),
        code % 2,
        np.arange(n, dtype=np.int64),
        committable={0: n, 1: n},
    )


def test_features_are_those_of_live_scoring() -> None:
    index = SeriesIndex()
    batch = batch_of(3, 300, index)
    rows = feature_rows([batch], index)
    detector = OnlineDetector()
    store = StateStore([detector.component])
    store.allocate(3)
    out = SeriesOutput.empty(len(batch))
    inputs = ScoringInput(
        batch.series.astype(np.int64), batch.event_time // 1_000_000, batch.values[:, 0].copy()
    )
    detector.score(store.rows("online"), inputs, out)
    live = out.features[out.seen >= 150]
    assert rows.warming == 3 * 150
    assert np.array_equal(np.sort(rows.features, axis=0), np.sort(live, axis=0))


def test_how_batches_are_cut_and_come_changes_nothing() -> None:
    index = SeriesIndex()
    whole = batch_of(4, 400, index)
    at_once = feature_rows([whole], index, max_rows=500, seed=5)
    by_partition = [
        whole.take((whole.partition == p) & (whole.offset // 100 == k))
        for p in (1, 0)
        for k in range(16)
    ]
    cut = feature_rows(by_partition, index, max_rows=500, seed=5)
    assert np.array_equal(at_once.features, cut.features)
    assert np.array_equal(at_once.time_us, cut.time_us)
    assert len(at_once) == 500
    assert at_once.sampled_out == 4 * 250 - 500
    assert (np.diff(at_once.time_us) >= 0).all()


def test_the_seed_chooses_the_sample_and_it_is_fair() -> None:
    index = SeriesIndex()
    batch = batch_of(4, 1_150, index)
    one, other = (feature_rows([batch], index, max_rows=1_000, seed=seed) for seed in (1, 2))
    assert not np.array_equal(one.time_us, other.time_us)
    first_half = (one.time_us < START + 650 * MINUTE).mean()
    assert 0.43 < first_half < 0.57


def test_confirmed_anomalies_leave_no_trace() -> None:
    """Not even in the rows behind them: it is as if those events had never come."""
    index = SeriesIndex()
    batch = batch_of(2, 400, index)
    interval = Interval("s1", "cpu", START + 200 * MINUTE, START + 209 * MINUTE)
    early = Interval("s0", "mem", START, START + 10 * MINUTE)
    rows = feature_rows([batch], index, exclude=[interval, early])
    gone = np.zeros(len(batch), dtype=np.bool_)
    for one in (interval, early):
        code = index.code(one.source, one.metric)
        inside = (batch.event_time >= one.start_us) & (batch.event_time <= one.end_us)
        gone |= (batch.series == code) & inside
    without = feature_rows([batch.take(~gone)], index)
    assert rows.excluded == gone.sum() == 21
    assert np.array_equal(rows.features, without.features)
    assert np.array_equal(rows.time_us, without.time_us)


def test_a_metric_can_be_chosen() -> None:
    index = SeriesIndex()
    rows = feature_rows([batch_of(4, 200, index)], index, metric="cpu")
    assert (rows.series, rows.events, len(rows)) == (2, 400, 100)


def test_a_series_in_two_partitions_has_two_states() -> None:
    index = SeriesIndex()
    batch = batch_of(1, 320, index)
    split = EventBatch(
        batch.event_time,
        batch.series,
        batch.values,
        (np.arange(320) % 2).astype(np.int32),
        batch.offset,
    )
    rows = feature_rows([split], index)
    assert (rows.series, rows.warming, len(rows)) == (1, 300, 20)
