"""What the scanner knows of wide events: their values' names in the order they come, and the codes.

A *shape* is a set of names in one order, a *schema* the same names sorted, an *entry* one source's
codes of a schema. The strict decoder teaches each at its first event; the tables only grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streams.jsontext import FNV_START, byte, hashed, number, place, rehash, same, space, text

MOST_SHAPES = 4_096
"""Further orders of names go the strict way: a producer may shuffle them."""
MOST_ENTRIES = 1_000_000

Table = tuple[NDArray[Any], ...]


class WideTable:
    """Shapes, schemas and entries as plain arrays with open addressing."""

    def __init__(self) -> None:
        self.arena: NDArray[np.uint8] = np.zeros(1 << 12, dtype=np.uint8)
        self._used = 0
        self._shapes: dict[tuple[str, ...], int] = {}
        self._shape_slots = np.full(64, -1, dtype=np.int32)
        self._shape_hash = np.zeros(32, dtype=np.uint64)
        # first name, names, schema
        self._shape = np.zeros((32, 3), dtype=np.int64)
        # of every name of every shape: place and length in the arena, place among the sorted ones
        self._names = np.zeros((64, 3), dtype=np.int64)
        self._name_count = 0
        self.schemas: list[tuple[str, ...]] = []
        self._schema_of: dict[tuple[str, ...], int] = {}
        self._entries: dict[tuple[str, int], int] = {}
        self._entry_slots = np.full(64, -1, dtype=np.int32)
        self._entry_hash = np.zeros(32, dtype=np.uint64)
        # place and length of the source in the arena, schema, first code
        self._entry = np.zeros((32, 4), dtype=np.int64)
        self._vector = np.zeros(32, dtype=np.int32)
        self._codes = np.zeros(256, dtype=np.int32)
        self._code_count = 0

    def __len__(self) -> int:
        return len(self._entries)

    def schema(self, names: Sequence[str]) -> int:
        """The number of sorted names."""
        key = tuple(names)
        known = self._schema_of.get(key)
        if known is None:
            known = self._schema_of[key] = len(self.schemas)
            self.schemas.append(key)
        return known

    def learn(self, source: str, given: Sequence[str], codes: Sequence[int], vector: int) -> None:
        """Let scans find a source's values.

        ``codes`` are in the order ``given``, -1 where a value has no series yet; ``vector`` is that
        of all together, -1 where they are not judged so. Names that JSON would escape never match.
        """
        if not given or len(given) != len(set(given)):
            return
        order = sorted(range(len(given)), key=given.__getitem__)
        schema = self.schema([given[i] for i in order])
        if tuple(given) not in self._shapes:
            if len(self._shapes) >= MOST_SHAPES:
                return
            self._add_shape(tuple(given), order, schema)
        entry = self._entries.get((source, schema))
        if entry is None:
            if len(self._entries) >= MOST_ENTRIES:
                return
            entry = self._add_entry(source, schema, len(given))
        first = int(self._entry[entry, 3])
        for rank, i in enumerate(order):
            if codes[i] >= 0:
                self._codes[first + rank] = codes[i]
        self._vector[entry] = vector

    def arrays(self) -> Table:
        """What the kernels look things up in."""
        return (
            self.arena, self._shape_slots, self._shape_hash, self._shape, self._names,
            self._entry_slots, self._entry_hash, self._entry, self._vector, self._codes,
        )  # fmt: skip

    # -- private ---------------------------------------------------------------------------------

    def _add_shape(self, given: tuple[str, ...], order: list[int], schema: int) -> None:
        i = len(self._shapes)
        self._shape = _with_room(self._shape, i + 1)
        self._shape_hash = _with_room(self._shape_hash, i + 1)
        self._names = _with_room(self._names, self._name_count + len(given))
        h = FNV_START
        for rank, at in enumerate(order):
            self._names[self._name_count + at, 2] = rank
        for j, name in enumerate(given):
            start, length = self._put(name)
            self._names[self._name_count + j, :2] = start, length
            h = np.uint64(hashed(h, self.arena, start, length))
        self._shape[i] = self._name_count, len(given), schema
        self._name_count += len(given)
        self._shape_hash[i] = mixed(h)
        self._shape_slots = _placed(self._shape_slots, self._shape_hash, i)
        self._shapes[given] = i

    def _add_entry(self, source: str, schema: int, k: int) -> int:
        i = len(self._entries)
        self._entry = _with_room(self._entry, i + 1)
        self._entry_hash = _with_room(self._entry_hash, i + 1)
        self._vector = _with_room(self._vector, i + 1)
        self._codes = _with_room(self._codes, self._code_count + k)
        self._codes[self._code_count : self._code_count + k] = -1
        start, length = self._put(source)
        self._entry[i] = start, length, schema, self._code_count
        self._code_count += k
        self._entry_hash[i] = entry_hash(self.arena, start, length, schema)
        self._entry_slots = _placed(self._entry_slots, self._entry_hash, i)
        self._entries[source, schema] = i
        return i

    def _put(self, name: str) -> tuple[int, int]:
        data = np.frombuffer(name.encode(), dtype=np.uint8)
        start = self._used
        self._used += len(data)
        self.arena = _with_room(self.arena, self._used)
        self.arena[start : self._used] = data
        return start, len(data)


def _with_room(rows: Any, wanted: int) -> Any:
    while len(rows) < wanted:
        rows = np.concatenate([rows, np.zeros_like(rows)])
    return rows


def _placed(slots: Any, hashes: Any, i: int) -> Any:
    if 2 * (i + 1) > len(slots):
        slots = np.full(2 * len(slots), -1, dtype=np.int32)
        rehash(slots, hashes, i)
    place(slots, hashes, i)
    return slots


@njit(cache=True, nogil=True)
def mixed(h: Any) -> Any:
    """A hash whose low bits depend on its high ones."""
    return h ^ (h >> np.uint64(32))


@njit(cache=True, nogil=True)
def entry_hash(row: Any, start: int, length: int, schema: int) -> Any:
    """Of a source's name and the number of a schema."""
    return mixed(hashed(FNV_START ^ np.uint64(schema), row, start, length))


@njit(cache=True, nogil=True)
def values_of(
    buf: Any, address: Any, at: int, end: int, spans: Any, numbers: Any, first: int
) -> Any:
    """(index behind the object or -1, its values, their names' hash) of ``{"name": number, …}``.

    Names are left in ``spans`` [most, 2] as place and length, numbers from ``numbers[first]`` on,
    nan for null. At most len(spans) values, and what room ``numbers`` has.
    """
    h = FNV_START
    count = 0
    at += 1
    while True:
        at = space(buf, at, end)
        if at >= end or byte(buf, at) != 34:
            return -1, 0, h
        close = text(buf, at + 1, end)
        if close < 0 or count >= len(spans) or first + count >= len(numbers):
            return -1, 0, h
        spans[count, 0] = at + 1
        spans[count, 1] = close - at - 1
        h = hashed(h, buf, at + 1, close - at - 1)
        at = space(buf, close + 1, end)
        if at >= end or byte(buf, at) != 58:
            return -1, 0, h
        at = space(buf, at + 1, end)
        if at >= end:
            return -1, 0, h
        if byte(buf, at) == 110:
            if (
                at + 4 > end
                or byte(buf, at + 1) != 117
                or byte(buf, at + 2) != 108
                or byte(buf, at + 3) != 108
            ):
                return -1, 0, h
            numbers[first + count] = np.nan
            at += 4
        else:
            at, x, _ = number(buf, address, at, end)
            if at < 0:
                return -1, 0, h
            numbers[first + count] = x
        count += 1
        at = space(buf, at, end)
        if at >= end:
            return -1, 0, h
        if byte(buf, at) == 44:
            at += 1
            continue
        if byte(buf, at) == 125:
            return at + 1, count, mixed(h)
        return -1, 0, h


@njit(cache=True, nogil=True)
def find_shape(
    slots: Any, hashes: Any, shape: Any, names: Any, arena: Any, buf: Any, spans: Any, k: int,
    h: Any,
) -> Any:  # fmt: skip
    """The number of the shape that has exactly these k names in this order, or -1."""
    mask = np.uint64(len(slots) - 1)
    at = h & mask
    while slots[at] >= 0:
        i = slots[at]
        if hashes[i] == h and shape[i, 1] == k:
            first = shape[i, 0]
            equal = True
            for j in range(k):
                if names[first + j, 1] != spans[j, 1] or not same(
                    arena, names[first + j, 0], buf, spans[j, 0], spans[j, 1]
                ):
                    equal = False
                    break
            if equal:
                return np.int64(i)
        at = (at + np.uint64(1)) & mask
    return np.int64(-1)


@njit(cache=True, nogil=True)
def find_entry(
    slots: Any, hashes: Any, entry: Any, arena: Any, buf: Any, start: int, length: int, schema: int
) -> Any:
    """The number of a source's entry of a schema, or -1."""
    h = entry_hash(buf, start, length, schema)
    mask = np.uint64(len(slots) - 1)
    at = h & mask
    while slots[at] >= 0:
        i = slots[at]
        if (
            hashes[i] == h
            and entry[i, 2] == schema
            and entry[i, 1] == length
            and same(arena, entry[i, 0], buf, start, length)
        ):
            return np.int64(i)
        at = (at + np.uint64(1)) & mask
    return np.int64(-1)
