"""Bytes of JSON to numbers and places, for the scanners: numba, no allocation.

Doubles are exact: Clinger's fast path ("How to read floating point numbers accurately", 1990) where
it holds, C's correctly rounded ``strtod`` elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

_strtod: Any = types.ExternalFunction("strtod", types.double(types.uintp, types.uintp))
_POWERS = np.array([10.0**e for e in range(23)])
_PLAIN = np.array([32 <= c < 127 and c not in b'"\\' for c in range(256)])
BAD: Any = np.int64(-9223372036854775808)
FNV_START: Any = np.uint64(14695981039346656037)
FNV_PRIME: Any = np.uint64(1099511628211)


@njit(cache=True, nogil=True)
def byte(row: Any, at: Any) -> Any:
    """``row[at]``; an unsigned place spares the check for one counted from the end."""
    return row[np.uintp(at)]


@njit(cache=True, nogil=True)
def hashed(h: Any, row: Any, start: int, length: int) -> Any:
    """FNV-1a from ``h`` on over some bytes, four at a time, and a byte that no UTF-8 text holds.

    What is told apart lies in the upper half: fold it into the lower one before use.
    """
    at = start
    while at + 4 <= start + length:
        word = (
            np.uint64(byte(row, at))
            | np.uint64(byte(row, at + 1)) << np.uint64(8)
            | np.uint64(byte(row, at + 2)) << np.uint64(16)
            | np.uint64(byte(row, at + 3)) << np.uint64(24)
        )
        h = (h ^ word) * FNV_PRIME
        at += 4
    while at < start + length:
        h = (h ^ np.uint64(byte(row, at))) * FNV_PRIME
        at += 1
    return (h ^ np.uint64(255)) * FNV_PRIME


@njit(cache=True, nogil=True)
def same(one: Any, a: int, other: Any, b: int, length: int) -> bool:
    """Whether ``length`` bytes from these places on are equal."""
    for j in range(length):
        if byte(one, a + j) != byte(other, b + j):
            return False
    return True


@njit(cache=True, nogil=True)
def place(slots: Any, hashes: Any, i: int) -> None:
    """Put entry i of a table of open addressing where its hash belongs."""
    mask = np.uint64(len(slots) - 1)
    at = hashes[i] & mask
    while slots[at] >= 0:
        at = (at + np.uint64(1)) & mask
    slots[at] = i


@njit(cache=True, nogil=True)
def rehash(slots: Any, hashes: Any, size: int) -> None:
    """Put all entries into fresh slots."""
    for i in range(size):
        place(slots, hashes, i)


@njit(cache=True, nogil=True)
def space(buf: Any, at: int, end: int) -> int:
    """The first place from ``at`` on that is no white space."""
    while at < end and (
        byte(buf, at) == 32 or byte(buf, at) == 10 or byte(buf, at) == 13 or byte(buf, at) == 9
    ):
        at += 1
    return at


@njit(cache=True, nogil=True)
def text(buf: Any, at: int, end: int) -> int:
    """Index of the closing quote of plain ASCII text that starts at ``at``, or -1."""
    while at < end and _PLAIN[byte(buf, at)]:
        at += 1
    return at if at < end and byte(buf, at) == 34 else -1


@njit(cache=True, nogil=True)
def number(buf: Any, address: Any, at: Any, end: Any) -> Any:
    """(index behind the number or -1, its double, its int where it is a plain one, else BAD)."""
    start = at
    negative = False
    if at < end and byte(buf, at) == 45:
        negative = True
        at += 1
    mantissa: Any = np.int64(0)
    digits = 0
    exponent: Any = 0
    if at < end and byte(buf, at) == 48:
        at += 1
        digits = 0
    else:
        first = at
        while at < end and byte(buf, at) >= 48 and byte(buf, at) <= 57:
            mantissa = mantissa * 10 + (np.int64(byte(buf, at)) - 48)
            at += 1
        digits = at - first
        if digits == 0:
            return -1, 0.0, BAD
    plain = True
    if at < end and byte(buf, at) == 46:
        plain = False
        at += 1
        first = at
        while at < end and byte(buf, at) >= 48 and byte(buf, at) <= 57:
            mantissa = mantissa * 10 + (np.int64(byte(buf, at)) - 48)
            at += 1
        if at == first:
            return -1, 0.0, BAD
        digits += at - first
        exponent = -(at - first)
    if digits > 18:
        # the mantissa has overflowed: only its text is right
        mantissa = np.int64(9223372036854775807)
        plain = False
    if at < end and (byte(buf, at) == 101 or byte(buf, at) == 69):
        plain = False
        at += 1
        sign = 1
        if at < end and (byte(buf, at) == 43 or byte(buf, at) == 45):
            if byte(buf, at) == 45:
                sign = -1
            at += 1
        first = at
        power: Any = 0
        while at < end and byte(buf, at) >= 48 and byte(buf, at) <= 57:
            if power < 10000:
                power = power * 10 + (np.int64(byte(buf, at)) - 48)
            at += 1
        if at == first:
            return -1, 0.0, BAD
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
            return -1, 0.0, BAD
    if plain:
        return at, x, -mantissa if negative else mantissa
    return at, x, BAD
