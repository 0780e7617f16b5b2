"""Which column of a file is what: from the options, else by good guesses that are told."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from streams.clock import to_us
from streams.errors import SourceError
from streams.timestamps import TimestampError, parse_one

TIME_NAMES = ("timestamp", "@timestamp", "datetime", "date_time", "event_time", "time", "ts",
              "date", "epoch")  # fmt: skip
VALUE_NAMES = ("value", "val", "reading", "measurement")
SOURCE_NAMES = ("source", "sensor", "sensor_id", "device", "device_id", "host", "hostname",
                "instance", "machine")  # fmt: skip
METRIC_NAMES = ("metric", "metric_name", "measure", "variable")
LABEL_NAMES = ("anomaly", "is_anomaly", "changepoint", "label", "ground_truth")
WHOLE = "values."  # a wide event's object, flattened
FORMATS = ("%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M")


@dataclass(frozen=True, slots=True)
class Mapping:
    """What the options said; None where a guess is asked for."""

    time_zone: ZoneInfo
    timestamp: str | None = None
    values: tuple[str, ...] = ()
    source: str | None = None
    metric: str | None = None
    metric_name: str | None = None
    header: tuple[str, ...] | None = None
    delimiter: str | None = None
    time_format: str | None = None
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one file, settled. ``values`` are (column, metric)."""

    timestamp: str
    values: tuple[tuple[str, str], ...]
    source: str | None
    metric: str | None
    whole: str | None = None  # prefix of a wide event's values, which may differ by event
    left_out: tuple[str, ...] = ()
    zoned: bool = True

    def values_of(self, item: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """(column, metric) of each value of this row."""
        if self.whole is None:
            yield from self.values
        else:
            for column in item:
                if column.startswith(self.whole):
                    yield column, column[len(self.whole) :]


def guess_layout(item: dict[str, Any], mapping: Mapping, path: str) -> Layout:
    """Settle the columns by the options and the first row.

    Raises:
        SourceError: a named column is missing, or no time or value is found.
    """
    for option, named in (("--timestamp", mapping.timestamp), ("--source", mapping.source),
                          ("--metric", mapping.metric),
                          *(("--value", value) for value in mapping.values)):  # fmt: skip
        if named is not None and named not in item:
            raise SourceError(
                f"{path}: {option} {named}: no such column. The file has: {', '.join(item)}"
            )
    timestamp = mapping.timestamp or _first(item, TIME_NAMES) or _first_time(item, mapping)
    if timestamp is None:
        raise SourceError(
            f"{path}: no column is a time. Name it with --timestamp COLUMN, and its form with "
            f"--time-format. The file has: {', '.join(item)}"
        )
    source = mapping.source or _first(item, SOURCE_NAMES, timestamp)
    metric = mapping.metric
    if metric is None and mapping.metric_name is None:
        metric = _first(item, METRIC_NAMES, timestamp)
    values, whole, left_out = _values(item, mapping, (timestamp, source, metric))
    if not values and whole is None:
        raise SourceError(
            f"{path}: no column holds numbers. Name it with --value COLUMN. The file has: "
            f"{', '.join(item)}"
        )
    if len(values) > 1 and metric is not None and not mapping.values:
        metric = None
    if mapping.metric_name and len(values) == 1:
        values = ((values[0][0], mapping.metric_name),)
    return Layout(timestamp, values, source, metric, whole, left_out, _is_zoned(item[timestamp]))


def parse_time(raw: Any, mapping: Mapping) -> int:
    """µs since 1970 of any accepted form; text without a zone is in the mapping's zone.

    >>> parse_time("2014-02-14 14:30:00", Mapping(ZoneInfo("UTC")))
    1392388200000000
    """
    if mapping.time_format is not None:
        return _formatted(str(raw), mapping.time_format, mapping.time_zone)
    if isinstance(raw, str):
        number = _as_number(raw)
        if number is not None:
            return parse_one(number)
    try:
        return parse_one(raw, mapping.time_zone)
    except TimestampError:
        if not isinstance(raw, str):
            raise
        for form in FORMATS:
            try:
                return _formatted(raw, form, mapping.time_zone)
            except TimestampError:
                continue
        raise


def _values(
    item: dict[str, Any], mapping: Mapping, taken: tuple[str | None, ...]
) -> tuple[tuple[tuple[str, str], ...], str | None, tuple[str, ...]]:
    if mapping.values:
        return tuple((column, column) for column in mapping.values), None, ()
    if any(column.startswith(WHOLE) for column in item):
        return (), WHOLE, ()
    single = _first(item, VALUE_NAMES)
    if single is not None and single not in taken:
        return ((single, single),), None, ()
    numeric = [
        column
        for column, cell in item.items()
        if column and column not in taken and (cell == "" or _is_finite(cell))
    ]
    labels = tuple(column for column in numeric if column.lower() in LABEL_NAMES)
    return tuple((c, c) for c in numeric if c not in labels), None, labels


def _first(item: dict[str, Any], names: tuple[str, ...], but: str | None = None) -> str | None:
    lower = {column.lower(): column for column in item if column != but}
    return next((lower[name] for name in names if name in lower), None)


def _first_time(item: dict[str, Any], mapping: Mapping) -> str | None:
    """The first column of text that reads as a time; bare numbers could be anything."""
    for column, cell in item.items():
        if isinstance(cell, str) and _as_number(cell) is None:
            try:
                parse_time(cell, mapping)
            except (TimestampError, ValueError):
                continue
            return column
    return None


def _formatted(raw: str, form: str, zone: ZoneInfo) -> int:
    try:
        moment = datetime.strptime(raw.strip(), form)
    except ValueError as error:
        raise TimestampError(f"{raw[:40]!r} is not of the form {form!r}") from error
    return to_us((moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC))


def _as_number(text: str) -> float | int | None:
    text = text.strip()
    if not text[:1].isdigit() or ":" in text or "-" in text:
        return None
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        return None


def _is_finite(cell: Any) -> bool:
    if isinstance(cell, bool) or not isinstance(cell, (str, int, float)):
        return False
    try:
        return math.isfinite(float(cell))
    except (ValueError, OverflowError):
        return False


def _is_zoned(cell: Any) -> bool:
    """Whether a time says its own zone; a number counts from 1970 in UTC and does."""
    if not isinstance(cell, str) or _as_number(cell) is not None:
        return True
    try:
        parse_one(cell)
    except TimestampError:
        return False
    return True
