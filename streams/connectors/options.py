"""Durations, moments and speeds as people write them on a command line."""

from __future__ import annotations

import argparse
import re

from streams.timestamps import TimestampError, parse_one

_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000,
          "d": 86_400_000_000, "w": 604_800_000_000}  # fmt: skip
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)")


def duration_us(text: str) -> int:
    """Microseconds of `10s`, `500ms`, `2d` or `1h30m`.

    >>> duration_us("1h30m")
    5400000000
    """
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no duration: write a number with us, ms, s, m, h, d or w, such as 10s or "
            "1h30m"
        )
    total = round(sum(float(number) * _UNITS[unit] for number, unit in parts))
    if total <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: the duration must be longer than 0")
    return total


def moment_us(text: str, now_us: int) -> int:
    """Microseconds since 1970 of `now`, `now-2d`, ISO 8601 or an epoch number."""
    text = text.strip()
    if text == "now":
        return now_us
    if text.startswith("now-"):
        return now_us - duration_us(text.removeprefix("now-"))
    try:
        return parse_one(float(text) if text.replace(".", "", 1).isdigit() else text)
    except TimestampError as error:
        raise argparse.ArgumentTypeError(
            f"{error}. Write now, now-2d, or a time with its zone such as 2024-01-01T12:00:00Z"
        ) from error


def rate(text: str) -> float | None:
    """Events per second; None for `max`."""
    if text == "max":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no rate: write events per second, or max")
    return value


def speed(text: str) -> float | None:
    """How many times faster than recorded; None for `max`, 1 for `recorded`."""
    if text == "max":
        return None
    if text == "recorded":
        return 1.0
    try:
        value = float(text.rstrip("x×"))
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no speed: max, recorded, or a factor such as 60x"
        )
    return value


def names(text: str) -> tuple[str, ...]:
    """Names parted by commas, each once.

    >>> names("cpu_usage, mem_usage")
    ('cpu_usage', 'mem_usage')
    """
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise argparse.ArgumentTypeError("at least one name is needed")
    return found


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count: a whole number from 1 on")
    return int(text)


def not_negative(text: str) -> float:
    """A number from 0 on."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: a number from 0 on is needed")
    return value
