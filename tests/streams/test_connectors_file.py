"""Files as events: guesses, mappings, and rows that are none."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from streams.connectors.columns import Mapping
from streams.connectors.file import (
    BadRow,
    FileSource,
    Row,
    RowEncoder,
    find_files,
    merged,
    source_names,
)
from streams.errors import SourceError

UTC = ZoneInfo("UTC")
NOON = 1_704_110_400_000_000  # 2024-01-01T12:00:00Z
Read = Callable[..., tuple[list[Row], list[BadRow]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def go(name: str, content: str | bytes, **mapping: Any) -> tuple[list[Row], list[BadRow]]:
        path = tmp_path / name
        raw = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        bad: list[BadRow] = []
        settled = Mapping(**{"time_zone": UTC, **mapping})
        source = FileSource(path, source_names([path])[0], settled, bad.append)
        rows = list(source.rows())
        assert source.events == len(rows)
        assert source.rejected == len(bad)
        assert source.bytes_read == source.size
        return rows, bad

    return go


def test_nab_files_work_as_they_are(read: Read) -> None:
    rows, bad = read("ec2_cpu.csv", "timestamp,value\n2024-01-01 12:00:00,0.132\n")
    assert rows == [Row(NOON, "ec2_cpu", "value", 0.132)]
    assert bad == []


def test_wide_csv_with_semicolons_gives_an_event_per_value(read: Read) -> None:
    text = "datetime;Current;Volume Flow;anomaly\n2024-01-01 12:00:00;0.5;32.1;0.0\n"
    rows, _ = read("valve.csv", text)
    assert rows == [
        Row(NOON, "valve", "Current", 0.5),
        Row(NOON, "valve", "Volume Flow", 32.1),
    ]


def test_wide_csv_can_stay_wide(read: Read) -> None:
    text = "datetime;Current;Flow;label\n2024-01-01 12:00:00;0.5;32;1\n2024-01-01 12:00:01;;32;0\n"
    rows, _ = read("valve.csv", text, wide=True)
    assert [row.values for row in rows] == [
        {"Current": 0.5, "Flow": 32.0},
        {"Current": None, "Flow": 32.0},
    ]
    key, value = RowEncoder().record(rows[0])
    assert key == b"valve"
    assert json.loads(value or b"") == {
        "source": "valve",
        "values": {"Current": 0.5, "Flow": 32.0},
        "timestamp": "2024-01-01T12:00:00Z",
    }


def test_columns_can_be_named(read: Read) -> None:
    text = "t\thost\tname\tx\ty\n1704110400\ta\tcpu\t1\t2\n1704110400000\tb\tmem\t3\t4\n"
    rows, _ = read("x.tsv", text, timestamp="t", source="host", metric="name", values=("x",))
    assert rows == [Row(NOON, "a", "cpu", 1.0), Row(NOON, "b", "mem", 3.0)]


def test_vigils_own_events_are_understood(read: Read) -> None:
    event = '{"source": "s", "metric": "cpu", "value": 1, "timestamp": "2024-01-01T12:00:00Z"}\n'
    wide = '{"source": "s", "values": {"a": 1, "b": 2.5}, "timestamp": 1704110400}\n'
    assert read("e.jsonl", event)[0] == [Row(NOON, "s", "cpu", 1.0)]
    assert read("w.ndjson.gz", wide)[0] == [Row(NOON, "s", "a", 1.0), Row(NOON, "s", "b", 2.5)]


@pytest.mark.parametrize(
    "text",
    [
        '[{"payload": {"ts": "2024-01-01T13:00:00+01:00", "v": 2}}]',
        '{"items": [{"payload": {"ts": "2024-01-01T13:00:00+01:00", "v": 2}}]}',
        '{"payload": {"ts": "2024-01-01T13:00:00+01:00", "v": 2}}',
    ],
)
def test_json_lists_and_nested_fields(read: Read, text: str) -> None:
    rows, _ = read("x.json", text, timestamp="payload.ts", values=("payload.v",), metric_name="v")
    assert rows == [Row(NOON, "x", "v", 2.0)]


@pytest.mark.parametrize(
    ("cell", "mapping"),
    [
        ("2024-01-01 13:00:00", {"time_zone": ZoneInfo("Europe/Berlin")}),
        ("2024-01-01T12:00:00.000Z", {"time_zone": ZoneInfo("Europe/Berlin")}),
        ("1704110400.0", {}),
        ("1704110400000000", {}),
        ("2024/01/01 12:00", {}),
        ("01.01.2024 12:00:00", {}),
        ("01/01/2024 12:00 PM", {"time_format": "%m/%d/%Y %I:%M %p"}),
    ],
)
def test_times_of_many_forms(read: Read, cell: str, mapping: dict[str, Any]) -> None:
    rows, bad = read("x.csv", f"time,value\n{cell},1\n", **mapping)
    assert ([row.time_us for row in rows], bad) == ([NOON], [])


def test_bad_rows_are_told_with_their_line_and_the_good_ones_stay(read: Read) -> None:
    lines = [
        b"timestamp,value",
        b"2024-01-01 12:00:00,1",
        b"yesterday,2",
        b"2024-01-01 12:00:02,high",
        b"2024-01-01 12:00:03,nan",
        b"2024-01-01 12:00:04",
        b"2024-01-01 12:00:05,",
        b"",
        b"2024-01-01 12:00:06,\xff",
        b"2024-01-01 12:00:07,\x00",
        b"2024-01-01 12:00:08,1e999",
        b"2024-01-01 12:00:09,9",
    ]
    rows, bad = read("x.csv", b"\r\n".join(lines))
    assert [row.value for row in rows] == [1.0, 9.0]
    assert [row.line for row in bad] == [3, 4, 5, 6, 7, 9, 10, 11]
    assert "x.csv:4: 'value' is 'high', expected a number" in str(bad[1])
    assert "not UTF-8" in bad[5].reason


def test_an_open_quote_is_told_where_it_begins(read: Read) -> None:
    text = 'timestamp,value\n2024-01-01 12:00:00,1\n2024-01-01 12:00:01,"2\nx,3\ny,4\n'
    rows, bad = read("x.csv", text)
    assert len(rows) == 1
    assert bad[0].line in (3, 5)


def test_bad_json_lines(read: Read) -> None:
    good = '{"timestamp": "2024-01-01T12:00:00Z", "value": 1}'
    deep = '{"timestamp": ' + "[" * 5_000 + "]" * 5_000 + "}"
    rows, bad = read("x.jsonl", "\n".join([good, "{", "[1]", "null", deep, "", good]))
    assert len(rows) == 2
    assert [row.line for row in bad] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "content", "mapping", "says"),
    [
        ("x.csv", "", {}, "is empty"),
        ("x.csv", "2024-01-01 12:00:00,1\n", {}, "--header"),
        ("x.csv", "a,a\n1,2\n", {}, "twice"),
        ("x.csv", "a,b\n1,2\n", {}, "no column is a time"),
        ("x.csv", "time,b\n2024-01-01,x\n", {}, "no column holds numbers"),
        ("x.csv", "time,b\n2024-01-01,1\n", {"values": ("c",)}, "The file has: time, b"),
        ("x.json", "{", {}, "no JSON"),
        ("x.json", "3", {}, "expected a list"),
        ("x.csv.gz", b"", {}, "is empty"),
    ],
)
def test_files_that_say_nothing_are_refused(
    read: Read, name: str, content: str | bytes, mapping: dict[str, Any], says: str
) -> None:
    with pytest.raises(SourceError, match=says):
        read(name, content, **mapping)


def test_a_broken_gzip_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"timestamp,value\n2024-01-01 12:00:00,1\n" * 50)[:-12])
    with pytest.raises(SourceError, match=r"x\.csv\.gz"):
        list(FileSource(path, "x", Mapping(UTC), print).rows())


def test_a_header_can_be_given(read: Read) -> None:
    rows, _ = read("x.csv", "2024-01-01 12:00:00,1\n", header=("timestamp", "value"))
    assert rows == [Row(NOON, "x", "value", 1.0)]


def test_files_are_found_by_name_pattern_and_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in ("a/one.csv", "b/one.csv", "b/two.json.gz", "b/read.me"):
        (tmp_path / name).touch()
    found = find_files([str(tmp_path)])
    assert [path.name for path in found] == ["one.csv", "one.csv", "two.json.gz"]
    assert source_names(found) == ["a/one", "b/one", "two"]
    assert find_files([str(tmp_path / "*" / "one.csv"), str(tmp_path / "a")]) == found[:2]
    with pytest.raises(SourceError, match="no such file"):
        find_files([str(tmp_path / "none*")])


def test_several_files_are_merged_by_time(tmp_path: Path) -> None:
    for name, seconds in (("a.csv", (0, 20, 40)), ("b.csv", (10, 30))):
        rows = "".join(f"2024-01-01 12:00:{second:02},{second}\n" for second in seconds)
        (tmp_path / name).write_text("timestamp,value\n" + rows)
    paths = find_files([str(tmp_path)])
    sources = [FileSource(path, path.stem, Mapping(UTC), print) for path in paths]
    assert [row.value for row in merged(sources)] == [0, 10, 20, 30, 40]
