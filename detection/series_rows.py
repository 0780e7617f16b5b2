"""Which row of state is whose: the series of the partitions that a process owns, and how their rows
come out of snapshots and go into them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from detection import challengers, episodes, expected, heartbeat, quarantine, tails, vectors
from detection.errors import StateLayoutError
from detection.registry import MODEL_DETECTORS, SERIES_DETECTORS
from detection.state import StateStore
from detection.vectors import VectorStore
from streams.batch import EventBatch
from streams.series import SeriesIndex

# What a vector's row has of the store of all series.
_OF_VECTORS = ("episodes", *(challengers.component_name(name) for name in MODEL_DETECTORS))


class SeriesRows:
    """The state of all series of the partitions that this process owns, for one stream."""

    def __init__(self, index: SeriesIndex, capacity: int = 1024) -> None:
        self.index = index
        # Whatever the configuration says: versions of the past may need any of them.
        components = [detector.component for detector in SERIES_DETECTORS.values()]
        components += [challengers.component(name) for name in MODEL_DETECTORS]
        components += [quarantine.component(), expected.component(), tails.component()]
        components += [heartbeat.component()]
        self.store = StateStore([*components, episodes.component()], capacity)
        self.vectors = VectorStore()
        self._slots: dict[int, NDArray[np.int32]] = {}
        self.slot_code = np.zeros(capacity, dtype=np.int32)
        self.slot_partition = np.zeros(capacity, dtype=np.int32)
        self.changed = np.zeros(capacity, dtype=np.bool_)
        self.delays = heartbeat.Delays.of(capacity)
        self.next_stage_us = np.zeros(capacity)
        self._heard: dict[int, int] = {}
        self._touched: list[NDArray[np.int64]] = []

    # -- ownership and snapshots -------------------------------------------------------------

    def attach(self, partition: int) -> None:
        """Begin with an empty state for a partition."""
        self.detach(partition)
        self._slots[partition] = np.full(0, -1, dtype=np.int32)

    def detach(self, partition: int) -> None:
        """Forget a partition's state."""
        known = self._slots.pop(partition, None)
        if known is not None:
            used = known[known >= 0].astype(np.int64)
            self.changed[used] = False
            self.store.release(used)
            self.vectors.release(used)
            self._touched = [t[~np.isin(t, used)] for t in self._touched]

    def slots_of(self, partition: int) -> NDArray[np.int64]:
        """Slots in use for a partition."""
        known = self._slots[partition]
        used: NDArray[np.int64] = known[known >= 0].astype(np.int64)
        return used

    def changed_slots(self, partition: int) -> NDArray[np.int64]:
        """Slots whose row differs from the last snapshot that was taken of it."""
        used = self.slots_of(partition)
        return used[self.changed[used]]

    def last_offsets(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """The last event each slot has seen."""
        seen: NDArray[np.int64] = self._episodes()[slots, episodes.LAST_OFFSET].astype(np.int64)
        return seen

    def restore(
        self, partition: int, codes: NDArray[np.int32], layout: str, rows: Sequence[bytes]
    ) -> None:
        """Put snapshot rows of series ``codes`` in place.

        Raises:
            StateLayoutError: packed by another version.
        """
        slots = self._allocate(partition, codes)
        shared, k = vectors.parsed_layout(layout)
        if k:
            cut = self.store.layout_bytes(shared)
            self.vectors.unpack(slots, k, [row[cut:] for row in rows])
            rows = [row[:cut] for row in rows]
        self.store.unpack(slots, rows, shared)
        self._touched.append(slots)

    def readable(self, layout: str) -> bool:
        """Whether rows packed in this layout can be restored."""
        try:
            shared, _ = vectors.parsed_layout(layout)
        except StateLayoutError:
            return False
        return self.store.readable(shared)

    def layouts(self, slots: NDArray[np.int64]) -> list[str]:
        """Fingerprint of how each slot's row is packed."""
        usual = self.store.layout_id
        sizes = self.vectors.sizes(slots)
        if not sizes.any():
            return [usual] * len(slots)
        shared = self.store.layout_of(_OF_VECTORS)
        return [vectors.layout(shared, k) if k else usual for k in sizes.tolist()]

    def row_bytes(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes of each slot's row in a snapshot, int64 [n]."""
        out = np.full(len(slots), self.store.row_bytes, dtype=np.int64)
        wide = np.flatnonzero(self.vectors.sizes(slots))
        if len(wide):
            shared = self.store.layout_bytes(self.store.layout_of(_OF_VECTORS))
            packed = [self.vectors.packed_bytes(slot) for slot in slots[wide].tolist()]
            out[wide] = shared + np.array(packed, dtype=np.int64)
        return out

    def pack(self, slots: NDArray[np.int64]) -> list[bytes]:
        """One row of bytes a slot, for a snapshot; those of vectors differ in length."""
        wide = np.flatnonzero(self.vectors.sizes(slots))
        if not len(wide):
            return self.store.pack(slots)
        out = self.store.pack(slots)
        shared = self.store.pack(slots[wide], _OF_VECTORS)
        for at, row in zip(wide.tolist(), shared, strict=True):
            out[at] = row + self.vectors.pack(int(slots[at]))
        return out

    # -- silence -----------------------------------------------------------------------------

    def slots_at(self, partition: int, codes: NDArray[np.int32]) -> NDArray[np.int64]:
        """The slots of these series of a partition, int64 [n], made where there are none yet."""
        known = self._slots[partition]
        slots = np.full(len(codes), -1, dtype=np.int64)
        inside = codes < len(known)
        slots[inside] = known[codes[inside]]
        if len(slots) and slots.min() < 0:
            self._allocate(partition, np.unique(codes[slots < 0]))
            slots = self._slots[partition][codes].astype(np.int64)
        return slots

    def heartbeats(self, slots: NDArray[np.int64]) -> NDArray[np.float64]:
        """A copy of these slots' rows (columns: ``detection.heartbeat``)."""
        return self.store.rows(heartbeat.NAME)[slots]

    def heard(self, at_us: Mapping[int, int]) -> None:
        """The wall clock by partition, where the next events were seen to arrive."""
        self._heard = dict(at_us)

    def seen_elsewhere(
        self, partition: int, codes: NDArray[np.int32], since_us: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Which series have an event after a moment in another partition of this process."""
        out = np.zeros(len(codes), dtype=np.bool_)
        rows = self.store.rows(heartbeat.NAME)
        for other, known in self._slots.items():
            at = np.flatnonzero(codes < len(known))
            if other == partition or not len(at):
                continue
            slots = known[codes[at]]
            newer = rows[slots, heartbeat.LAST_TIME] > since_us[at]
            out[at] |= (slots >= 0) & newer
        return out

    # -- what storing asks -------------------------------------------------------------------

    def unseen(self, batch: EventBatch) -> NDArray[np.bool_]:
        """Which events their series have not seen yet, bool [n]; all, but in a replay."""
        out = np.ones(len(batch), dtype=np.bool_)
        for partition, known in self._slots.items():
            rows = np.flatnonzero(batch.partition == partition)
            codes = batch.series[rows]
            slots = np.full(len(rows), -1, dtype=np.int64)
            inside = codes < len(known)
            slots[inside] = known[codes[inside]]
            have = slots >= 0
            out[rows[have]] = batch.offset[rows[have]] > self.last_offsets(slots[have])
        return out

    def touched_episodes(self, but: Collection[int] = ()) -> NDArray[np.int64]:
        """Slots with an open episode whose stored row is older than its state.

        Partitions in ``but`` are left out, and stay touched: their state still replays a past that
        the stored rows are ahead of.
        """
        slots = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *self._touched]))
        if but:
            slots = slots[~np.isin(self.slot_partition[slots], list(but))]
        rows = self._episodes()
        dirty: NDArray[np.int64] = slots[
            (rows[slots, episodes.EPISODE_DIRTY] * rows[slots, episodes.OPEN]) == 1.0
        ]
        return dirty

    def forget_touched(self, but: Collection[int] = ()) -> None:
        """All open episodes are stored as they are, but for those partitions."""
        kept = []
        for slots in self._touched:
            waits = np.isin(self.slot_partition[slots], list(but))
            self._episodes()[slots[~waits], episodes.EPISODE_DIRTY] = 0.0
            if waits.any():
                kept.append(slots[waits])
        self._touched = kept

    def episode_rows(self, slots: NDArray[np.int64]) -> NDArray[np.float64]:
        """A copy of these slots' episodes (columns: ``detection.episodes``)."""
        return self._episodes()[slots]

    def flushed(self, slots: NDArray[np.int64], column: int) -> None:
        """Clear a dirty mark once the rows are stored."""
        self._episodes()[slots, column] = 0.0

    def dirty(self, partitions: Sequence[int], column: int) -> NDArray[np.int64]:
        """Slots of these partitions whose mark in ``column`` is set."""
        slots = [self.slots_of(p) for p in partitions if p in self._slots]
        every = np.concatenate(slots) if slots else np.zeros(0, dtype=np.int64)
        dirty: NDArray[np.int64] = every[self._episodes()[every, column] == 1.0]
        return dirty

    # -- private -----------------------------------------------------------------------------

    def _episodes(self) -> NDArray[np.float64]:
        return self.store.rows("episodes")

    def _slot(self, batch: EventBatch) -> NDArray[np.int64]:
        out = np.empty(len(batch), dtype=np.int64)
        for partition in batch.committable:
            rows = np.flatnonzero(batch.partition == partition)
            if not len(rows):
                continue
            codes = batch.series[rows]
            known = self._slots[partition]
            if len(known) < len(self.index):
                more = np.full(len(self.index) * 2 - len(known), -1, dtype=np.int32)
                known = self._slots[partition] = np.concatenate([known, more])
            slots = known[codes]
            if len(slots) and slots.min() < 0:
                self._allocate(partition, np.unique(codes[slots < 0]))
                slots = self._slots[partition][codes]
            out[rows] = slots
        return out

    def _allocate(self, partition: int, codes: NDArray[np.int32]) -> NDArray[np.int64]:
        slots = self.store.allocate(len(codes))
        known = self._slots[partition]
        if len(known) < len(self.index):
            more = np.full(len(self.index) - len(known), -1, dtype=np.int32)
            known = self._slots[partition] = np.concatenate([known, more])
        known[codes] = slots
        if self.store.capacity > len(self.slot_code):
            for name in ("slot_code", "slot_partition", "changed", "next_stage_us"):
                old = getattr(self, name)
                new = np.zeros(self.store.capacity, dtype=old.dtype)
                new[: len(old)] = old
                setattr(self, name, new)
            self.delays.grow(self.store.capacity)
        self.slot_code[slots] = codes
        self.slot_partition[slots] = partition
        self.delays.delay[slots] = np.nan
        self.delays.arrived[slots] = 0.0
        self.next_stage_us[slots] = 0.0
        return slots
