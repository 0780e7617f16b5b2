"""A numba scanner for Vigil's own event form: bytes of a whole batch to columns in one call.

It takes single values and wide events, and decides only what it is sure of. Anything else (escapes,
unknown keys, other types, new series) is left to the strict decoder in ``streams.codec``, so both
together accept exactly what that one accepts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streams.jsontext import BAD, FNV_START, byte, hashed, number, place, rehash, same, space, text
from streams.timestamps import parse_iso
from streams.widejson import WideTable, find_entry, find_shape, values_of

SLOW, DONE, WIDE = 0, 1, 2
MAX_BYTES = 1_000_000
MOST_VALUES = 1_000  # in one wide event
LARGEST = 1e300


class NameTable:
    """(source, metric) bytes → series code, as open addressing over plain arrays."""

    def __init__(self) -> None:
        self.size = 0
        self.slots = np.full(4096, -1, dtype=np.int32)
        self.hashes = np.zeros(2048, dtype=np.uint64)
        self.spans = np.zeros((2048, 4), dtype=np.int64)
        self.arena = np.zeros(1 << 16, dtype=np.uint8)
        self.used = 0
        self.codes = np.zeros(2048, dtype=np.int32)

    def add(self, source: str, metric: str, code: int) -> None:
        """Let scans find the series; names that JSON would escape simply never match."""
        a, b = source.encode(), metric.encode()
        while self.used + len(a) + len(b) > len(self.arena):
            self.arena = np.concatenate([self.arena, np.zeros_like(self.arena)])
        if self.size == len(self.codes):
            self.hashes = np.concatenate([self.hashes, np.zeros_like(self.hashes)])
            self.spans = np.concatenate([self.spans, np.zeros_like(self.spans)])
            self.codes = np.concatenate([self.codes, np.zeros_like(self.codes)])
        if 2 * (self.size + 1) > len(self.slots):
            self.slots = np.full(2 * len(self.slots), -1, dtype=np.int32)
            rehash(self.slots, self.hashes, self.size)
        start = self.used
        self.arena[start : start + len(a)] = np.frombuffer(a, dtype=np.uint8)
        self.arena[start + len(a) : start + len(a) + len(b)] = np.frombuffer(b, dtype=np.uint8)
        self.used += len(a) + len(b)
        i = self.size
        self.spans[i] = (start, len(a), start + len(a), len(b))
        self.hashes[i] = _hash(self.arena, start, len(a), start + len(a), len(b))
        self.codes[i] = code
        self.size += 1
        place(self.slots, self.hashes, i)


@dataclass(frozen=True, slots=True, eq=False)
class Scanned:
    """Columns of n messages; each says something only where its ``status`` does.

    ``status`` uint8 [n]: ``DONE`` one value, ``WIDE`` several, ``SLOW`` nothing is known. ``time``
    int64 [n] in µs. Of one value ``code`` int32 [n] is its series and ``value`` float64 [n]. Of
    several ``code`` is the entry in the table, ``shape`` int32 [n] the order of their names, and
    they lie in ``numbers`` from ``first`` int64 [n] on, nan for null; ``known`` int32 [n] of them
    are not null.
    """

    status: NDArray[np.uint8]
    time: NDArray[np.int64]
    code: NDArray[np.int32]
    value: NDArray[np.float64]
    shape: NDArray[np.int32]
    first: NDArray[np.int64]
    known: NDArray[np.int32]
    numbers: NDArray[np.float64]


def nothing_known(n: int, room: int = 0) -> Scanned:
    """Of n messages, with room for so many values of wide events."""
    return Scanned(
        np.zeros(n, dtype=np.uint8),
        np.empty(n, dtype=np.int64),
        np.empty(n, dtype=np.int32),
        np.empty(n, dtype=np.float64),
        np.empty(n, dtype=np.int32),
        np.empty(n, dtype=np.int64),
        np.empty(n, dtype=np.int32),
        np.empty(room, dtype=np.float64),
    )


def scan(
    buffer: NDArray[np.uint8],
    ends: NDArray[np.int64],
    names: NameTable,
    wide: WideTable,
) -> Scanned:
    """Messages that lie end to end in ``buffer``, the i-th up to ``ends[i]``.

    ``buffer`` must end in a byte that is no digit.
    """
    # `"":0,` are five bytes; where no wide event was ever learnt there is none to be sure of
    found = nothing_known(len(ends), len(buffer) // 5 + 1 if len(wide) else 0)
    _scan(
        buffer,
        np.uintp(buffer.ctypes.data),
        ends,
        names.slots,
        names.hashes,
        names.spans,
        names.arena,
        names.codes,
        wide.arrays(),
        found.status,
        found.code,
        found.time,
        found.value,
        found.shape,
        found.first,
        found.known,
        found.numbers,
    )
    return found


@njit(cache=True, nogil=True)
def _hash(row: Any, a: int, a_len: int, b: int, b_len: int) -> Any:
    h = hashed(hashed(FNV_START, row, a, a_len), row, b, b_len)
    return h ^ (h >> np.uint64(32))


@njit(cache=True, nogil=True)
def _find(
    slots: Any,
    hashes: Any,
    spans: Any,
    arena: Any,
    buf: Any,
    a: int,
    a_len: int,
    b: int,
    b_len: int,
) -> Any:
    h = _hash(buf, a, a_len, b, b_len)
    mask = np.uint64(len(slots) - 1)
    at = h & mask
    while slots[at] >= 0:
        i = slots[at]
        if (
            hashes[i] == h
            and spans[i, 1] == a_len
            and spans[i, 3] == b_len
            and same(arena, spans[i, 0], buf, a, a_len)
            and same(arena, spans[i, 2], buf, b, b_len)
        ):
            return np.int64(i)
        at = (at + np.uint64(1)) & mask
    return -1


@njit(cache=True, nogil=True)
def _key(buf: Any, at: int, length: int) -> int:
    """0 source, 1 metric, 2 value, 3 timestamp, 4 values, -1 any other."""
    if length == 6:
        if (
            byte(buf, at) == 118
            and byte(buf, at + 1) == 97
            and byte(buf, at + 2) == 108
            and byte(buf, at + 3) == 117
            and byte(buf, at + 4) == 101
            and byte(buf, at + 5) == 115
        ):
            return 4
        if (
            byte(buf, at) == 115
            and byte(buf, at + 1) == 111
            and byte(buf, at + 2) == 117
            and byte(buf, at + 3) == 114
            and byte(buf, at + 4) == 99
            and byte(buf, at + 5) == 101
        ):
            return 0
        if (
            byte(buf, at) == 109
            and byte(buf, at + 1) == 101
            and byte(buf, at + 2) == 116
            and byte(buf, at + 3) == 114
            and byte(buf, at + 4) == 105
            and byte(buf, at + 5) == 99
        ):
            return 1
    elif length == 5:
        if (
            byte(buf, at) == 118
            and byte(buf, at + 1) == 97
            and byte(buf, at + 2) == 108
            and byte(buf, at + 3) == 117
            and byte(buf, at + 4) == 101
        ):
            return 2
    elif length == 9 and (
        byte(buf, at) == 116
        and byte(buf, at + 1) == 105
        and byte(buf, at + 2) == 109
        and byte(buf, at + 3) == 101
        and byte(buf, at + 4) == 115
        and byte(buf, at + 5) == 116
        and byte(buf, at + 6) == 97
        and byte(buf, at + 7) == 109
        and byte(buf, at + 8) == 112
    ):
        return 3
    return -1


@njit(cache=True, nogil=True)
def _epoch(whole: Any) -> Any:
    """µs of a whole number of s, ms, µs or ns by its size, else BAD."""
    if whole == BAD or whole <= 0:
        return BAD
    if whole < 10_000_000_000:
        time = whole * 1_000_000
    elif whole < 10_000_000_000_000:
        time = whole * 1_000
    elif whole < 10_000_000_000_000_000:
        time = whole
    else:
        time = whole // 1_000
    if time < 31_536_000_000_000 or time >= 7_258_118_400_000_000:
        return BAD
    return time


@njit(cache=True, nogil=True)
def _alike(buf: Any, address: Any, at: Any, end: Any, frame: Any) -> Any:
    """(ok, source from, length, metric from, length, value, time) of a message in this frame.

    A producer writes one message like the other. ``frame`` int64 [5, 4] says where in the buffer
    the text before each value lies, as far as an earlier message goes, and what value follows:
    begin, length, key, whether in quotes; the fifth is what comes behind the last one. Where the
    bytes between are the same, only values need to be read; else ok is False.
    """
    a = 0
    a_len = 0
    b = 0
    b_len = 0
    value = 0.0
    time = BAD
    no = (False, 0, 0, 0, 0, 0.0, BAD)
    for k in range(4):
        length = frame[k, 1]
        if at + length >= end or not same(buf, frame[k, 0], buf, at, length):
            return no
        at += length
        key = frame[k, 2]
        if frame[k, 3]:
            close = text(buf, at, end)
            if close < 0:
                return no
            if key == 0:
                a = at
                a_len = close - at
            elif key == 1:
                b = at
                b_len = close - at
            else:
                time = parse_iso(buf, at, close - at)
            at = close
        else:
            at, x, whole = number(buf, address, at, end)
            if at < 0:
                return no
            if key == 2:
                value = x
            else:
                time = _epoch(whole)
    if at + frame[4, 1] != end or not same(buf, frame[4, 0], buf, at, frame[4, 1]):
        return no
    return time != BAD, a, a_len, b, b_len, value, time


@njit(cache=True, nogil=True)
def _scan(
    buf: Any,
    address: Any,
    ends: Any,
    slots: Any,
    hashes: Any,
    spans: Any,
    arena: Any,
    codes: Any,
    wide: Any,
    status: Any,
    out_code: Any,
    out_time: Any,
    out_value: Any,
    out_shape: Any,
    out_first: Any,
    out_known: Any,
    numbers: Any,
) -> None:
    w_arena, s_slots, s_hash, shape, w_names, e_slots, e_hash, entry, _, w_codes = wide
    places = np.empty((MOST_VALUES if len(numbers) else 0, 2), dtype=np.int64)
    free = 0
    begin = 0
    frame = np.zeros((5, 4), dtype=np.int64)
    seen_frame = np.zeros((5, 4), dtype=np.int64)
    framed = False
    for i in range(len(ends)):
        end = ends[i]
        size = end - begin
        if framed and size <= MAX_BYTES:
            ok, a, a_len, b, b_len, value, time = _alike(buf, address, begin, end, frame)
            if ok:
                begin = end
                i_name = _find(slots, hashes, spans, arena, buf, a, a_len, b, b_len)
                if i_name >= 0:
                    status[i] = 1
                    out_code[i] = codes[i_name]
                    out_time[i] = time
                    out_value[i] = value
                continue
        rest = begin
        k = 0
        at = space(buf, begin, end)
        begin = end
        if at >= end or byte(buf, at) != 123 or size > MAX_BYTES:
            continue
        at += 1
        seen = 0
        a = 0
        a_len = 0
        b = 0
        b_len = 0
        value = 0.0
        time = BAD
        count = 0
        names_hash = np.uint64(0)
        ok = True
        while True:
            at = space(buf, at, end)
            if at >= end or byte(buf, at) != 34:
                ok = False
                break
            close = text(buf, at + 1, end)
            if close < 0:
                ok = False
                break
            key = _key(buf, at + 1, close - at - 1)
            if key < 0 or seen & (1 << key):
                ok = False
                break
            seen |= 1 << key
            at = space(buf, close + 1, end)
            if at >= end or byte(buf, at) != 58:
                ok = False
                break
            at = space(buf, at + 1, end)
            if at >= end:
                ok = False
                break
            if k < 4:
                quoted = np.int64(byte(buf, at) == 34)
                seen_frame[k, 0] = rest
                seen_frame[k, 1] = at + quoted - rest
                seen_frame[k, 2] = key
                seen_frame[k, 3] = quoted
            k += 1
            if byte(buf, at) == 34:
                close = text(buf, at + 1, end)
                if close < 0 or key == 2 or key == 4:
                    ok = False
                    break
                rest = close
                if key == 0:
                    a = at + 1
                    a_len = close - a
                elif key == 1:
                    b = at + 1
                    b_len = close - b
                else:
                    time = parse_iso(buf, at + 1, close - at - 1)
                at = close + 1
            elif key == 4:
                if byte(buf, at) != 123 or not len(numbers):
                    ok = False
                    break
                at, count, names_hash = values_of(buf, address, at, end, places, numbers, free)
                if at < 0:
                    ok = False
                    break
            else:
                if key < 2:
                    ok = False
                    break
                at, x, whole = number(buf, address, at, end)
                if at < 0:
                    ok = False
                    break
                rest = at
                if key == 2:
                    value = x
                else:
                    time = _epoch(whole)
            at = space(buf, at, end)
            if at >= end:
                ok = False
                break
            if byte(buf, at) == 44:
                at += 1
                continue
            if byte(buf, at) == 125:
                at = space(buf, at + 1, end)
                ok = at == end
                break
            ok = False
            break
        if not ok or time == BAD:
            continue
        if seen == 25:
            i_shape = find_shape(
                s_slots, s_hash, shape, w_names, w_arena, buf, places, count, names_hash
            )
            if i_shape < 0:
                continue
            i_entry = find_entry(e_slots, e_hash, entry, w_arena, buf, a, a_len, shape[i_shape, 2])
            if i_entry < 0:
                continue
            known = 0
            rank = shape[i_shape, 0]
            code = entry[i_entry, 3]
            for j in range(count):
                x = numbers[free + j]
                if x == x:
                    # a value without a series yet, or one that is refused
                    if w_codes[code + w_names[rank + j, 2]] < 0 or abs(x) > LARGEST:
                        known = -1
                        break
                    known += 1
            if known <= 0:
                continue
            status[i] = 2
            out_code[i] = i_entry
            out_time[i] = time
            out_shape[i] = i_shape
            out_first[i] = free
            out_known[i] = known
            free += count
            continue
        if seen != 15:
            continue
        seen_frame[4, 0] = rest
        seen_frame[4, 1] = end - rest
        frame, seen_frame = seen_frame, frame
        framed = True
        i_name = _find(slots, hashes, spans, arena, buf, a, a_len, b, b_len)
        if i_name < 0:
            continue
        status[i] = 1
        out_code[i] = codes[i_name]
        out_time[i] = time
        out_value[i] = value


def spread(
    scanned: Scanned,
    wide: WideTable,
    count: NDArray[np.int64],
    partition: NDArray[np.int32],
    offset: NDArray[np.int64],
    listed: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]],
) -> tuple[
    NDArray[np.int64], NDArray[np.int32], NDArray[np.float64], NDArray[np.int32], NDArray[np.int64]
]:
    """(event time, series, value, partition, offset) of every single value, in their order.

    The i-th message has ``count[i]`` of them: its own, those of a wide event that the scanner was
    sure of, or as many of the rest of ``listed`` (first int64 [n], -1 for none; codes and values,
    one behind the other) as the strict decoder found.
    """
    total = int(count.sum())
    out = (
        np.empty(total, dtype=np.int64),
        np.empty(total, dtype=np.int32),
        np.empty(total, dtype=np.float64),
        np.empty(total, dtype=np.int32),
        np.empty(total, dtype=np.int64),
    )
    _spread(
        wide.arrays(), scanned.status, scanned.time, scanned.code, scanned.value, scanned.shape,
        scanned.first, scanned.numbers, count, partition, offset, *listed, *out,
    )  # fmt: skip
    return out


@njit(cache=True, nogil=True)
def _spread(
    wide: Any, status: Any, time: Any, code: Any, value: Any, shape_of: Any, first: Any,
    numbers: Any, count: Any, partition: Any, offset: Any, listed_first: Any, listed_code: Any,
    listed_value: Any, out_time: Any, out_code: Any, out_value: Any, out_partition: Any,
    out_offset: Any,
) -> None:  # fmt: skip
    _, _, _, shape, names, _, _, entry, _, codes = wide
    at = 0
    for i in range(len(status)):
        begin = at
        if listed_first[i] >= 0:
            for j in range(count[i]):
                out_code[at] = listed_code[listed_first[i] + j]
                out_value[at] = listed_value[listed_first[i] + j]
                at += 1
        elif status[i] == 2:
            rank, base = shape[shape_of[i], 0], entry[code[i], 3]
            for j in range(shape[shape_of[i], 1]):
                x = numbers[first[i] + j]
                if x == x:
                    out_code[at] = codes[base + names[rank + j, 2]]
                    out_value[at] = x
                    at += 1
        elif status[i] == 1:
            out_code[at] = code[i]
            out_value[at] = value[i]
            at += 1
        for j in range(begin, at):
            out_time[j] = time[i]
            out_partition[j] = partition[i]
            out_offset[j] = offset[i]


def schemas_of(scanned: Scanned, wide: WideTable) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(number of the schema, code of the vector) of every message, int32 [n]; -1 for none."""
    schema = np.full(len(scanned.status), -1, dtype=np.int32)
    vector = np.full(len(scanned.status), -1, dtype=np.int32)
    _schemas(wide.arrays(), scanned.status, scanned.code, schema, vector)
    return schema, vector


@njit(cache=True, nogil=True)
def _schemas(wide: Any, status: Any, code: Any, schema: Any, vector: Any) -> None:
    _, _, _, _, _, _, _, entry, vectors, _ = wide
    for i in range(len(status)):
        if status[i] == 2 and vectors[code[i]] >= 0:
            schema[i] = entry[code[i], 2]
            vector[i] = vectors[code[i]]


def together(
    scanned: Scanned, wide: WideTable, at: NDArray[np.int64], k: int
) -> NDArray[np.float64]:
    """The values of wide events that the scanner was sure of, by sorted name, float64 [len(at), k].

    Rows of other messages are left as they are: nan.
    """
    out = np.full((len(at), k), np.nan)
    _together(wide.arrays(), scanned.status, scanned.shape, scanned.first, scanned.numbers, at, out)
    return out


@njit(cache=True, nogil=True)
def _together(
    wide: Any, status: Any, shape_of: Any, first: Any, numbers: Any, at: Any, out: Any
) -> None:
    _, _, _, shape, names, _, _, _, _, _ = wide
    for row in range(len(at)):
        i = at[row]
        if status[i] == 2:
            rank = shape[shape_of[i], 0]
            for j in range(out.shape[1]):
                out[row, names[rank + j, 2]] = numbers[first[i] + j]
