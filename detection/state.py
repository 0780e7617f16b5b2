"""Online state of all series: one float64 row per series and component, packed bit for bit.

Whoever keeps the mapping series → slot owns the slots; a row never depends on its slot's number.
A component that nobody has used yet takes no room: it is the same as its initial row everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
        self._components = {component.name: component for component in components}
        if len(self._components) != len(components):
            names = [component.name for component in components]
            raise ValueError(f"two state components share a name: {names}")
        self._capacity = max(1, capacity)
        self._rows: dict[str, FloatArray] = {}  # of the components in use
        self._used = 0
        self._free: list[int] = []

    @property
    def layout_id(self) -> str:
        """`name:version:width` of the components in use, in order; store it beside packed rows."""
        return _layout(self._in_use())

    def layout_of(self, names: Collection[str]) -> str:
        """`layout_id` of rows packed with these components only."""
        return _layout(self._in_use(names))

    def layout_bytes(self, layout_id: str) -> int:
        """Length of a row packed in this layout."""
        parts = self._parsed(layout_id)
        return parts[-1][2] if parts else 0

    def readable(self, layout_id: str) -> bool:
        """Whether rows of this layout can be unpacked: what both know must be the same."""
        try:
            self._parsed(layout_id)
        except StateLayoutError:
            return False
        return True

    @property
    def row_bytes(self) -> int:
        """Bytes of one packed series, and of its memory."""
        return 8 * sum(component.width for component in self._in_use())

    @property
    def capacity(self) -> int:
        return self._capacity

    def __len__(self) -> int:
        return self._used - len(self._free)

    def in_use(self, name: str) -> bool:
        """Whether a component has rows of its own yet."""
        return name in self._rows

    def rows(self, name: str) -> FloatArray:
        """float64[capacity, width] of a component, in use from now on.

        Ask again after `allocate`: it moves.
        """
        rows = self._rows.get(name)
        if rows is None:
            component = self._components[name]
            rows = self._rows[name] = np.empty((self._capacity, component.width))
            rows[: self._used] = component.initial
        return rows

    def allocate(self, count: int) -> IntArray:
        """`count` slots with fresh rows, int64[count]; released slots are used again first."""
        again = [self._free.pop() for _ in range(min(count, len(self._free)))]
        fresh = count - len(again)
        self._grow(self._used + fresh)
        slots = np.array([*again, *range(self._used, self._used + fresh)], dtype=np.int64)
        self._used += fresh
        for name, rows in self._rows.items():
            rows[slots] = self._components[name].initial
        return slots

    def release(self, slots: IntArray) -> None:
        """Give slots back; their rows are lost."""
        self._check(slots)
        self._free.extend(int(slot) for slot in slots)

    def pack_array(
        self, slots: IntArray, names: Collection[str] | None = None
    ) -> NDArray[np.uint8]:
        """The components in use of each slot, or those in `names`: little-endian, uint8[n, …]."""
        self._check(slots)
        chosen = self._in_use(names)
        size = 8 * sum(component.width for component in chosen)
        packed = np.empty((len(slots), size), dtype=np.uint8)
        start = 0
        for component in chosen:
            rows = self._rows[component.name][slots]
            end = start + 8 * component.width
            packed[:, start:end] = rows.astype("<f8", copy=False).view(np.uint8)
            start = end
        return packed

    def pack(self, slots: IntArray, names: Collection[str] | None = None) -> list[bytes]:
        """`pack_array`, one bytes object a slot."""
        return [row.tobytes() for row in self.pack_array(slots, names)]

    def unpack(self, slots: IntArray, rows: Sequence[bytes], layout_id: str) -> None:
        """Restore rows packed in this layout into allocated slots.

        Components that the layout does not have stay as they are, and those that no longer exist
        are passed over: a detector that is new or gone costs the others nothing.

        Raises:
            StateLayoutError: a component of both was packed by another version of it.
        """
        self._check(slots)
        parts = self._parsed(layout_id)
        size = parts[-1][2] if parts else 0
        if len(rows) != len(slots) or any(len(row) != size for row in rows):
            raise StateLayoutError(f"expected {len(slots)} rows of {size} bytes")
        packed = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(slots), size)
        for name, start, end in parts:
            if name in self._components:
                self.rows(name)[slots] = np.ascontiguousarray(packed[:, start:end]).view("<f8")

    def _in_use(self, names: Collection[str] | None = None) -> list[StateComponent]:
        return [
            c
            for c in self._components.values()
            if c.name in self._rows and (names is None or c.name in names)
        ]

    def _parsed(self, layout_id: str) -> list[tuple[str, int, int]]:
        """(component, first byte, end) of a layout's parts."""
        parts, start = [], 0
        for text in filter(None, layout_id.split(";")):
            try:
                name, version, width = text.split(":")
                end = start + 8 * int(width)
            except ValueError:
                raise StateLayoutError(f"{layout_id!r} is no layout of packed state") from None
            known = self._components.get(name)
            if known is not None and (str(known.version), str(known.width)) != (version, width):
                raise StateLayoutError(
                    f"state of {name} was packed as version {version} ({width} numbers), this one "
                    f"uses version {known.version} ({known.width}): replay these series from the "
                    "log or start them cold"
                )
            parts.append((name, start, end))
            start = end
        return parts

    def _grow(self, needed: int) -> None:
        if needed <= self._capacity:
            return
        while self._capacity < needed:
            self._capacity *= 2
        for name, old in self._rows.items():
            # Untouched pages of a large empty array cost no memory until their series exists.
            new = np.empty((self._capacity, old.shape[1]))
            new[: self._used] = old[: self._used]
            self._rows[name] = new

    def _check(self, slots: IntArray) -> None:
        if len(slots) and (slots.min() < 0 or slots.max() >= self._used):
            raise IndexError("slot was never allocated")


def _layout(components: Sequence[StateComponent]) -> str:
    return ";".join(f"{c.name}:{c.version}:{c.width}" for c in components)
