"""Fenced offsets: of two owners only the newer one writes, and only from where it stands."""

from __future__ import annotations

import datetime as dt

import psycopg
import pytest
from django.db import connection, transaction

from streams import checkpoint, snapshots
from streams.checkpoint import FencedError, Move, Owned
from streams.models import PartitionOffset, Series, StateSnapshot, Stream, TopicIncarnation
from streams.snapshots import Chunk

AT = dt.datetime(2026, 5, 20, 12, tzinfo=dt.UTC)


@pytest.fixture
def life(db: None) -> TopicIncarnation:
    return checkpoint.incarnation(Stream.objects.create(name="raw", topic="raw"), "id-1")


def move(owned: Owned, to: int, events: int = 1, watermark: dt.datetime | None = AT) -> Move:
    return Move(owned, to, events, 0, watermark)


def row(life: TopicIncarnation, partition: int = 0) -> PartitionOffset:
    return PartitionOffset.objects.get(incarnation=life, partition=partition)


def test_a_new_owner_fences_the_old_one_off(life: TopicIncarnation) -> None:
    old = checkpoint.acquire(life, 0, "old")
    checkpoint.advance([move(old, 10)])
    new = checkpoint.acquire(life, 0, "new")
    assert (new.epoch, new.next_offset, new.events) == (old.epoch + 1, 10, 1)
    checkpoint.committed([move(old, 10)])
    for attempt in (
        lambda: checkpoint.advance([move(old, 20)]),
        lambda: checkpoint.hold(old),
        lambda: checkpoint.jump(old, 50),
        lambda: checkpoint.forget_snapshots(old),
    ):
        with pytest.raises(FencedError), transaction.atomic():
            attempt()  # type: ignore[no-untyped-call]
    assert row(life).next_offset == 10
    checkpoint.advance([move(new, 20)])
    assert (row(life).next_offset, row(life).owner) == (20, "new")


@pytest.mark.django_db(transaction=True)
def test_an_owner_frozen_amid_a_statement_does_not_hold_up_its_successor() -> None:
    """The server waits for the rest of it: to its time-out for idle transactions that is work."""
    life = checkpoint.incarnation(Stream.objects.create(name="raw", topic="raw"), "id-1")
    old = checkpoint.acquire(life, 0, "old")
    with psycopg.connect(**connection.get_connection_params()) as frozen:
        frozen.execute("SET idle_in_transaction_session_timeout = '100ms'")
        frozen.execute("SELECT 1 FROM streams_partitionoffset FOR KEY SHARE")
        frozen.execute("CREATE TEMP TABLE half (row text)")
        with pytest.raises(psycopg.OperationalError), frozen.cursor().copy("COPY half FROM STDIN"):
            assert checkpoint.acquire(life, 0, "new").epoch == old.epoch + 1
    with pytest.raises(FencedError):
        checkpoint.advance([move(old, 10)])


def test_an_owner_moves_only_from_where_it_stands(life: TopicIncarnation) -> None:
    owned = checkpoint.acquire(life, 0, "me")
    first = move(owned, 10, events=4)
    checkpoint.advance([first])
    with pytest.raises(FencedError), transaction.atomic():
        checkpoint.advance([first])
    assert checkpoint.stored([first])
    assert not checkpoint.stored([move(owned, 11)])
    checkpoint.committed([first])
    checkpoint.advance([move(owned, 12, events=2)])
    assert (row(life).events, row(life).next_offset) == (6, 12)


def test_one_fenced_partition_stops_the_whole_transaction(life: TopicIncarnation) -> None:
    mine, theirs = checkpoint.acquire(life, 0, "me"), checkpoint.acquire(life, 1, "me")
    checkpoint.acquire(life, 1, "other")
    with pytest.raises(FencedError), transaction.atomic():
        checkpoint.advance([move(mine, 5), move(theirs, 5)])
    assert row(life, 0).next_offset == 0


def test_the_watermark_never_goes_back(life: TopicIncarnation) -> None:
    owned = checkpoint.acquire(life, 0, "me")
    for to, at in ((1, AT), (2, AT - dt.timedelta(hours=1)), (3, None)):
        checkpoint.advance([move(owned, to, watermark=at)])
        checkpoint.committed([move(owned, to)])
        assert row(life).watermark == AT


def chunk(owned: Owned, series: list[int], state: bytes, base: int | None = None) -> Chunk:
    return Chunk(
        owned, series, [7] * len(series), ["layout"] * len(series), [state] * len(series), base
    )


def series(life: TopicIncarnation, n: int) -> list[int]:
    return [
        Series.objects.create(stream=life.stream, source=f"s{i}", metric="cpu").pk for i in range(n)
    ]


def test_snapshots_are_fenced_as_well(life: TopicIncarnation) -> None:
    old = checkpoint.acquire(life, 0, "old")
    ids = series(life, 1)
    snapshots.write(chunk(old, ids, b"old", base=5))
    checkpoint.acquire(life, 0, "new")
    with pytest.raises(FencedError):
        snapshots.write(chunk(old, ids, b"late", base=9))
    assert bytes(StateSnapshot.objects.get().state) == b"old"
    assert row(life).snapshot_offset == 5


def test_only_the_last_chunk_of_a_round_moves_the_base(life: TopicIncarnation) -> None:
    owned = checkpoint.acquire(life, 0, "me")
    ids = series(life, 5)
    snapshots.write(chunk(owned, ids[:3], b"one"))
    assert row(life).snapshot_offset == 0
    snapshots.write(chunk(owned, ids[2:], b"two", base=30))
    snapshots.write(chunk(owned, [], b"", base=31))
    assert row(life).snapshot_offset == 31
    lists = list(snapshots.read(owned, rows_at_once=2))
    assert [len(part) for part in lists] == [2, 2, 1]
    found = {series_id: state for part in lists for series_id, _, state in part}
    assert found == dict(zip(ids, [b"one", b"one", b"two", b"two", b"two"], strict=True))


def test_partitions_have_snapshots_of_their_own(life: TopicIncarnation) -> None:
    one, other = checkpoint.acquire(life, 0, "me"), checkpoint.acquire(life, 1, "me")
    ids = series(life, 1)
    snapshots.write(chunk(one, ids, b"one", base=1))
    snapshots.write(chunk(other, ids, b"other", base=1))
    assert [state for part in snapshots.read(other) for *_, state in part] == [b"other"]
    checkpoint.jump(one, 100)
    assert list(snapshots.read(one)) == []
    assert (row(life).next_offset, row(life).snapshot_offset) == (100, 100)
    checkpoint.forget_snapshots(other)
    assert list(snapshots.read(other)) == []


def test_a_topic_made_again_starts_anew(life: TopicIncarnation) -> None:
    checkpoint.advance([move(checkpoint.acquire(life, 0, "me"), 10)])
    again = checkpoint.incarnation(life.stream, "id-2")
    assert checkpoint.incarnation(life.stream, "id-1") == life
    assert checkpoint.acquire(again, 0, "me").next_offset == 0
