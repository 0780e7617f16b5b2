"""State of wide events' vectors: a row per series whose width follows its number of values.

It stands beside `StateStore`, under the same slots: most series have none, and those that are
trained need far less room than those that still collect what they will be trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detection.base import FloatArray, IntArray
from detection.detectors.vector_kernel import FILL, TRAIN, initial, width
from detection.errors import StateLayoutError

VERSION = 1
NAME = "vector"


def layout(shared: str, k: int) -> str:
    """Fingerprint of a row of vectors: that of what all series have, then of its own part."""
    return f"{shared};{NAME}:{VERSION}:k{k}"


def parsed_layout(text: str) -> tuple[str, int]:
    """(what all series have, k) of a layout; k is 0 where it is not of vectors.

    Raises:
        StateLayoutError: of vectors, and written by another version.
    """
    shared, found, own = text.partition(f";{NAME}:")
    if not found:
        return text, 0
    version, _, size = own.partition(":k")
    if version != str(VERSION) or not size.isdecimal():
        raise StateLayoutError(
            f"state of vectors was packed as {own!r}, this one uses version {VERSION}: replay these"
            " series from the log or start them cold"
        )
    return shared, int(size)


class VectorPool:
    """Rows of all vectors of k values: `rows` float64[capacity, width(k)].

    `buffers` float64[buffer capacity, TRAIN, k] holds the events of those in training, and
    `buffer_of` int64[capacity] whose is which, -1 where there is none.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.rows: FloatArray = np.zeros((4, width(k)))
        self.buffer_of: IntArray = np.full(4, -1, dtype=np.int64)
        self.buffers: FloatArray = np.zeros((1, TRAIN, k))
        self._free = list(range(3, -1, -1))
        self._free_buffers = [0]

    def take(self) -> int:
        """A fresh row."""
        if not self._free:
            size = len(self.rows)
            self.rows = np.concatenate([self.rows, np.zeros_like(self.rows)])
            self.buffer_of = np.concatenate([self.buffer_of, np.full(size, -1, dtype=np.int64)])
            self._free = list(range(2 * size - 1, size - 1, -1))
        row = self._free.pop()
        self.rows[row] = initial(self.k)
        return row

    def give_back(self, row: int) -> None:
        """The row is free again, and its buffer."""
        self.drop_buffer(row)
        self._free.append(row)

    def lend_buffer(self, row: int) -> None:
        """Room for the events that the row is to be trained on."""
        if not self._free_buffers:
            size = len(self.buffers)
            more = np.zeros((max(1, size // 2), TRAIN, self.k))
            self.buffers = np.concatenate([self.buffers, more])
            self._free_buffers = list(range(len(self.buffers) - 1, size - 1, -1))
        self.buffer_of[row] = self._free_buffers.pop()

    def drop_buffer(self, row: int) -> None:
        """The row's training is over."""
        if self.buffer_of[row] >= 0:
            self._free_buffers.append(int(self.buffer_of[row]))
            self.buffer_of[row] = -1
        if len(self._free_buffers) == len(self.buffers) > 1:
            self.buffers = np.zeros((1, TRAIN, self.k))
            self._free_buffers = [0]


class VectorStore:
    """Vectors by slot of the engine. A slot belongs to one schema, and so to one k."""

    def __init__(self) -> None:
        self._pools: dict[int, VectorPool] = {}
        self._place: dict[int, tuple[int, int]] = {}  # slot: k, row
        self._sizes: IntArray = np.zeros(0, dtype=np.int64)  # k of each slot, 0: none

    def __len__(self) -> int:
        return len(self._place)

    def pool(self, k: int) -> VectorPool:
        """All vectors of k values."""
        if k not in self._pools:
            self._pools[k] = VectorPool(k)
        return self._pools[k]

    def rows_of(self, slots: IntArray, k: int) -> IntArray:
        """Row in the pool of each event's slot, int64[n]; new ones are fresh."""
        different, place = np.unique(slots, return_inverse=True)
        rows = np.array([self._row(slot, k) for slot in different.tolist()], dtype=np.int64)
        return rows[place] if len(rows) else rows

    def sizes(self, slots: IntArray) -> IntArray:
        """k of each slot, int64[n]; 0 where it is no vector."""
        out = np.zeros(len(slots), dtype=np.int64)
        if self._place:
            known = slots < len(self._sizes)
            out[known] = self._sizes[slots[known]]
        return out

    def release(self, slots: IntArray) -> None:
        """Forget those of the slots that are vectors."""
        if self._place:
            for slot in slots.tolist():
                k, row = self._place.pop(slot, (0, 0))
                if k:
                    self._pools[k].give_back(row)
                    self._sizes[slot] = 0

    def packed_bytes(self, slot: int) -> int:
        """Length of `pack`."""
        k, row = self._place[slot]
        return 8 * (width(k) + _filled(self._pools[k].rows[row]) * k)

    def pack(self, slot: int) -> bytes:
        """The row and, in training, the events so far; little-endian."""
        k, row = self._place[slot]
        pool = self._pools[k]
        parts = [pool.rows[row]]
        filled = _filled(pool.rows[row])
        if filled:
            parts.append(pool.buffers[pool.buffer_of[row], :filled].ravel())
        return np.concatenate(parts).astype("<f8", copy=False).tobytes()

    def unpack(self, slots: IntArray, k: int, packed: Sequence[bytes]) -> None:
        """Restore vectors of k values.

        Raises:
            StateLayoutError: rows of another length.
        """
        pool = self.pool(k)
        for slot, data in zip(slots.tolist(), packed, strict=True):
            numbers = np.frombuffer(data, dtype="<f8") if len(data) % 8 == 0 else np.zeros(0)
            head = numbers[: width(k)]
            if len(head) < width(k) or len(numbers) != width(k) + _filled(head) * k:
                raise StateLayoutError(f"{len(data)} bytes are no state of a vector of {k} values")
            row = self._row(slot, k)
            pool.drop_buffer(row)
            pool.rows[row] = head
            filled = _filled(head)
            if filled:
                pool.lend_buffer(row)
                events = numbers[width(k) :].reshape(filled, k)
                pool.buffers[pool.buffer_of[row], :filled] = events

    def _row(self, slot: int, k: int) -> int:
        known = self._place.get(slot)
        if known is None:
            self._place[slot] = known = (k, self.pool(k).take())
            if slot >= len(self._sizes):
                more = np.zeros(2 * slot + 64, dtype=np.int64)
                more[: len(self._sizes)] = self._sizes
                self._sizes = more
            self._sizes[slot] = k
        if known[0] != k:
            raise ValueError(f"slot {slot} holds a vector of {known[0]} values, not of {k}")
        return known[1]


def _filled(row: FloatArray) -> int:
    return max(0, int(row[FILL]))
