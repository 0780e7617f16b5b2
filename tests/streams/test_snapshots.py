"""Background snapshots: whatever fails, the base never moves beyond what the stored rows hold."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
from django.db import OperationalError
from numpy.typing import NDArray

from streams import checkpoint, snapshots
from streams.checkpoint import Owned
from streams.models import PartitionOffset, Series, StateSnapshot, Stream
from streams.series import SeriesIndex
from streams.snapshots import Chunk
from streams.snapshotter import Snapshotter

pytestmark = pytest.mark.django_db(transaction=True)

SERIES = 6


class Counters:
    """A state of one number a series, the offset behind its last event, in rows of any length."""

    def __init__(self, stream: Stream) -> None:
        self.index = SeriesIndex()
        for n in range(SERIES):
            row = Series.objects.create(stream=stream, source=f"s{n}", metric="m")
            self.index.code(row.source, row.metric)
            self.index.learn_ids(np.array([n]), np.array([row.pk]))
        self.slot_code = np.arange(SERIES, dtype=np.int32)
        self.changed = np.zeros(SERIES, dtype=np.bool_)
        self.seen = np.zeros(SERIES, dtype=np.int64)

    def slots_of(self, partition: int) -> NDArray[np.int64]:
        return np.arange(SERIES)

    def changed_slots(self, partition: int) -> NDArray[np.int64]:
        return np.flatnonzero(self.changed)

    def last_offsets(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.seen[slots] - 1

    def layouts(self, slots: NDArray[np.int64]) -> list[str]:
        return [f"{8 + slot} bytes" for slot in slots.tolist()]

    def row_bytes(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        return 8 + slots

    def pack(self, slots: NDArray[np.int64]) -> list[bytes]:
        return [int(self.seen[s]).to_bytes(8 + s, "little") for s in slots.tolist()]


class Lab:
    """Events of one partition are scored and stored one by one."""

    def __init__(self, rows_per_chunk: int) -> None:
        stream = Stream.objects.create(name="raw", topic="raw")
        self.owned: Owned = checkpoint.acquire(checkpoint.incarnation(stream, "id-1"), 0, "me")
        self.rows = Counters(stream)
        self.snapshotter = Snapshotter(self.rows, 0.0, 13 * rows_per_chunk)
        self.offset = 0
        self.now = 0.0
        self.events: list[list[int]] = [[] for _ in range(SERIES)]

    def event(self, slot: int) -> None:
        self.offset += 1
        self.events[slot].append(self.offset)
        self.rows.seen[slot] = self.offset
        self.rows.changed[slot] = True
        self.step()

    def step(self) -> None:
        self.now += 1
        chunk = self.snapshotter.take([self.owned], {0: self.offset}, self.now)
        PartitionOffset.objects.update(next_offset=self.offset)
        self.owned.next_offset = self.offset
        if chunk is not None:
            self.snapshotter.put(chunk)

    def rest(self) -> None:
        self.snapshotter._queue.join()

    def assert_whole(self) -> None:
        """Each event below the base is in its series' stored row."""
        base = PartitionOffset.objects.get().snapshot_offset
        stored = {
            row.series_id: int.from_bytes(bytes(row.state), "little")
            for row in StateSnapshot.objects.all()
        }
        for row in StateSnapshot.objects.all():
            assert row.layout == f"{len(bytes(row.state))} bytes"
        for slot, series_id in enumerate(self.rows.index.ids.tolist()):
            events = [offset for offset in self.events[slot] if offset <= base]
            assert stored.get(series_id, 0) >= max(events, default=0), (slot, base, stored)


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While set, no chunk can be written by the thread."""
    refusing = threading.Event()
    write = snapshots.write

    def maybe(chunk: Chunk) -> None:
        if refusing.is_set():
            raise OperationalError("away")
        write(chunk)

    monkeypatch.setattr(snapshots, "write", maybe)
    return refusing


def test_rows_of_a_failed_chunk_come_again_even_if_nothing_changes_them(
    refusals: threading.Event,
) -> None:
    lab = Lab(rows_per_chunk=10)
    refusals.set()
    for slot in range(SERIES):
        lab.event(slot)
        lab.rest()
    assert not StateSnapshot.objects.exists()
    refusals.clear()
    for _ in range(6):
        lab.event(0)  # the other five rest from here on
        lab.rest()
        lab.assert_whole()
    assert StateSnapshot.objects.count() == SERIES
    assert PartitionOffset.objects.get().snapshot_offset > SERIES
    lab.snapshotter.close()


def test_the_last_snapshot_of_an_owner_holds_what_failed_before(
    refusals: threading.Event,
) -> None:
    lab = Lab(rows_per_chunk=2)
    refusals.set()
    for slot in range(SERIES):
        lab.event(slot)
        lab.rest()
    refusals.clear()
    assert lab.snapshotter.final(lab.owned, 10.0, lambda: 0.0)
    lab.assert_whole()
    assert PartitionOffset.objects.get().snapshot_offset == SERIES
    assert StateSnapshot.objects.count() == SERIES
    lab.snapshotter.close()


@pytest.mark.parametrize("seed", range(4))
def test_random_failures_never_leave_a_hole_below_the_base(
    seed: int, refusals: threading.Event
) -> None:
    chance = random.Random(seed)
    lab = Lab(rows_per_chunk=chance.choice([1, 2, 10]))
    for _ in range(120):
        lab.event(chance.choice([0, 0, 0, 1, 2, 3, 4, 5]))
        if chance.random() < 0.3:
            (refusals.set if chance.random() < 0.5 else refusals.clear)()
        if chance.random() < 0.3:
            lab.rest()
            lab.assert_whole()
    refusals.clear()
    assert lab.snapshotter.final(lab.owned, 10.0, lambda: 0.0)
    lab.assert_whole()
    assert PartitionOffset.objects.get().snapshot_offset == lab.offset
    lab.snapshotter.close()
