"""Timestamps to int64 µs UTC: ISO 8601 with a zone, or epoch seconds, ms, µs or ns by magnitude."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streams.jsontext import byte

EARLIEST_US = 31_536_000_000_000  # 1971-01-01: nearer to 0 is a unit mistaken or a default value
LATEST_US = 7_258_118_400_000_000  # 2200-01-01
UNPARSED = np.iinfo(np.int64).min
WIDTH = 36

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class TimestampError(ValueError):
    """The timestamp can't be read; the message says why and what is allowed."""


def parse_one(raw: object, naive_zone: ZoneInfo | None = None) -> int:
    """Microseconds since the epoch of any accepted form.

    >>> parse_one("2024-01-01T12:00:00Z") == parse_one(1704110400) == parse_one(1704110400000)
    True

    Raises:
        TimestampError: not a timestamp, no zone where none is set, or out of 1971…2199.
    """
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
        raise TimestampError(f"expected ISO 8601 text or epoch number, found {type(raw).__name__}")
    us = _from_text(raw, naive_zone) if isinstance(raw, str) else _from_number(raw)
    if not EARLIEST_US <= us < LATEST_US:
        raise TimestampError(f"{str(raw)[:40]!r} is outside the years 1971 to 2199")
    return us


def _from_text(raw: str, naive_zone: ZoneInfo | None) -> int:
    text = raw.strip()
    try:
        # RFC 3339 allows a lower-case z, Python's reader does not
        moment = dt.datetime.fromisoformat(text[:-1] + "Z" if text.endswith("z") else text)
    except ValueError as error:
        raise TimestampError(f"{raw[:40]!r} is not ISO 8601") from error
    if moment.tzinfo is None:
        if naive_zone is None:
            raise TimestampError(
                f"{raw[:40]!r} has no zone: append Z or an offset, or set the stream's"
                " naive_time_zone"
            )
        moment = moment.replace(tzinfo=naive_zone)
    try:
        since = moment - _EPOCH
    except OverflowError as error:
        raise TimestampError(f"{raw[:40]!r} is outside the years 1971 to 2199") from error
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _from_number(raw: int | float) -> int:
    if raw != raw or raw in (float("inf"), float("-inf")):
        raise TimestampError(f"{raw} is no time")
    size = abs(raw)
    # The four units of one moment lie a factor 1,000 apart; for 1971…2199 the ranges don't meet.
    if size < 1e10:
        return round(raw * 1_000_000)
    if size < 1e13:
        return round(raw * 1_000)
    if size < 1e16:
        return int(raw)
    return int(raw) // 1_000


def parse_texts(texts: list[str]) -> NDArray[np.int64]:
    """µs of each common ISO form, ``UNPARSED`` where :func:`parse_one` has to look. Shape [n]."""
    # numpy ends a text at NULs, so one that holds any is not for it
    plain = [t if len(t) <= WIDTH and "\0" not in t else "" for t in texts]
    fixed = np.array(plain, dtype=f"U{WIDTH}")
    codes = fixed.view(np.uint32).reshape(len(texts), WIDTH)
    out = np.empty(len(texts), dtype=np.int64)
    _parse_rows(codes, out)
    return out


@njit(cache=True, nogil=True)
def _parse_rows(codes: NDArray[np.uint32], out: NDArray[np.int64]) -> None:
    for i in range(codes.shape[0]):
        row = codes[i]
        length = 0
        while length < row.shape[0] and row[length] != 0:
            length += 1
        out[i] = parse_iso(row, 0, length)


@njit(cache=True, nogil=True)
def _digits(row: Any, start: int, count: int) -> Any:
    total: Any = 0
    for j in range(start, start + count):
        d = np.int64(byte(row, j)) - 48
        if d < 0 or d > 9:
            return -1
        total = total * 10 + d
    return total


@njit(cache=True, nogil=True)
def parse_iso(row: Any, start: int, length: int) -> Any:
    """``YYYY-MM-DDTHH:MM:SS[.f…](Z|±HH:MM)`` in ``row[start:start+length]``, else UNPARSED."""
    bad: Any = np.int64(-9223372036854775808)
    if length < 20:
        return bad
    if (
        byte(row, start + 4) != 45
        or byte(row, start + 7) != 45
        or (byte(row, start + 10) != 84 and byte(row, start + 10) != 32)
        or byte(row, start + 13) != 58
        or byte(row, start + 16) != 58
    ):
        return bad
    year = _digits(row, start, 4)
    month = _digits(row, start + 5, 2)
    day = _digits(row, start + 8, 2)
    hour = _digits(row, start + 11, 2)
    minute = _digits(row, start + 14, 2)
    second = _digits(row, start + 17, 2)
    if year < 1971 or year > 2199 or month < 1 or month > 12 or day < 1 or day > 28:
        # days 29 to 31 need the calendar: checked below
        if year < 1971 or year > 2199 or month < 1 or month > 12 or day < 1 or day > 31:
            return bad
        last = 31
        if month == 4 or month == 6 or month == 9 or month == 11:
            last = 30
        elif month == 2:
            leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
            last = 29 if leap else 28
        if day > last:
            return bad
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return bad
    at = start + 19
    end = start + length
    micro: Any = 0
    if byte(row, at) == 46:
        at += 1
        scale = 100_000
        first = at
        while at < end and byte(row, at) >= 48 and byte(row, at) <= 57:
            micro += (np.int64(byte(row, at)) - 48) * scale
            scale //= 10
            at += 1
        if at == first or at - first > 9:
            return bad
    shift = 0
    if at == end - 1 and (byte(row, at) == 90 or byte(row, at) == 122):
        shift = 0
    elif at == end - 6 and (byte(row, at) == 43 or byte(row, at) == 45) and byte(row, at + 3) == 58:
        hours = _digits(row, at + 1, 2)
        minutes = _digits(row, at + 4, 2)
        if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
            return bad
        shift = (hours * 60 + minutes) * 60
        if byte(row, at) == 45:
            shift = -shift
    else:
        return bad
    # Days from civil date (Howard Hinnant, "chrono-compatible low-level date algorithms").
    y = year - 1 if month <= 2 else year
    era = y // 400
    yoe = y - era * 400
    doy = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    doe = yoe * 365 + yoe // 4 - yoe // 100 + doy
    days = era * 146_097 + doe - 719_468
    seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - shift
    us = seconds * 1_000_000 + micro
    if us < 31_536_000_000_000 or us >= 7_258_118_400_000_000:
        return bad
    return us
