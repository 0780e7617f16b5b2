"""A numba scanner for Vigil's own event form: bytes of a whole batch to columns in one call.

It decides only what it is sure of. Anything else (escapes, unknown keys, other types, new series)
is left to the strict decoder in ``streams.codec``, so both together accept exactly what that one
accepts. Doubles are exact: Clinger's fast path ("How to read floating point numbers accurately",
1990) where it holds, C's correctly rounded ``strtod`` elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from streams.timestamps import parse_iso

SLOW, DONE = 0, 1

_strtod: Any = types.ExternalFunction("strtod", types.double(types.uintp, types.uintp))
_POWERS = np.array([10.0**e for e in range(23)])
_PLAIN = np.array([32 <= c < 127 and c not in b'"\\' for c in range(256)])
_BAD: Any = np.int64(-9223372036854775808)


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
            _rehash(self.slots, self.hashes, self.size)
        start = self.used
        self.arena[start : start + len(a)] = np.frombuffer(a, dtype=np.uint8)
        self.arena[start + len(a) : start + len(a) + len(b)] = np.frombuffer(b, dtype=np.uint8)
        self.used += len(a) + len(b)
        i = self.size
        self.spans[i] = (start, len(a), start + len(a), len(b))
        self.hashes[i] = _hash(self.arena, start, len(a), start + len(a), len(b))
        self.codes[i] = code
        self.size += 1
        _place(self.slots, self.hashes, i)


def scan(
    buffer: NDArray[np.uint8], ends: NDArray[np.int64], names: NameTable
) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int64], NDArray[np.float64]]:
    """Columns of ``n`` messages that lie end to end in ``buffer``, the i-th up to ``ends[i]``.

    Returns status [n] (``DONE``, or ``SLOW`` where the other columns say nothing), series code
    [n], event time µs [n], value [n]. ``buffer`` must end in a byte that is no digit.
    """
    n = len(ends)
    status = np.zeros(n, dtype=np.uint8)
    code = np.empty(n, dtype=np.int32)
    time = np.empty(n, dtype=np.int64)
    value = np.empty(n, dtype=np.float64)
    _scan(
        buffer,
        np.uintp(buffer.ctypes.data),
        ends,
        names.slots,
        names.hashes,
        names.spans,
        names.arena,
        names.codes,
        status,
        code,
        time,
        value,
    )
    return status, code, time, value


@njit(cache=True, nogil=True)
def _byte(row: Any, at: Any) -> Any:
    """``row[at]``; an unsigned place spares the check for one counted from the end."""
    return row[np.uintp(at)]


@njit(cache=True, nogil=True)
def _hash(row: Any, a: int, a_len: int, b: int, b_len: int) -> Any:
    """FNV-1a over source, a separator no UTF-8 text holds, and metric."""
    h = np.uint64(14695981039346656037)
    prime = np.uint64(1099511628211)
    for j in range(a, a + a_len):
        h = (h ^ np.uint64(_byte(row, j))) * prime
    h = (h ^ np.uint64(255)) * prime
    for j in range(b, b + b_len):
        h = (h ^ np.uint64(_byte(row, j))) * prime
    return h ^ (h >> np.uint64(32))


@njit(cache=True, nogil=True)
def _place(slots: Any, hashes: Any, i: int) -> None:
    mask = np.uint64(len(slots) - 1)
    at = hashes[i] & mask
    while slots[at] >= 0:
        at = (at + np.uint64(1)) & mask
    slots[at] = i


@njit(cache=True, nogil=True)
def _rehash(slots: Any, hashes: Any, size: int) -> None:
    for i in range(size):
        _place(slots, hashes, i)


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
        if hashes[i] == h and spans[i, 1] == a_len and spans[i, 3] == b_len:
            same = True
            for j in range(a_len):
                if _byte(arena, spans[i, 0] + j) != _byte(buf, a + j):
                    same = False
                    break
            if same:
                for j in range(b_len):
                    if _byte(arena, spans[i, 2] + j) != _byte(buf, b + j):
                        same = False
                        break
            if same:
                return np.int64(i)
        at = (at + np.uint64(1)) & mask
    return -1


@njit(cache=True, nogil=True)
def _space(buf: Any, at: int, end: int) -> int:
    while at < end and (
        _byte(buf, at) == 32 or _byte(buf, at) == 10 or _byte(buf, at) == 13 or _byte(buf, at) == 9
    ):
        at += 1
    return at


@njit(cache=True, nogil=True)
def _text(buf: Any, at: int, end: int) -> int:
    """Index of the closing quote of plain ASCII text that starts at ``at``, or -1."""
    while at < end and _PLAIN[_byte(buf, at)]:
        at += 1
    return at if at < end and _byte(buf, at) == 34 else -1


@njit(cache=True, nogil=True)
def _key(buf: Any, at: int, length: int) -> int:
    """0 source, 1 metric, 2 value, 3 timestamp, -1 any other."""
    if length == 6:
        if (
            _byte(buf, at) == 115
            and _byte(buf, at + 1) == 111
            and _byte(buf, at + 2) == 117
            and _byte(buf, at + 3) == 114
            and _byte(buf, at + 4) == 99
            and _byte(buf, at + 5) == 101
        ):
            return 0
        if (
            _byte(buf, at) == 109
            and _byte(buf, at + 1) == 101
            and _byte(buf, at + 2) == 116
            and _byte(buf, at + 3) == 114
            and _byte(buf, at + 4) == 105
            and _byte(buf, at + 5) == 99
        ):
            return 1
    elif length == 5:
        if (
            _byte(buf, at) == 118
            and _byte(buf, at + 1) == 97
            and _byte(buf, at + 2) == 108
            and _byte(buf, at + 3) == 117
            and _byte(buf, at + 4) == 101
        ):
            return 2
    elif length == 9 and (
        _byte(buf, at) == 116
        and _byte(buf, at + 1) == 105
        and _byte(buf, at + 2) == 109
        and _byte(buf, at + 3) == 101
        and _byte(buf, at + 4) == 115
        and _byte(buf, at + 5) == 116
        and _byte(buf, at + 6) == 97
        and _byte(buf, at + 7) == 109
        and _byte(buf, at + 8) == 112
    ):
        return 3
    return -1


@njit(cache=True, nogil=True)
def _number(buf: Any, address: Any, at: Any, end: Any) -> Any:
    """(index behind the number or -1, its double, its int where it is a plain one, else _BAD)."""
    start = at
    negative = False
    if at < end and _byte(buf, at) == 45:
        negative = True
        at += 1
    mantissa: Any = np.int64(0)
    digits = 0
    exponent: Any = 0
    if at < end and _byte(buf, at) == 48:
        at += 1
        digits = 0
    else:
        first = at
        while at < end and _byte(buf, at) >= 48 and _byte(buf, at) <= 57:
            mantissa = mantissa * 10 + (np.int64(_byte(buf, at)) - 48)
            at += 1
        digits = at - first
        if digits == 0:
            return -1, 0.0, _BAD
    plain = True
    if at < end and _byte(buf, at) == 46:
        plain = False
        at += 1
        first = at
        while at < end and _byte(buf, at) >= 48 and _byte(buf, at) <= 57:
            mantissa = mantissa * 10 + (np.int64(_byte(buf, at)) - 48)
            at += 1
        if at == first:
            return -1, 0.0, _BAD
        digits += at - first
        exponent = -(at - first)
    if digits > 18:
        # the mantissa has overflowed: only its text is right
        mantissa = np.int64(9223372036854775807)
        plain = False
    if at < end and (_byte(buf, at) == 101 or _byte(buf, at) == 69):
        plain = False
        at += 1
        sign = 1
        if at < end and (_byte(buf, at) == 43 or _byte(buf, at) == 45):
            if _byte(buf, at) == 45:
                sign = -1
            at += 1
        first = at
        power: Any = 0
        while at < end and _byte(buf, at) >= 48 and _byte(buf, at) <= 57:
            if power < 10000:
                power = power * 10 + (np.int64(_byte(buf, at)) - 48)
            at += 1
        if at == first:
            return -1, 0.0, _BAD
        exponent += sign * power
    if mantissa <= 9007199254740992 and exponent >= -22 and exponent <= 22:
        x = np.float64(mantissa)
        if exponent < 0:
            x = x / _POWERS[-exponent]
        else:
            x = x * _POWERS[exponent]
        # an integer has no negative zero, for the strict decoder either
        if negative and not (plain and mantissa == 0):
            x = -x
    else:
        x = _strtod(address + np.uintp(start), np.uintp(0))
        if not np.isfinite(x):
            return -1, 0.0, _BAD
    if plain:
        return at, x, -mantissa if negative else mantissa
    return at, x, _BAD


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
    status: Any,
    out_code: Any,
    out_time: Any,
    out_value: Any,
) -> None:
    begin = 0
    for i in range(len(ends)):
        end = ends[i]
        at = _space(buf, begin, end)
        begin = end
        if at >= end or _byte(buf, at) != 123:
            continue
        at += 1
        seen = 0
        a = 0
        a_len = 0
        b = 0
        b_len = 0
        value = 0.0
        time = _BAD
        ok = True
        while True:
            at = _space(buf, at, end)
            if at >= end or _byte(buf, at) != 34:
                ok = False
                break
            close = _text(buf, at + 1, end)
            if close < 0:
                ok = False
                break
            key = _key(buf, at + 1, close - at - 1)
            if key < 0 or seen & (1 << key):
                ok = False
                break
            seen |= 1 << key
            at = _space(buf, close + 1, end)
            if at >= end or _byte(buf, at) != 58:
                ok = False
                break
            at = _space(buf, at + 1, end)
            if at >= end:
                ok = False
                break
            if _byte(buf, at) == 34:
                close = _text(buf, at + 1, end)
                if close < 0 or key == 2:
                    ok = False
                    break
                if key == 0:
                    a = at + 1
                    a_len = close - a
                elif key == 1:
                    b = at + 1
                    b_len = close - b
                else:
                    time = parse_iso(buf, at + 1, close - at - 1)
                at = close + 1
            else:
                if key < 2:
                    ok = False
                    break
                at, x, whole = _number(buf, address, at, end)
                if at < 0:
                    ok = False
                    break
                if key == 2:
                    value = x
                elif whole != _BAD and whole > 0:
                    if whole < 10_000_000_000:
                        time = whole * 1_000_000
                    elif whole < 10_000_000_000_000:
                        time = whole * 1_000
                    elif whole < 10_000_000_000_000_000:
                        time = whole
                    else:
                        time = whole // 1_000
                    if time < 31_536_000_000_000 or time >= 7_258_118_400_000_000:
                        time = _BAD
            at = _space(buf, at, end)
            if at >= end:
                ok = False
                break
            if _byte(buf, at) == 44:
                at += 1
                continue
            if _byte(buf, at) == 125:
                at = _space(buf, at + 1, end)
                ok = at == end
                break
            ok = False
            break
        if not ok or seen != 15 or time == _BAD:
            continue
        i_name = _find(slots, hashes, spans, arena, buf, a, a_len, b, b_len)
        if i_name < 0:
            continue
        status[i] = 1
        out_code[i] = codes[i_name]
        out_time[i] = time
        out_value[i] = value
