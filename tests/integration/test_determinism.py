"""Same events, same log of versions: the same rows and scores to the last bit (promise 2).

Whatever the batch size, the number of consumers or a kill after a policy, a model and its
challenger changed: counts of challengers and of drift are the same as well.
"""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient
from django.conf import settings
from numpy.typing import NDArray

from config.wiring import load_model, scoring_base
from detection import episodes, model_store
from detection.models import ModelVersion, ThresholdPolicy, VersionLog
from detection.registry import MODEL_DETECTORS, SERIES_DETECTORS
from detection.scoring import ScoringEngine
from detection.thresholds import Policy
from detection.training import Trained, train
from detection.versions import VersionKeeper, compile_version, payload_of, store
from streams import checkpoint
from streams.checkpoint import Owned
from streams.codec import Codec
from streams.models import PartitionOffset, Stream, TopicIncarnation
from streams.series import SeriesIndex
from tests.conftest import MakeTopic
from tests.integration.harness import (
    Consumer,
    Message,
    assert_same,
    await_until,
    events,
    interleaved,
    produce,
    stored,
    wide_events,
)
from tests.streams.messages import Raw, by_partition

NARROW, WIDE = 12_000, 2_400
EVENTS = NARROW + WIDE
WIDEST = 12  # columns of features, of any schema
VOTERS = [*SERIES_DETECTORS, "vector", *MODEL_DETECTORS]
PARTITIONS = 4
SERIES = 8
CHANGE = 700  # the offset from which on the new policy and model count, in each partition
SIZES = (1, 7, 1_000, 10_000)
# Through the servers every batch is a transaction: small batches get the first events only.
SIZES_OF = {5_000: (1, 7), EVENTS: (1_000, 10_000)}
POLICY = "lower from the middle on"
VECTORS = [
    zlib.crc32(f"plant-{p}/vector: v0 + v1 + v2 + v3 + v4".encode()) for p in range(PARTITIONS)
]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    narrow = events(NARROW, PARTITIONS, SERIES, faults=0.006, healthy=200)
    return interleaved(narrow, wide_events(WIDE, PARTITIONS))


@pytest.fixture(scope="module")
def features(messages: list[Message]) -> NDArray[np.float64]:
    """What the engine itself makes of these events."""
    engine = ScoringEngine(SeriesIndex())
    for partition in range(PARTITIONS):
        engine.attach(partition)
    batch = Codec(engine.index).decode(by_partition(messages)).batch
    payload = {
        **scoring_base(settings.VIGIL), "time_zone": "UTC", "policies": [], "models": [],
    }  # fmt: skip
    detail = engine.process(batch, compile_version(0, payload, load_model), {}).detail
    rows: NDArray[np.float64] = detail.features[detail.seen >= 150]
    return rows


@pytest.fixture(scope="module")
def models(features: NDArray[np.float64]) -> tuple[Trained, Trained]:
    """A champion and its challenger, to which more is odd."""
    return (
        train("isolation_forest", features, seed=5, params={"n_estimators": 25}),
        train("isolation_forest", 0.5 * features[::3], seed=6, params={"n_estimators": 15}),
    )


@pytest.fixture
def policy(db: None) -> ThresholdPolicy:
    return ThresholdPolicy.objects.create(name=POLICY, threshold=0.6, medium_from=0.65)


def write_log(stream: Stream, life: TopicIncarnation, models: tuple[Trained, Trained]) -> list[Any]:
    """Version A from offset 0 on, B (the policy and the models of now) from CHANGE on."""
    champion, rival = (
        model_store.save(model, stream=stream, algorithm="isolation_forest") for model in models
    )
    model_store.promote(champion.pk)
    ModelVersion.objects.filter(pk=rival.pk).update(state="challenger")
    base = scoring_base(settings.VIGIL)
    after = payload_of(stream, base)
    before = {
        **after,
        "policies": [Policy("configuration", threshold=base["threshold"]).as_dict()],
        "models": [],
    }
    assert before.pop("challengers")[0]["id"] == rival.pk
    versions = [(0, store(stream, before)), (CHANGE, store(stream, after))]
    VersionLog.objects.bulk_create(
        VersionLog(incarnation=life, partition=p, from_offset=start, scoring_version=version)
        for p in range(PARTITIONS)
        for start, version in versions
    )
    return log_of(stream)


def log_of(stream: Stream) -> list[Any]:
    rows = VersionLog.objects.filter(incarnation__stream=stream)
    return sorted(rows.values_list("partition", "from_offset", "scoring_version_id"))


# -- every event's score, in this process ----------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """What the engine said of every event, sorted by place: partition, offset, series."""

    place: NDArray[np.int64]
    numbers: NDArray[np.float64]
    votes: NDArray[np.float64]
    state: dict[str, bytes]

    def assert_equal(self, other: Scores) -> None:
        assert np.array_equal(self.place, other.place)
        for name in ("numbers", "votes"):
            mine, yours = (getattr(x, name).view(np.int64) for x in (self, other))
            differ = np.flatnonzero((mine != yours).any(axis=1))
            assert not len(differ), (name, self.place[differ[:3]], len(differ))
        assert self.state == other.state


# (partition, layout and name of each series, its row)
Snapshot = list[tuple[int, list[str], list[tuple[str, str]], list[bytes]]]


@dataclass
class Process:
    """One consumer's memory: some partitions, and codes of its own."""

    engine: ScoringEngine
    codec: Codec
    keeper: VersionKeeper
    owned: list[Owned]

    @classmethod
    def start(cls, stream: Stream, owned: list[Owned], first_names: Sequence[str] = ()) -> Process:
        index = SeriesIndex()
        for name in first_names:
            index.code(name, "other")  # codes differ from process to process
        engine = ScoringEngine(index)
        keeper = VersionKeeper(stream, scoring_base(settings.VIGIL), load_model)
        for one in owned:
            engine.attach(one.partition)
            keeper.attach(one)
        return cls(engine, Codec(index), keeper, owned)

    def score(self, messages: Sequence[Raw]) -> list[tuple[NDArray[Any], ...]]:
        """(place, numbers, votes) of each part of one batch."""
        out: list[tuple[NDArray[Any], ...]] = []
        decoded = self.codec.decode(messages)
        parts = [p for b in (decoded.batch, *decoded.vectors) for p in self.keeper.split(b)]
        for version, part in parts:
            scored = self.engine.process(part, version, {})
            events = scored.events
            votes = np.full((len(events), len(VOTERS)), np.nan)
            votes[:, [VOTERS.index(name) for name in scored.version.names]] = scored.votes
            found = scored.outcome
            features = np.full((len(events), WIDEST), np.nan)
            features[:, : scored.detail.features.shape[1]] = scored.detail.features
            names = [zlib.crc32("/".join(n).encode()) for n in self.engine.index.names]
            out.append(
                (
                    np.stack(
                        [events.partition, events.offset, np.array(names)[events.series]], axis=1
                    ).astype(np.int64),
                    np.column_stack(
                        [events.values, scored.score, scored.oddness, scored.detail.expected,
                         features, found.change, found.severity, found.sequence,
                         found.onset_offset, found.levels, found.late]
                    ),
                    votes,
                )
            )  # fmt: skip
        return out

    def snapshot(self) -> Snapshot:
        engine = self.engine
        out = []
        for one in self.owned:
            slots = engine.slots_of(one.partition)
            names = [engine.index.names[c] for c in engine.slot_code[slots].tolist()]
            out.append((one.partition, engine.layouts(slots), names, engine.pack(slots)))
        return out

    def restore(self, snapshot: Snapshot) -> None:
        for partition, layouts, names, packed in snapshot:
            for name, layout, row in zip(names, layouts, packed, strict=True):
                code = np.array([self.codec.code(*name)], dtype=np.int32)
                self.engine.restore(partition, code, layout, [row])


@pytest.fixture
def scored_stream(
    policy: ThresholdPolicy, models: tuple[Trained, Trained]
) -> tuple[Stream, list[Owned]]:
    stream = Stream.objects.create(name="scored", topic="scored")
    life = checkpoint.incarnation(stream, "in-process")
    write_log(stream, life, models)
    return stream, [checkpoint.acquire(life, p, "test") for p in range(PARTITIONS)]


def run(
    stream: Stream, owned: list[Owned], messages: list[Message], size: int, consumers: int
) -> Scores:
    """Score all, in batches of ``size``; after 60 % of them another process takes over."""
    raws = by_partition(messages)
    parts: list[tuple[NDArray[Any], ...]] = []
    state: dict[str, bytes] = {}
    for number in range(consumers):
        mine = [one for one in owned if one.partition % consumers == number]
        numbers = {one.partition for one in mine}
        todo = [raw for raw in raws if raw.partition() in numbers]
        process = Process.start(stream, mine)
        cut = int(0.6 * len(todo))
        for at in range(0, cut, size):
            parts += process.score(todo[at : min(at + size, cut)])
        successor = Process.start(stream, mine, ["x", "y", "z"])
        successor.restore(process.snapshot())
        for at in range(cut, len(todo), size):
            parts += successor.score(todo[at : at + size])
        for partition, _, names, packed in successor.snapshot():
            state |= {f"{partition} {n}": row for n, row in zip(names, packed, strict=True)}
    place, values, votes = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((place[:, 2], place[:, 1], place[:, 0]))
    return Scores(place[order], values[order], votes[order], state)


def test_every_score_is_the_same_to_the_bit(
    messages: list[Message], scored_stream: tuple[Stream, list[Owned]]
) -> None:
    stream, owned = scored_stream
    expected = run(stream, owned, messages, 10_000, 1)
    new = expected.place[:, 1] >= CHANGE
    forest = expected.votes[:, VOTERS.index("isolation_forest")]
    assert len(expected.place) > 0.99 * (NARROW + 4 * WIDE)
    assert np.isnan(forest[~new]).all()
    weight = scoring_base(settings.VIGIL)["weights"]["isolation_forest"]
    assert (weight * forest[new] == expected.numbers[new, 2]).any()  # it decides some scores
    onset = expected.numbers[:, -6] == episodes.ONSET
    assert onset[~new].any()
    assert onset[np.isin(expected.place[:, 2], VECTORS)].any()
    assert (onset & new & (expected.numbers[:, 1] < 0.8)).any()
    for size in SIZES:
        for consumers in (1, 3):
            expected.assert_equal(run(stream, owned, messages, size, consumers))


def test_another_version_or_order_is_noticed(
    messages: list[Message], scored_stream: tuple[Stream, list[Owned]]
) -> None:
    """The comparison itself can fail: one offset of difference in the log shows."""
    stream, owned = scored_stream
    expected = run(stream, owned, messages, 1_000, 1)
    VersionLog.objects.filter(from_offset=CHANGE, partition=2).update(from_offset=CHANGE + 1)
    with pytest.raises(AssertionError, match=r"votes|numbers"):
        expected.assert_equal(run(stream, owned, messages, 1_000, 1))


# -- everything stored, through the real servers ---------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A topic with the events' first part on it, and the log of its versions."""

    topic: str
    stream: str
    group: str
    log: list[Any]


@pytest.fixture
def prepared(
    topic: MakeTopic,
    kafka_admin: AdminClient,
    policy: ThresholdPolicy,
    models: tuple[Trained, Trained],
) -> Callable[[], Place]:
    def prepare() -> Place:
        name = topic(PARTITIONS)
        answer = kafka_admin.describe_topics(TopicCollection([name]))
        stream = Stream.objects.create(name=f"s-{uuid.uuid4().hex[:8]}", topic=name)
        life = checkpoint.incarnation(stream, str(answer[name].result(20).topic_id))
        return Place(name, stream.name, f"g-{name}", write_log(stream, life, models))

    return prepare


def consumer(place: Place, size: int, *args: str, **env: str) -> Consumer:
    return Consumer(
        place.stream, place.topic, place.group, *args, VIGIL_KAFKA__BATCH_SIZE=str(size), **env
    )


def changed_everywhere(place: Place) -> bool:
    """Each partition has stored events of the new version."""
    rows = PartitionOffset.objects.filter(incarnation__stream__topic=place.topic)
    reached = list(rows.values_list("next_offset", flat=True))
    return len(reached) == PARTITIONS and min(reached) > CHANGE + 10


def one_killed(place: Place, size: int, messages: list[Message], kafka: str) -> None:
    """One consumer, killed after the change, and its successor."""
    most = int(0.9 * len(messages))
    produce(kafka, place.topic, messages[:most])
    same = {"VIGIL_KAFKA__GROUP_INSTANCE_ID": "one"}
    # No snapshot before the kill: the successor runs the change again, in silence.
    first = consumer(place, size, VIGIL_CONSUMER__SNAPSHOT_INTERVAL_S="1000", **same)
    await_until(lambda: changed_everywhere(place))
    first.kill()
    produce(kafka, place.topic, messages[most:])
    consumer(place, size, "--exit-at-end", **same).wait()


def three_of_which_one_is_killed(
    place: Place, size: int, messages: list[Message], kafka: str
) -> None:
    group = [consumer(place, size) for _ in range(3)]
    partitions = PartitionOffset.objects.filter(incarnation__stream__topic=place.topic)
    await_until(lambda: len(set(partitions.values_list("owner", flat=True))) == 3)
    most = int(0.9 * len(messages))
    produce(kafka, place.topic, messages[:most])
    await_until(lambda: changed_everywhere(place))
    group[1].kill()
    produce(kafka, place.topic, messages[most:])
    await_until(lambda: sum(partitions.values_list("next_offset", flat=True)) == len(messages))
    group[0].stop()
    group[2].stop()


@pytest.mark.slow
@pytest.mark.parametrize("n", SIZES_OF)
def test_what_is_stored_is_the_same_for_all_batch_sizes_consumers_and_kills(
    n: int, messages: list[Message], prepared: Any, kafka: str
) -> None:
    some = messages[:n]
    calm = prepared()
    produce(kafka, calm.topic, some)
    consumer(calm, 10_000, "--exit-at-end").wait()
    expected = stored(calm.topic)
    anomalies = [json.loads(row) for row in expected["anomalies"]]
    old = [row for row in anomalies if row[1] < CHANGE]
    new = [row for row in anomalies if row[1] >= CHANGE]
    assert {row[21].partition(",")[0] for row in old} == {"configuration"}
    # behind a comma: what its threshold was raised to
    assert {row[21].partition(",")[0] for row in new} == {f"{POLICY} v1"}
    assert any(row[3].startswith("vector: ") for row in new) or n < EVENTS
    assert any(row[22]["isolation_forest"] for row in new)
    assert not any("isolation_forest" in row[22] for row in old)
    hours = [json.loads(row) for row in expected["shadow"]]
    assert sum(row[2] for row in hours) > 0.8 * (n - PARTITIONS * CHANGE) or n < EVENTS
    assert expected["disagreements"] or n < EVENTS
    assert any('"score"' in row for row in expected["drift"])
    for size in SIZES_OF[n]:
        for way in (one_killed, three_of_which_one_is_killed):
            place = prepared()
            way(place, size, some, kafka)
            assert_same(expected, stored(place.topic))
            assert log_of(Stream.objects.get(topic=place.topic)) == place.log
