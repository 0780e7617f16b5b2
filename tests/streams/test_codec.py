"""Messages to columns: wide events, mappings, rejects with their place, nothing half taken."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from streams.codec import MAX_BYTES, Codec, joined
from streams.series import SeriesIndex, check_name
from streams.vectors import MOST_SCHEMAS, MOST_VALUES, label_of
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


# -- wide events as vectors -----------------------------------------------------------------------


def test_a_wide_event_is_also_one_row_of_its_schema() -> None:
    codec = Codec(SeriesIndex())
    messages = in_order([wide(b=2, a=1), body(), wide(c=3, a=1), wide(a=5, b=6), wide(solo=1)])
    decoded = codec.decode(messages)
    assert len(decoded.batch) == 8
    assert [v.columns for v in decoded.vectors] == [("a", "b"), ("a", "c")]
    one, other = decoded.vectors
    assert one.values.tolist() == [[1, 2], [5, 6]]
    assert one.offset.tolist() == [0, 3]
    assert other.offset.tolist() == [2]
    assert one.committable == decoded.batch.committable
    assert one.event_time.tolist() == [TIME * 1_000_000] * 2
    assert [codec.index.names[c] for c in one.series.tolist()] == [("web-1", "vector: a + b")] * 2


def test_null_is_a_missing_value_of_the_same_schema() -> None:
    codec = Codec(SeriesIndex())
    decoded = codec.decode(in_order([wide(a=1, b=2), wide(a=None, b=3), wide(a=None, b=None)]))
    assert decoded.batch.values[:, 0].tolist() == [1, 2, 3]
    assert len(decoded.vectors) == 1
    assert np.array_equal(decoded.vectors[0].values, [[1, 2], [np.nan, 3]], equal_nan=True)
    assert [(r.offset, r.reason) for r in decoded.rejects] == [(2, "value")]


def test_what_is_too_wide_is_judged_one_by_one_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    codec = Codec(SeriesIndex())
    fits = {f"v{i:02}": float(i) for i in range(MOST_VALUES)}
    for _ in range(3):
        decoded = codec.decode(in_order([wide(**fits), wide(**fits, more=1.0)]))
        assert [v.values.shape for v in decoded.vectors] == [(1, MOST_VALUES)]
        assert len(decoded.batch) == 2 * MOST_VALUES + 1
    assert caplog.text.count("vector.too_wide") == 1


def test_a_source_has_so_many_schemas_also_after_a_restart(
    caplog: pytest.LogCaptureFixture,
) -> None:
    codec = Codec(SeriesIndex())
    many = in_order([wide(a=1, **{f"b{i}": 1.0}) for i in range(MOST_SCHEMAS + 3)])
    assert len(codec.decode(many).vectors) == MOST_SCHEMAS
    assert len(codec.decode(many).batch) == 2 * len(many)
    assert caplog.text.count("vector.too_many_schemas") == 1
    restored = Codec(SeriesIndex())
    for source, metric in codec.index.names:
        restored.code(source, metric)
    again = restored.decode(many[::-1])
    assert sorted(v.columns for v in again.vectors) == [("a", f"b{i}") for i in range(MOST_SCHEMAS)]


def test_names_of_vectors_are_kept_for_them() -> None:
    label = label_of(["a", "b"])
    codec = Codec(SeriesIndex())
    taken = [body(metric=label), wide(**{label: 1, "a": 2}), wide(**{label: None, "a": 2})]
    for _ in range(2):  # also once the vector itself is known
        decoded = codec.decode(in_order([*taken, wide(a=1, b=2)]))
        assert [r.reason for r in decoded.rejects] == ["name"] * 3
        assert "kept for" in decoded.rejects[0].detail
    assert [name for _, name in codec.index.names] == ["a", "b", label]


def test_without_room_for_a_series_the_single_values_still_count() -> None:
    codec = Codec(SeriesIndex(), max_series=2)
    decoded = codec.decode(in_order([wide(a=1, b=2)]))
    assert len(decoded.batch) == 2
    assert decoded.vectors == ()
    assert not decoded.rejects


def test_labels_differ_as_names_do_and_can_be_stored() -> None:
    rng = np.random.default_rng(3)
    letters = np.array(list('ab+ ·",é'))
    labels: dict[str, tuple[str, ...]] = {}
    for _ in range(3_000):
        names = {
            "".join(rng.choice(letters, rng.integers(1, 6))) for _ in range(rng.integers(2, 5))
        }
        given = tuple(sorted(names))
        assert labels.setdefault(label_of(given), given) == given
    longest = label_of(["x" * 255, "y" * 255, "z" * 255])
    check_name("metric", longest)
    assert longest.startswith("vector: xxx")
    assert " + 1 more · " in longest


def test_pieces_decoded_one_by_one_and_joined_are_as_decoded_at_once() -> None:
    raws = [
        b'{"source": "a", "metric": "m", "value": 1, "timestamp": 1704067200}',
        b'{"source": "a", "values": {"x": 1, "y": 2}, "timestamp": 1704067201}',
        b"nothing",
        b'{"source": "b", "values": {"z": 1, "y": 2}, "timestamp": 1704067202}',
        b'{"source": "a", "values": {"x": 3, "y": 4}, "timestamp": 1704067203}',
    ]
    messages = [Raw(raw, offset=at) for at, raw in enumerate(raws)]
    whole = Codec(SeriesIndex()).decode(messages)
    codec = Codec(SeriesIndex())
    parts = joined([codec.decode([message]) for message in messages])
    assert parts.rejects == whole.rejects
    pairs = [(parts.batch, whole.batch), *zip(parts.vectors, whole.vectors, strict=True)]
    assert len(pairs) == 3
    for one, other in pairs:
        assert one.columns == other.columns
        assert one.committable == other.committable
        for name in ("event_time", "series", "values", "partition", "offset"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist()
