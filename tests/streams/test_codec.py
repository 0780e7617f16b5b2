"""Messages to columns: wide events, mappings, rejects with their place, nothing half taken."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from streams.codec import MAX_BYTES, Codec
from streams.series import SeriesIndex
from tests.streams.malformed import malformed
from tests.streams.messages import Raw, in_order

TIME = 1_704_067_200


def body(**fields: Any) -> bytes:
    event = {"source": "web-1", "metric": "cpu", "value": 1.5, "timestamp": TIME, **fields}
    return json.dumps({k: v for k, v in event.items() if v is not ...}).encode()


def wide(**values: Any) -> bytes:
    return body(metric=..., value=..., values=values)


def test_every_kind_of_malformed_message_is_rejected_with_a_fitting_reason() -> None:
    kinds = list(malformed(per_kind=2, heavy_per_kind=1))
    codec = Codec(SeriesIndex())
    for _ in range(2):  # also once the good series are known to the fast scanner
        codec.decode(in_order([body(source="sensor_01", metric="cpu_usage")]))
        decoded = codec.decode([Raw(m.value, i, 3, m.key) for i, m in enumerate(kinds)])
        assert len(decoded.batch) == 0
        found = {r.offset: r for r in decoded.rejects}
        for i, one in enumerate(kinds):
            assert i in found, one.kind
            reject = found[i]
            assert reject.reason in one.reasons, (one.kind, reject.reason, reject.detail)
            assert (reject.partition, reject.raw, reject.key) == (3, one.value, one.key)
            assert reject.detail
        assert decoded.batch.committable == {3: len(kinds)}


def test_a_wide_event_gives_one_row_per_value_in_its_place() -> None:
    codec = Codec(SeriesIndex())
    messages = in_order([body(), wide(cpu=1, mem=2.5, disk=-3), b"no", body(value=4)], first=10)
    batch = codec.decode(messages).batch
    assert batch.offset.tolist() == [10, 11, 11, 11, 13]
    assert batch.values[:, 0].tolist() == [1.5, 1, 2.5, -3, 4]
    names = [codec.index.names[c][1] for c in batch.series.tolist()]
    assert names == ["cpu", "cpu", "mem", "disk", "cpu"]


def test_a_refused_message_leaves_no_series_behind() -> None:
    codec = Codec(SeriesIndex())
    refused = [
        wide(good=1.0, **{"bad\x00": 2.0}),
        body(source="new", value="high"),
        body(source="new", timestamp="never"),
        body(source="new", value=1e301),
        body(source="new", metric="\x07"),
    ]
    decoded = codec.decode(in_order(refused))
    assert [r.reason for r in decoded.rejects] == ["name", "schema", "timestamp", "value", "name"]
    assert len(codec.index) == 0


def test_the_size_limit_is_exact() -> None:
    fill = MAX_BYTES - len(body(extra=""))
    codec = Codec(SeriesIndex())
    decoded = codec.decode(in_order([body(extra="x" * fill), body(extra="x" * (fill + 1))]))
    assert decoded.batch.offset.tolist() == [0]
    assert [r.reason for r in decoded.rejects] == ["size"]


def test_the_next_offset_counts_messages_of_every_partition_good_or_bad() -> None:
    codec = Codec(SeriesIndex())
    messages = [Raw(body(), 5, 1), Raw(b"", 9, 0), Raw(body(), 6, 1), Raw(None, 10, 0)]
    decoded = codec.decode(messages)
    assert decoded.batch.committable == {0: 11, 1: 7}
    assert codec.decode([]).batch.committable == {}


MAPPING = {
    "source": "payload.device.id",
    "metric": "=temperature",
    "value": "payload.readings.1",
    "timestamp": "at",
}


def test_other_shapes_are_mapped_by_paths() -> None:
    codec = Codec(SeriesIndex(), MAPPING)
    good = {"payload": {"device": {"id": "d1"}, "readings": [0, 21.5]}, "at": TIME}
    broken = {"payload": {"device": {}, "readings": [0, 21.5]}, "at": TIME}
    short = {"payload": {"device": {"id": "d1"}, "readings": [0]}, "at": TIME}
    decoded = codec.decode(in_order(json.dumps(m).encode() for m in (good, broken, short)))
    assert codec.index.names == [("d1", "temperature")]
    assert decoded.batch.values.tolist() == [[21.5]]
    assert [r.reason for r in decoded.rejects] == ["schema", "schema"]
    assert "payload.device.id" in decoded.rejects[0].detail


def test_a_mapped_stream_refuses_what_is_malformed_as_well() -> None:
    codec = Codec(SeriesIndex(), {"value": "value"})
    kinds = list(malformed(per_kind=1, heavy_per_kind=1))
    decoded = codec.decode(in_order(m.value for m in kinds))
    assert len(decoded.rejects) == len(kinds)


def test_a_zone_for_naive_timestamps_comes_from_the_stream() -> None:
    naive = body(timestamp="2024-01-01T13:00:00")
    assert Codec(SeriesIndex()).decode(in_order([naive])).rejects[0].reason == "timestamp"
    batch = Codec(SeriesIndex(), naive_zone="Europe/Berlin").decode(in_order([naive])).batch
    assert batch.event_time.tolist() == [1_704_110_400_000_000]


@pytest.mark.parametrize("seed", range(3))
def test_how_messages_are_cut_into_batches_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool = [
        body(), body(source="é"), body(source="a\"b"), wide(cpu=1, mem=2), b"no", None,
        body(value=float(rng.normal())), body(metric="other"), wide(x=1),
    ]  # fmt: skip
    messages = in_order(pool[i] for i in rng.integers(0, len(pool), 300))
    whole, cut = Codec(SeriesIndex()), Codec(SeriesIndex())
    one = whole.decode(messages)
    parts, at = [], 0
    while at < len(messages):
        size = int(rng.integers(1, 9))
        parts.append(cut.decode(messages[at : at + size]))
        at += size
    assert whole.index.names == cut.index.names
    for name in ("event_time", "series", "values", "partition", "offset"):
        joined = np.concatenate([getattr(p.batch, name) for p in parts])
        assert np.array_equal(getattr(one.batch, name), joined), name
    assert one.rejects == [r for p in parts for r in p.rejects]


def test_series_beyond_the_limit_are_refused_and_known_ones_go_on() -> None:
    def event(source: str) -> bytes:
        return (
            b'{"source": "%b", "metric": "m", "value": 1, "timestamp": 1704067200}'
            % source.encode()
        )

    codec = Codec(SeriesIndex(), max_series=2)
    wide = b'{"source": "a", "timestamp": 1704067200, "values": {"m": 1, "other": 2}}'
    decoded = codec.decode(in_order([event(s) for s in "abcacb"] + [wide]))
    assert [(r.offset, r.reason) for r in decoded.rejects] == [
        (2, "limit"), (4, "limit"), (6, "limit")
    ]  # fmt: skip
    assert decoded.batch.offset.tolist() == [0, 1, 3, 5]
    assert codec.index.names == [("a", "m"), ("b", "m")]
    assert codec.code("restored", "m") == 2, "what the database holds is never refused"
