"""Files as events: CSV, JSON and JSON lines, plain or gzipped, row by row with their places.

A row that can't be an event is told with file and line; it never ends the others.
"""

from __future__ import annotations

import csv
import glob
import gzip
import heapq
import io
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast
from zoneinfo import ZoneInfo

import msgspec

from streams.clock import from_us
from streams.connectors.columns import Layout, Mapping, guess_layout, parse_time
from streams.errors import SourceError
from streams.producer import Record
from streams.series import SeriesNameError, check_name
from streams.timestamps import TimestampError

SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson")
MERGED_FILES = 500  # open at once; more are read one after the other
FIELD_LIMIT = 16_000_000

csv.field_size_limit(FIELD_LIMIT)


@dataclass(frozen=True, slots=True)
class Row:
    """One event of a file: a metric's value, or with ``metric`` None several values at once."""

    time_us: int
    source: str
    metric: str | None
    value: float
    values: dict[str, float | None] | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no event: where it stands and why."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


@dataclass(slots=True)
class FileSource:
    """One file being read; counts what it gave."""

    path: Path
    source: str
    mapping: Mapping
    on_bad: Callable[[BadRow], None]
    events: int = 0
    rejected: int = 0
    empty_cells: int = 0
    layout: Layout | None = None
    size: int = 0
    _raw: BinaryIO | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.size = self.path.stat().st_size

    @property
    def bytes_read(self) -> int:
        if self._raw is None:
            return 0
        return self.size if self._raw.closed else self._raw.tell()

    def rows(self) -> Iterator[Row]:
        """The file's events in the file's order.

        Raises:
            SourceError: the file can't be read at all, or its columns say nothing.
        """
        try:
            with self.path.open("rb") as raw:
                self._raw = raw
                packed = self.path.suffix.lower() == ".gz"
                plain = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
                yield from self._objects_to_rows(self._objects(plain))
        except (OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SourceError(f"{self.path}: can't be read: {reason}") from error

    def _objects(self, plain: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
        kind = _kind(self.path)
        if kind == "json":
            return self._json(plain)
        if kind == "jsonl":
            return self._json_lines(plain)
        return self._csv(plain)

    def _csv(self, plain: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
        text = io.TextIOWrapper(plain, encoding="utf-8-sig", errors="surrogateescape", newline="")
        first = text.readline()
        if not first.strip():
            raise SourceError(f"{self.path}: is empty, or has no header in its first line")
        delimiter = self.mapping.delimiter or _delimiter(first)
        reader = csv.reader(text, delimiter=delimiter)
        names = self.mapping.header
        offset = 1
        if names is None:
            names = tuple(name.strip() for name in next(csv.reader([first], delimiter=delimiter)))
            _check_header(self.path, names)
        else:
            reader = csv.reader(_chained(first, text), delimiter=delimiter)
            offset = 0
        while True:
            begin = reader.line_num + offset + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                line = reader.line_num + offset
                yield line, BadRow(self.path, line, f"no CSV: {error}")
                continue
            line = reader.line_num + offset
            if not cells:
                continue
            if len(cells) != len(names):
                reason = f"{len(cells)} cells where the header names {len(names)}"
                if line > begin:
                    reason += f"; a quote opened there runs on to line {line}"
                yield begin, BadRow(self.path, begin, reason)
                continue
            yield line, dict(zip(names, cells, strict=True))

    def _json_lines(self, plain: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
        for number, raw in enumerate(plain, start=1):
            if raw.strip():
                yield number, self._flattened(raw, number)

    def _flattened(self, raw: bytes, number: int) -> dict[str, Any] | BadRow:
        try:
            found = msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            return BadRow(self.path, number, f"no JSON: {error}")
        if not isinstance(found, dict):
            return BadRow(self.path, number, f"expected an object, found {_json_name(found)}")
        return _flat(found)

    def _json(self, plain: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
        raw = plain.read()
        try:
            found = msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            if raw.count(b"\n") > 1 and raw.lstrip()[:1] == b"{":
                yield from self._json_lines(cast(BinaryIO, io.BytesIO(raw)))
                return
            raise SourceError(f"{self.path}: no JSON: {error}") from error
        for number, item in enumerate(_listed(found, self.path), start=1):
            if isinstance(item, dict):
                yield number, _flat(item)
            else:
                yield (
                    number,
                    BadRow(self.path, number, f"expected an object, found {_json_name(item)}"),
                )

    def _objects_to_rows(
        self, objects: Iterator[tuple[int, dict[str, Any] | BadRow]]
    ) -> Iterator[Row]:
        for line, item in objects:
            if isinstance(item, BadRow):
                self._reject(item)
                continue
            if self.layout is None:
                self.layout = guess_layout(item, self.mapping, str(self.path))
            try:
                rows = self._rows_of(item, self.layout)
            except (TimestampError, SeriesNameError, ValueError) as error:
                self._reject(BadRow(self.path, line, str(error)))
                continue
            self.events += len(rows)
            yield from rows

    def _rows_of(self, item: dict[str, Any], layout: Layout) -> list[Row]:
        time_us = parse_time(_needed(item, layout.timestamp), self.mapping)
        source = self.source
        if layout.source is not None:
            source = str(_needed(item, layout.source))
        check_name("source", source)
        if len(layout.values) == 1 and layout.whole is None:
            metric = layout.values[0][1]
            if layout.metric is not None:
                metric = str(_needed(item, layout.metric))
            check_name("metric", metric)
            value = _number(_needed(item, layout.values[0][0]), layout.values[0][0])
            return [Row(time_us, source, metric, value)]
        values: dict[str, float | None] = {}
        for column, metric in layout.values_of(item):
            cell = item.get(column)
            if cell is None or cell == "":
                self.empty_cells += 1
                if self.mapping.wide:
                    values[metric] = None  # a missing value of the same set of values
            else:
                values[metric] = _number(cell, column)
        if self.mapping.wide:
            known = any(value is not None for value in values.values())
            return [Row(time_us, source, None, math.nan, values)] if known else []
        return [
            Row(time_us, source, metric, value)
            for metric, value in values.items()
            if value is not None
        ]

    def _reject(self, bad: BadRow) -> None:
        self.rejected += 1
        self.on_bad(bad)


def find_files(paths: Sequence[str]) -> list[Path]:
    """Files named, matched by a pattern, or in a folder and its folders; sorted within each.

    Raises:
        SourceError: a path that names nothing.
    """
    found: dict[Path, None] = {}
    for text in paths:
        path = Path(text).expanduser()
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if _is_data(file))
            if not inside:
                raise SourceError(
                    f"{text}: no data file in this folder; looked for *{', *'.join(SUFFIXES)}, "
                    "also with .gz"
                )
        elif path.exists():
            inside = [path]
        else:
            inside = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            inside = [match for match in inside if match.is_file()]
            if not inside:
                raise SourceError(f"{text}: no such file or folder, and no file matches it")
        found.update(dict.fromkeys(inside))
    return list(found)


def source_names(paths: Sequence[Path]) -> list[str]:
    """Each file's name without its suffixes; with its folder's where two would be the same."""
    plain = [_stem(path) for path in paths]
    twice = {name for name, count in Counter(plain).items() if count > 1}
    return [
        f"{path.absolute().parent.name}/{name}" if name in twice else name
        for path, name in zip(paths, plain, strict=True)
    ]


def merged(sources: Sequence[FileSource]) -> Iterator[Row]:
    """All files' rows by time; each file keeps its own order. Many files: one after the other."""
    if len(sources) == 1 or len(sources) > MERGED_FILES:
        for source in sources:
            yield from source.rows()
    else:
        yield from heapq.merge(*(source.rows() for source in sources), key=lambda row: row.time_us)


class RowEncoder:
    """Turns rows into records; `shift_us` moves every time."""

    def __init__(self, shift_us: int = 0) -> None:
        self._encoder = msgspec.json.Encoder()
        self._shift_us = shift_us

    def record(self, row: Row) -> Record:
        event: dict[str, object] = {"source": row.source}
        if row.metric is None:
            event["values"] = row.values
        else:
            event["metric"] = row.metric
            event["value"] = row.value
        event["timestamp"] = _iso(row.time_us + self._shift_us)
        return row.source.encode(), self._encoder.encode(event)


def _iso(time_us: int) -> str:
    unit = (
        "microseconds" if time_us % 1_000 else "milliseconds" if time_us % 1_000_000 else "seconds"
    )
    return from_us(time_us).isoformat(timespec=unit)[:-6] + "Z"


def _kind(path: Path) -> str:
    suffix = _suffix(path)
    if suffix == ".json":
        return "json"
    return "jsonl" if suffix in (".jsonl", ".ndjson") else "csv"


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def _stem(path: Path) -> str:
    name = path.name[:-3] if path.suffix.lower() == ".gz" else path.name
    return Path(name).stem


def _is_data(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and _suffix(path) in SUFFIXES


def _delimiter(header: str) -> str:
    """The one that parts the header most often; a comma where none does."""
    return max(",;\t|", key=header.count)


def _check_header(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise SourceError(f"{path}:1: the header names the column {twice[0]!r} twice")
    if all(_is_number(name) for name in names if name) or any(_is_time(name) for name in names):
        raise SourceError(
            f"{path}:1: looks like data, not like a header: {','.join(names)[:80]!r}. Name the "
            "columns with --header NAME,NAME,…"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_time(text: str) -> bool:
    try:
        parse_time(text, Mapping(time_zone=ZoneInfo("UTC")))
    except (TimestampError, ValueError):
        return False
    return True


def _chained(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _flat(item: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects to dotted names; lists stay what they are and are no value."""
    flat: dict[str, Any] = {}
    stack = [(prefix, item)]
    while stack:
        start, inner = stack.pop()
        for name, value in inner.items():
            if isinstance(value, dict):
                stack.append((f"{start}{name}.", value))
            else:
                flat[f"{start}{name}"] = value
    return flat


def _listed(found: Any, path: Path) -> list[Any]:
    if isinstance(found, list):
        return found
    if isinstance(found, dict):
        inside = [value for value in found.values() if _is_object_list(value)]
        return cast(list[Any], inside[0]) if len(inside) == 1 else [found]
    raise SourceError(f"{path}: expected a list of objects, found {_json_name(found)}")


def _is_object_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _needed(item: dict[str, Any], column: str) -> Any:
    value = item.get(column)
    if value is None or value == "":
        raise ValueError(f"{column!r} is missing or empty")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{column!r} is not UTF-8") from None
    return value


def _number(cell: Any, column: str) -> float:
    if isinstance(cell, bool) or not isinstance(cell, (str, int, float)):
        raise ValueError(f"{column!r} is {_json_name(cell)}, expected a number")
    try:
        value = float(cell)
    except (ValueError, OverflowError):
        raise ValueError(f"{column!r} is {str(cell)[:40]!r}, expected a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{column!r} is {str(cell)[:40]!r}, expected a finite number")
    return value


def _json_name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return names.get(type(value), "null" if value is None else "a number")
