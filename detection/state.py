"""Online state of all series: one float64 row per series and component, packed bit for bit.

Whoever keeps the mapping series → slot owns the slots; a row never depends on its slot's number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.errors import StateLayoutError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class StateComponent:
    """What one detector keeps per series: `initial` float64[width]; whole numbers stay exact."""

    name: str
    version: int
    initial: FloatArray

    @property
    def width(self) -> int:
        return int(self.initial.shape[0])


class StateStore:
    """Rows of every component, keyed by slot.

    >>> store = StateStore([StateComponent("count", 1, np.zeros(1))])
    >>> slots = store.allocate(2)
    >>> store.rows("count")[slots, 0] += 1.0
    >>> store.unpack(slots[:1], store.pack(slots[1:]), store.layout_id)
    """

    def __init__(self, components: Sequence[StateComponent], capacity: int = 64) -> None:
        names = [component.name for component in components]
        if len(set(names)) != len(names):
            raise ValueError(f"two state components share a name: {names}")
        self._components = tuple(components)
        self._capacity = max(1, capacity)
        self._rows = [np.empty((self._capacity, c.width)) for c in self._components]
        self._used = 0
        self._free: list[int] = []
        self._offsets = np.cumsum([0, *(8 * c.width for c in self._components)]).tolist()

    @property
    def layout_id(self) -> str:
        """Fingerprint of names, versions and widths, in order; store it beside packed rows."""
        text = ";".join(f"{c.name}:{c.version}:{c.width}" for c in self._components)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def row_bytes(self) -> int:
        """Bytes of one packed series, and of its memory."""
        return int(self._offsets[-1])

    @property
    def capacity(self) -> int:
        return self._capacity

    def __len__(self) -> int:
        return self._used - len(self._free)

    def rows(self, name: str) -> FloatArray:
        """float64[capacity, width] of a component: ask again after `allocate`, it moves."""
        for component, rows in zip(self._components, self._rows, strict=True):
            if component.name == name:
                return rows
        raise KeyError(name)

    def allocate(self, count: int) -> IntArray:
        """`count` slots with fresh rows, int64[count]; released slots are used again first."""
        again = [self._free.pop() for _ in range(min(count, len(self._free)))]
        fresh = count - len(again)
        self._grow(self._used + fresh)
        slots = np.array([*again, *range(self._used, self._used + fresh)], dtype=np.int64)
        self._used += fresh
        for component, rows in zip(self._components, self._rows, strict=True):
            rows[slots] = component.initial
        return slots

    def release(self, slots: IntArray) -> None:
        """Give slots back; their rows are lost."""
        self._check(slots)
        self._free.extend(int(slot) for slot in slots)

    def pack_array(self, slots: IntArray) -> NDArray[np.uint8]:
        """All components of each slot, little-endian, uint8[n, row_bytes]."""
        self._check(slots)
        packed = np.empty((len(slots), self.row_bytes), dtype=np.uint8)
        for rows, start, end in zip(self._rows, self._offsets, self._offsets[1:], strict=False):
            packed[:, start:end] = rows[slots].astype("<f8", copy=False).view(np.uint8)
        return packed

    def pack(self, slots: IntArray) -> list[bytes]:
        """`pack_array`, one bytes object a slot."""
        return [row.tobytes() for row in self.pack_array(slots)]

    def unpack(self, slots: IntArray, rows: Sequence[bytes], layout_id: str | None = None) -> None:
        """Restore packed rows into allocated slots; StateLayoutError if packed otherwise."""
        self._check(slots)
        if layout_id is not None and layout_id != self.layout_id:
            raise StateLayoutError(
                f"state was packed with layout {layout_id}, this version uses {self.layout_id}: "
                "replay these series from the log or start them cold"
            )
        if len(rows) != len(slots) or any(len(row) != self.row_bytes for row in rows):
            raise StateLayoutError(f"expected {len(slots)} rows of {self.row_bytes} bytes")
        packed = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(slots), self.row_bytes)
        for target, start, end in zip(self._rows, self._offsets, self._offsets[1:], strict=False):
            target[slots] = np.ascontiguousarray(packed[:, start:end]).view("<f8")

    def _grow(self, needed: int) -> None:
        if needed <= self._capacity:
            return
        while self._capacity < needed:
            self._capacity *= 2
        for at, old in enumerate(self._rows):
            # Untouched pages of a large empty array cost no memory until their series exists.
            new = np.empty((self._capacity, old.shape[1]))
            new[: self._used] = old[: self._used]
            self._rows[at] = new

    def _check(self, slots: IntArray) -> None:
        if len(slots) and (slots.min() < 0 or slots.max() >= self._used):
            raise IndexError("slot was never allocated")
