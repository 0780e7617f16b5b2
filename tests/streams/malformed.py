"""Kafka messages that are no events, of many kinds, each with the reasons a codec may give."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

PER_KIND = 50
HEAVY_PER_KIND = 2  # of messages of megabytes
BLOB = 5_000_000
TIME = "2024-01-01T12:00:00Z"


@dataclass(frozen=True, slots=True)
class Malformed:
    """One message: ``value`` None is a tombstone; ``reasons`` are the codec's words that fit."""

    kind: str
    key: bytes | None
    value: bytes | None
    reasons: frozenset[str]


Build = Callable[[int], bytes | None]


def _text(**fields: object) -> str:
    """A good event's JSON with some fields changed; a field of ``...`` is left out."""
    event: dict[str, object] = {
        "source": "sensor_01",
        "metric": "cpu_usage",
        "value": 85.5,
        "timestamp": TIME,
        **fields,
    }
    return json.dumps({name: value for name, value in event.items() if value is not ...})


def _event(**fields: object) -> bytes:
    return _text(**fields).encode()


def _literal(value: str) -> bytes:
    """A good event whose value is this text, unquoted."""
    return _text(value="@").replace('"@"', value).encode()


def _nested(depth: int) -> bytes:
    return _text(value="@").replace('"@"', "[" * depth + "]" * depth).encode()


def _nested_beside(depth: int) -> bytes:
    return _text(extra="@").replace('"@"', '{"a":' * depth + "1" + "}" * depth).encode()


# kind: (reasons, how the i-th is built)
KINDS: dict[str, tuple[str, Build]] = {
    "not UTF-8": ("encoding json", lambda i: b"\xff\xfe\x80" + bytes([128 + i]) * 20),
    "not UTF-8 inside": (
        "encoding json",
        lambda i: _event(source="@").replace(b"@", b"web\xc3\x28" + bytes([0xE0 + i % 16])),
    ),
    "Latin-1": (
        "encoding json",
        lambda i: _text(source="@").replace("@", f"Öl{i}").encode("latin-1"),
    ),
    "not JSON": ("json schema", lambda i: f"cpu_usage={i}.5 host=web-1".encode()),
    "XML": ("json", lambda i: f"<event><value>{i}</value></event>".encode()),
    "cut off": ("json", lambda i: _event()[: 5 + i]),
    "two in one": ("json", lambda i: _event(value=i) + _event(value=i + 1)),
    "trailing comma": ("json", lambda i: _event(value=i)[:-1] + b",}"),
    "single quotes": ("json", lambda i: _event(value=i).replace(b'"', b"'")),
    "empty": ("empty json", lambda i: b""),
    "spaces only": ("empty json", lambda i: b" \n\t" * (i + 1)),
    "tombstone": ("empty", lambda i: None),
    "binary": ("encoding json", lambda i: bytes([0, 0, 0, 0, i, 2, 6, 255, 251])),
    "JSON null": ("schema", lambda i: b"null"),
    "bare number": ("schema", lambda i: str(i).encode()),
    "bare text": ("schema", lambda i: json.dumps(f"cpu {i}").encode()),
    "array of events": ("schema", lambda i: b"[" + _event(value=i) + b"]"),
    "empty object": ("schema", lambda i: b"{}"),
    "no source": ("schema name", lambda i: _event(source=..., value=i)),
    "no metric": ("schema name", lambda i: _event(metric=..., value=i)),
    "no value": ("schema value", lambda i: _event(value=..., source=f"web-{i}")),
    "no timestamp": ("schema timestamp", lambda i: _event(timestamp=..., value=i)),
    "source is null": ("schema name", lambda i: _event(source=None, value=i)),
    "source is a number": ("schema name", lambda i: _event(source=i)),
    "source is an object": ("schema name", lambda i: _event(source={"id": i})),
    "metric is a list": ("schema name", lambda i: _event(metric=["cpu", i])),
    "value is null": ("schema value", lambda i: _event(value=None, source=f"web-{i}")),
    "value is true": ("schema value", lambda i: _event(value=i % 2 == 0)),
    "value is text": ("schema value", lambda i: _event(value="high")),
    "value is a number as text": ("schema value", lambda i: _event(value=f"{i}.5")),
    "value is empty text": ("schema value", lambda i: _event(value="", source=f"web-{i}")),
    "value is a list": ("schema value", lambda i: _event(value=[i, i + 1])),
    "NaN": ("json value", lambda i: _literal(["NaN", "nan", "NAN", "-NaN"][i % 4])),
    "Infinity": ("json value", lambda i: _literal(["Infinity", "-Infinity", "inf", "-inf"][i % 4])),
    "1e999": (
        "json value schema",
        lambda i: _literal(["1e999", "-1e999", "1e309", "9.9e400"][i % 4]),
    ),
    "huge integer": ("json value schema", lambda i: _literal("9" * (400 + i))),
    "leading zero": ("json", lambda i: _literal(f"0{i + 1}")),
    "hexadecimal": ("json", lambda i: _literal(f"0x{i:x}")),
    "decimal comma": ("json", lambda i: _literal(f"{i},5")),
    "metric, value and values": ("schema", lambda i: _event(values={"cpu": i})),
    "values is empty": ("schema value", lambda i: _event(metric=..., value=..., values={})),
    "values holds text": (
        "schema value",
        lambda i: _event(metric=..., value=..., values={"cpu": 0.5, "mem": "x" * i}),
    ),
    "values holds only null": (
        "schema value",
        lambda i: _event(metric=..., value=..., values={"cpu": None, f"mem_{i}": None}),
    ),
    "values is a list": ("schema value", lambda i: _event(metric=..., value=..., values=[i])),
    "values has a bad name": (
        "name",
        lambda i: _event(metric=..., value=..., values={"cpu": 0.5, f"m\x00{i}": 1.0}),
    ),
    "deep nesting": ("json schema size", lambda i: _nested(10_000 + i)),
    "deep nesting beside": ("json schema size", lambda i: _nested_beside(10_000 + i)),
    "year 99999": (
        "timestamp",
        lambda i: _event(timestamp=["99999-01-01T00:00:00Z", "+99999-01-01T00:00:00Z"][i % 2]),
    ),
    "year 9999": ("timestamp", lambda i: _event(timestamp="9999-12-31T23:59:59Z", value=i)),
    "year 1": ("timestamp", lambda i: _event(timestamp="0001-01-01T00:00:00+14:00", value=i)),
    "timestamp is 0": ("timestamp", lambda i: _event(timestamp=[0, "0", 0.0, -0.0][i % 4])),
    "timestamp is negative": ("timestamp", lambda i: _event(timestamp=-1_700_000_000 - i)),
    "timestamp is huge": ("timestamp schema", lambda i: _event(timestamp=10 ** (20 + i))),
    "timestamp is 1e300": ("timestamp", lambda i: _event(timestamp="@").replace(b'"@"', b"1e300")),
    "timestamp is null": ("timestamp schema", lambda i: _event(timestamp=None, value=i)),
    "timestamp is empty": ("timestamp", lambda i: _event(timestamp="", value=i)),
    "timestamp is true": ("timestamp schema", lambda i: _event(timestamp=True, value=i)),
    "timestamp is an object": ("timestamp schema", lambda i: _event(timestamp={"at": i})),
    "timestamp without a zone": (
        "timestamp",
        lambda i: _event(timestamp=f"2024-01-01T12:00:{i % 60:02}"),
    ),
    "31 February": ("timestamp", lambda i: _event(timestamp="2024-02-31T12:00:00Z", value=i)),
    "hour 25": ("timestamp", lambda i: _event(timestamp="2024-01-01T25:00:00Z", value=i)),
    "American date": ("timestamp", lambda i: _event(timestamp="01/31/2024 12:00 PM", value=i)),
    "empty source": ("name", lambda i: _event(source=" " * i)),
    "empty metric": ("name", lambda i: _event(metric=" " * i)),
    "long source": ("name", lambda i: _event(source="s" * (10_000 + i))),
    "long metric": ("name", lambda i: _event(metric="m" * (10_000 + i))),
    "NUL in the source": ("name", lambda i: _event(source=f"web\x00{i}")),
    "NUL in the metric": ("name", lambda i: _event(metric=f"cpu\x00{i}")),
    "raw control character": (
        "json name",
        lambda i: _event(source="@").replace(b"@", bytes([1 + i % 31])),
    ),
    "control character": ("name", lambda i: _event(source=f"web{chr(1 + i % 31)}1")),
    "lone surrogate": (
        "name json encoding",
        lambda i: _event(source="@").replace(b"@", rf"\ud8{i:02x}".encode()),
    ),
    "large blob of text": ("size", lambda i: _event(extra="x" * (BLOB + i))),
    "large blob of bytes": (
        "size encoding json",
        lambda i: bytes([i, 128, 255, 7]) * (BLOB // 4),
    ),
}
HEAVY = {"large blob of text", "large blob of bytes"}


def malformed(
    per_kind: int = PER_KIND, heavy_per_kind: int = HEAVY_PER_KIND
) -> Iterator[Malformed]:
    """All kinds in turn, ``per_kind`` of each; the same ones at every call."""
    for i in range(per_kind):
        for kind, (reasons, build) in KINDS.items():
            if kind not in HEAVY or i < heavy_per_kind:
                yield Malformed(kind, f"key-{i}".encode(), build(i), frozenset(reasons.split()))
