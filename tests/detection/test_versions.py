"""The log of versions: precedence of policies, what is appended where, how batches are split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from django.conf import settings

from config.wiring import load_model, scoring_base
from detection import model_store
from detection.features import FEATURE_NAMES
from detection.models import ModelVersion, ScoringVersion, ThresholdPolicy, VersionLog
from detection.training import train
from detection.versions import VersionKeeper, payload_of, store
from streams import checkpoint
from streams.batch import EventBatch
from streams.checkpoint import FencedError, Owned
from streams.errors import UnusableError
from streams.models import Stream

pytestmark = pytest.mark.django_db


@pytest.fixture
def stream() -> Stream:
    return Stream.objects.create(name="raw", topic="raw")


def own(stream: Stream, partition: int = 0, topic_id: str = "id-1") -> Owned:
    return checkpoint.acquire(checkpoint.incarnation(stream, topic_id), partition, "me")


def keeper(stream: Stream) -> VersionKeeper:
    return VersionKeeper(stream, scoring_base(settings.VIGIL), load_model)


def policy(name: str, **more: Any) -> ThresholdPolicy:
    return ThresholdPolicy.objects.create(name=name, **more)


def names(stream: Stream) -> list[str]:
    return [p["name"] for p in payload_of(stream, scoring_base(settings.VIGIL))["policies"]]


def log_of(owned: Owned) -> list[tuple[int, int]]:
    rows = VersionLog.objects.filter(
        incarnation_id=owned.incarnation_id, partition=owned.partition
    ).order_by("from_offset")
    return list(rows.values_list("from_offset", "scoring_version_id"))


def test_pattern_before_stream_before_global_then_priority_then_the_newer(stream: Stream) -> None:
    other = Stream.objects.create(name="other", topic="other")
    policy("global")
    policy("global first", priority=1)
    policy("stream", stream=stream, priority=-5)
    policy("old pattern", source_pattern="web-*")
    policy("new pattern", metric_pattern="cpu")
    policy("pattern of the stream", stream=stream, source_pattern="db-*", priority=-9)
    policy("of another stream", stream=other)
    policy("off", enabled=False, priority=99)
    assert names(stream) == [
        "pattern of the stream", "new pattern", "old pattern", "stream", "global first", "global",
        "configuration",
    ]  # fmt: skip


def test_the_same_settings_are_the_same_row_and_saving_a_policy_makes_another(
    stream: Stream,
) -> None:
    one = policy("a")
    base = scoring_base(settings.VIGIL)
    first = store(stream, payload_of(stream, base))
    assert store(stream, payload_of(stream, base)) == first
    one.save()
    assert one.version == 2
    assert store(stream, payload_of(stream, base)) != first
    assert ScoringVersion.objects.count() == 2


def test_a_log_begins_where_the_partition_stands_and_is_read_again(stream: Stream) -> None:
    owned = own(stream)
    checkpoint.jump(owned, 40)
    first = keeper(stream)
    first.refresh()
    first.attach(owned)
    assert log_of(owned) == [(40, first.desired)]
    again = keeper(stream)
    assert again.refresh()
    assert not again.refresh()
    again.attach(owned)
    assert log_of(owned) == [(40, first.desired)]
    assert not again.outdated()


def test_a_change_is_appended_once_and_committed_before_it_is_used(stream: Stream) -> None:
    owned = own(stream)
    versions = keeper(stream)
    versions.refresh()
    versions.attach(owned)
    old = versions.desired
    policy("lower", threshold=0.6)
    assert not versions.outdated()
    assert versions.refresh()
    assert versions.outdated()
    for offset in (100, 150):
        versions.append(owned, offset)
    assert not versions.outdated()
    assert log_of(owned) == [(0, old), (100, versions.desired)]


def test_of_two_changes_at_one_offset_the_last_one_counts(stream: Stream) -> None:
    owned = own(stream)
    versions = keeper(stream)
    versions.refresh()
    versions.attach(owned)
    old = versions.desired
    one = policy("lower", threshold=0.6)
    versions.refresh()
    versions.append(owned, 100)
    one.threshold = 0.7
    one.save()
    versions.refresh()
    versions.append(owned, 100)
    assert log_of(owned) == [(0, old), (100, versions.desired)]
    parts = versions.split(batch([0] * 2, [99, 100]))
    assert [(v.id, part.offset.tolist()) for v, part in parts] == [
        (old, [99]), (versions.desired, [100]),
    ]  # fmt: skip


def test_what_is_scheduled_for_later_stays(stream: Stream) -> None:
    owned = own(stream)
    versions = keeper(stream)
    versions.refresh()
    other = store(stream, {"scheduled": True})
    life = checkpoint.incarnation(stream, "id-1")
    for at in (0, 500):
        VersionLog.objects.create(
            incarnation=life, partition=0, from_offset=at, scoring_version=other
        )
    versions.attach(owned)
    versions.append(owned, 100)
    assert log_of(owned) == [(0, other.pk), (500, other.pk)]
    versions.append(owned, 501)
    assert log_of(owned)[-1] == (501, versions.desired)


def test_a_fenced_owner_appends_nothing(stream: Stream) -> None:
    old = own(stream)
    versions = keeper(stream)
    versions.refresh()
    versions.attach(old)
    own(stream)
    before = log_of(old)
    policy("lower", threshold=0.6)
    versions.refresh()
    with pytest.raises(FencedError):
        versions.append(old, 10)
    assert log_of(old) == before


def batch(partition: list[int], offset: list[int]) -> EventBatch:
    n = len(offset)
    ends = {p: max(o for q, o in zip(partition, offset, strict=True) if q == p) + 1
            for p in set(partition)}  # fmt: skip
    return EventBatch(
        np.arange(n, dtype=np.int64), np.zeros(n, dtype=np.int32), np.zeros((n, 1)),
        np.array(partition, dtype=np.int32), np.array(offset, dtype=np.int64), committable=ends,
    )  # fmt: skip


def three_versions(stream: Stream, starts: dict[int, list[int]]) -> tuple[VersionKeeper, list[int]]:
    """A keeper whose partitions take up versions 0, 1, 2 at ``starts``."""
    base = scoring_base(settings.VIGIL)
    ids = []
    for threshold in (0.6, 0.7, 0.8):
        ids.append(store(stream, payload_of(stream, {**base, "threshold": threshold})).pk)
    life = checkpoint.incarnation(stream, "id-1")
    versions = keeper(stream)
    for partition, offsets in starts.items():
        for at, identity in zip(offsets, ids, strict=False):
            VersionLog.objects.create(
                incarnation=life, partition=partition, from_offset=at, scoring_version_id=identity
            )
        versions.attach(own(stream, partition))
    return versions, ids


def test_every_event_gets_the_version_of_its_offset_in_order(stream: Stream) -> None:
    starts = {0: [0, 10, 20], 1: [0, 30], 2: [5]}
    versions, ids = three_versions(stream, starts)
    rng = np.random.default_rng(1)
    for _ in range(200):
        partition = np.sort(rng.integers(0, 3, rng.integers(1, 60)))
        offset = np.concatenate(
            [np.sort(rng.choice(50, (partition == p).sum(), replace=False)) for p in range(3)]
        )
        mixed = rng.permutation(len(offset))
        mixed = mixed[np.argsort(offset[mixed], kind="stable")]
        whole = batch(partition[mixed].tolist(), offset[mixed].tolist())
        parts = versions.split(whole)
        seen: dict[int, list[int]] = {p: [] for p in range(3)}
        for version, part in parts:
            assert part.committable == whole.committable
            for p, o in zip(part.partition.tolist(), part.offset.tolist(), strict=True):
                seen[p].append(o)
                number = max(sum(start <= o for start in starts[p]) - 1, 0)
                assert version.id == ids[number], (p, o)
        for p in range(3):
            assert seen[p] == whole.offset[whole.partition == p].tolist()


def test_a_batch_of_one_version_is_not_copied(stream: Stream) -> None:
    versions, ids = three_versions(stream, {0: [0, 10, 20], 1: [0, 7, 8]})
    whole = batch([0, 1, 0], [20, 8, 25])
    ((version, part),) = versions.split(whole)
    assert version.id == ids[2]
    assert part is whole
    assert versions.split(batch([], [])) == []


def test_a_model_that_can_not_be_loaded_never_reaches_the_log(stream: Stream) -> None:
    owned = own(stream)
    versions = keeper(stream)
    versions.refresh()
    versions.attach(owned)
    good = versions.desired
    rows = np.random.default_rng(0).normal(0, 1, (600, len(FEATURE_NAMES)))
    trained = train("isolation_forest", rows, seed=1, params={"n_estimators": 3})
    model = model_store.save(trained, stream=stream, algorithm="isolation_forest")
    model_store.promote(model.pk)
    ModelVersion.objects.filter(pk=model.pk).update(artefact=b"VIGILMDL")
    with pytest.raises(UnusableError, match="isolation_forest v1 of raw"):
        versions.refresh()
    assert versions.desired == good
    assert not versions.outdated()
    ModelVersion.objects.filter(pk=model.pk).update(artefact=trained.payload)
    assert versions.refresh()
    compiled = versions.compiled(versions.desired)
    assert [m.sha256 for m in compiled.models] == [trained.sha256]
    assert compiled.names[-1] == "isolation_forest"
