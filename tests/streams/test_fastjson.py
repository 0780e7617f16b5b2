"""The fast scanner and the strict decoder give the same bits, or the scanner leaves it alone."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import msgspec
import numpy as np
import pytest

from streams import fastjson
from streams.codec import Codec, Decoded, _Event, joined
from streams.series import SeriesIndex
from streams.vectors import MOST_SCHEMAS, MOST_VALUES
from streams.widejson import WideTable
from tests.streams.messages import in_order

NAMES = [("web-1", "cpu"), ("web-1", "mem"), ("web-2", "cpu"), ("a", "a"), ("ab", "c"), ("a", "bc")]
# Both readers see these series for the first time, in this order.
FIRST = [
    json.dumps({"source": s, "metric": m, "value": 0, "timestamp": 1_704_067_200}).encode()
    for s, m in NAMES
]


def strict_codec() -> Codec:
    """A codec whose every message goes the strict way."""
    codec = Codec(SeriesIndex())
    codec._names, codec._wide = Unlearning(), UnlearningWide()
    return codec


class Unlearning(fastjson.NameTable):
    """A table that never knows a series, so that no message is ever sure."""

    def add(self, source: str, metric: str, code: int) -> None:
        pass


class UnlearningWide(WideTable):
    """The same of wide events."""

    def learn(self, source: str, given: Any, codes: Any, vector: int) -> None:
        pass


def bits(decoded: Decoded) -> list[tuple[Any, ...]]:
    batch = decoded.batch
    return list(
        zip(
            batch.offset.tolist(),
            batch.series.tolist(),
            batch.event_time.tolist(),
            batch.values[:, 0].copy().view(np.int64).tolist(),
            strict=True,
        )
    )


def assert_agree(messages: list[bytes], first: list[bytes] = FIRST) -> int:
    """Both ways give the same; returns how many messages the scanner was sure of."""
    fast, strict = Codec(SeriesIndex()), strict_codec()
    everything = in_order([*first, *messages])
    for codec in (fast, strict):
        codec.decode(everything[: len(first)])
    rest = everything[len(first) :]
    one, other = fast.decode(rest), strict.decode(rest)
    found, expected = bits(one), bits(other)
    differ = sorted(set(found) ^ set(expected))[:4]
    shown = [messages[d[0] - len(first)] for d in differ]
    assert found == expected, (differ, shown)
    assert one.rejects == other.rejects
    assert fast.index.names == strict.index.names
    assert [v.columns for v in one.vectors] == [v.columns for v in other.vectors]
    for vector, same in zip(one.vectors, other.vectors, strict=True):
        for name in ("event_time", "series", "values", "partition", "offset"):
            assert getattr(vector, name).tobytes() == getattr(same, name).tobytes(), name
        assert vector.committable == same.committable
    return sure_of(messages, [m.value() or b"" for m in everything[: len(first)]])


def sure_of(messages: list[bytes], first: list[bytes] = FIRST) -> int:
    codec = Codec(SeriesIndex())
    codec.decode(in_order(first))
    buffer = np.frombuffer(b"".join(messages) + b"\n", dtype=np.uint8)
    ends = np.cumsum([len(m) for m in messages])
    found = fastjson.scan(buffer, ends, codec._names, codec._wide)
    return int((found.status != fastjson.SLOW).sum())


def space(chance: random.Random) -> str:
    return "".join(chance.choice(" \n\r\t") for _ in range(chance.choice((0, 0, 0, 1, 3))))


def whole(chance: random.Random) -> str:
    size = chance.randint(1, 25)
    return chance.choice(("", "-")) + str(chance.randint(0, 10**size))


def some_double(chance: random.Random) -> str:
    """Any bit pattern: subnormals, huge ones, both zeros."""
    value = struct.unpack("<d", struct.pack("<Q", chance.getrandbits(64)))[0]
    return repr(value) if value == value and abs(value) != float("inf") else "-0.0"


def written(chance: random.Random) -> str:
    """A number with any digits, point and exponent."""
    text = chance.choice(("", "", "-")) + chance.choice(
        ("0", str(chance.randint(1, 10 ** chance.randint(1, 22))))
    )
    if chance.random() < 0.6:
        text += "." + "".join(chance.choice("0123456789") for _ in range(chance.randint(1, 25)))
    if chance.random() < 0.5:
        text += chance.choice("eE") + chance.choice(("", "+", "-"))
        text += str(chance.choice((0, 1, 5, 22, 23, 100, 290, 300, 308, 320, 400, 99999)))
    return text


def odd_number(chance: random.Random) -> str:
    return chance.choice(
        ("-0", "0", "-0.0", "0e0", "0e999", "-0e-999", "1e300", "1.0000001e300", "-1e300", "5e-324",
         "2.4703282292062328e-324", "2.2250738585072014e-308", "1.7976931348623157e308", "1e309",
         "9007199254740993", "9007199254740992", "9007199254740993.0", "18446744073709551615",
         "18446744073709551616", "-9223372036854775808", "-9223372036854775809", "01", "-", "+1",
         "1.", ".5", "1e", "1e+", "0x10", "NaN", "Infinity", "null", "true", '"1"', "[1]", "{}",
         "1_0", "1 2", "8.5e1", "0.1e1", "1e22", "1e23", "123456789012345678", "-00", "1.5e0005")
    )  # fmt: skip


def number(chance: random.Random) -> str:
    return chance.choice((whole, some_double, written, written, odd_number))(chance)


def timestamp(chance: random.Random) -> str:
    second = chance.choice((1_704_067_200, 31_536_000, 31_535_999, 7_258_118_399, 7_258_118_400))
    second += chance.randint(0, 1) * chance.randint(0, 10**6)
    return chance.choice(
        (
            str(second * 10 ** chance.choice((0, 3, 6, 9))),
            str(chance.randint(0, 10 ** chance.randint(1, 20))),
            f"{second}.{chance.randint(0, 999999):06}",
            f"{second}e0",
            f"{second}.0",
            number(chance),
            *(
                f'"2024-0{chance.randint(1, 9)}-1{chance.randint(0, 9)}T12:00:0{d}'
                f"{chance.choice(('', '.5', '.123456', '.1234567', '.999999999', ',5'))}"
                f'{chance.choice(("Z", "z", "+01:00", "-23:59", "", "+24:00"))}"'
                for d in (1, 2, 3)
            ),
        )
    )


def text(chance: random.Random, word: str) -> str:
    """The word, now and then with escapes or as another one."""
    roll = chance.random()
    if roll < 0.06:
        return json.dumps(
            word.replace(word[0], chance.choice(("é", "漢", '"', "\\", "\x7f", "😀")))
        )
    if roll < 0.12:
        at = chance.randrange(len(word))
        return f'"{word[:at]}\\u{ord(word[at]):04x}{word[at + 1 :]}"'
    if roll < 0.14:
        return json.dumps(f"other-{chance.randint(0, 3)}")
    return json.dumps(word)


FRAMES = (
    '{{"source":{s},"metric":{m},"value":{v},"timestamp":{t}}}',
    '{{"source": {s}, "metric": {m}, "value": {v}, "timestamp": {t}}}',
    ' {{ "timestamp" :{t} , "value" : {v}, "metric":{m}, "source": {s} }} ',
    '{{"value":{v},"source":{s},"timestamp":{t},"metric":{m}}}\n',
)


def framed(chance: random.Random, frame: str) -> bytes:
    """A message like the others of its frame, now and then with a fault where they are alike."""
    source, metric = chance.choice(NAMES)
    usual = chance.random() < 0.7
    told = frame.format(
        s=text(chance, source),
        m=text(chance, metric),
        v=written(chance) if usual else number(chance),
        t=chance.choice(('"2024-01-01T12:00:00Z"', "1704110400")) if usual else timestamp(chance),
    ).encode()
    if chance.random() < 0.15:
        at = chance.randrange(len(told))
        told = chance.choice(
            (
                told[:at], told[at:], told[:at] + told[at + 1 :], told + told[at:],
                told[:at] + bytes([chance.choice(told)]) + told[at + 1 :],
            )
        )  # fmt: skip
    return told or b" "


@pytest.mark.parametrize("seed", range(6))
def test_messages_like_the_one_before_decode_to_the_same_bits(seed: int) -> None:
    """The scanner compares with the frame it met last: it must see every byte that differs."""
    chance = random.Random(seed)
    messages: list[bytes] = []
    while len(messages) < 2_000:
        frame = chance.choice(FRAMES)
        messages += [framed(chance, frame) for _ in range(chance.choice((1, 2, 3, 30)))]
    assert assert_agree(messages) > 700


def message(chance: random.Random) -> bytes:
    source, metric = chance.choice(NAMES)
    usual = chance.random() < 0.6
    fields = [
        ("source", text(chance, source)),
        ("metric", text(chance, metric)),
        ("value", number(chance) if not usual else written(chance)),
        ("timestamp", timestamp(chance) if not usual else '"2024-01-01T12:00:00Z"'),
    ]
    chance.shuffle(fields)
    if chance.random() < 0.05:
        fields.append(chance.choice(fields))
    if chance.random() < 0.05:
        name = chance.choice(("source", "metric", "value", "timestamp"))
        fields.insert(chance.randint(0, 4), (name, chance.choice(("1", '"a"', "null", "1.5"))))
    if chance.random() < 0.05:
        fields.append((chance.choice(("extra", "values", "valuf", "Source")), number(chance)))
    if chance.random() < 0.03:
        fields.pop()

    def s() -> str:
        return space(chance)

    def key(name: str) -> str:
        return text(chance, name) if chance.random() < 0.05 else f'"{name}"'

    body = ",".join(f"{s()}{key(name)}{s()}:{s()}{value}{s()}" for name, value in fields)
    whole_text = f"{s()}{{{body}}}{s()}"
    roll = chance.random()
    if roll < 0.03:
        whole_text = whole_text[: chance.randrange(len(whole_text) + 1)]
    elif roll < 0.05:
        whole_text += chance.choice(("}", "x", ",", "1", "\x00", "{}"))
    return whole_text.encode()


@pytest.mark.parametrize("seed", range(4))
def test_thousands_of_messages_decode_to_the_same_bits(seed: int) -> None:
    chance = random.Random(seed)
    messages = [message(chance) for _ in range(8_000)]
    sure = assert_agree(messages)
    assert 2_000 < sure < 7_500


@pytest.mark.parametrize("seed", range(2))
def test_every_double_that_json_can_write_is_read_exactly(seed: int) -> None:
    chance = random.Random(seed)
    values = [some_double(chance) for _ in range(10_000)]
    messages = [
        f'{{"source":"a","metric":"a","value":{v},"timestamp":1704067200}}'.encode() for v in values
    ]
    kept = [v for v in values if abs(float(v)) <= 1e300]
    codec = Codec(SeriesIndex())
    codec.decode(in_order(FIRST))
    batch = codec.decode(in_order(messages)).batch
    expected = np.array([float(v) for v in kept])
    assert np.array_equal(batch.values[:, 0].copy().view(np.int64), expected.view(np.int64))


def test_random_bytes_are_never_read_differently() -> None:
    chance = random.Random(9)
    messages = []
    for _ in range(6_000):
        raw = bytearray(message(chance))
        for _ in range(chance.randint(1, 3)):
            if raw:
                raw[chance.randrange(len(raw))] = chance.choice(
                    b'{}[],:"\\0159eE+-. \x00\xff\x80aZT'
                )
        messages.append(bytes(raw))
    assert_agree(messages)


def test_of_a_repeated_key_the_last_value_counts() -> None:
    """As in every common JSON reader; also where the first value alone would be refused."""
    body = b'{"source":"a","source":"ab","metric":"x","metric":"c","value":1,"value":2,%s}'
    one = body % b'"timestamp":1,"timestamp":1704067200'
    assert_agree([one])
    codec = Codec(SeriesIndex())
    codec.decode(in_order(FIRST))
    batch = codec.decode(in_order([one])).batch
    assert codec.index.names[int(batch.series[0])] == ("ab", "c")
    assert batch.values[0, 0] == 2.0


def test_a_table_that_grew_still_finds_every_series() -> None:
    codec = Codec(SeriesIndex())
    names = [(f"source-{i % 97}", f"metric-{i}-{'x' * (i % 60)}") for i in range(9_000)]
    messages = [
        json.dumps({"source": s, "metric": m, "value": i, "timestamp": 1_704_067_200}).encode()
        for i, (s, m) in enumerate(names)
    ]
    codec.decode(in_order(messages))
    buffer = np.frombuffer(b"".join(messages) + b"\n", dtype=np.uint8)
    found = fastjson.scan(buffer, np.cumsum([len(m) for m in messages]), codec._names, codec._wide)
    assert (found.status == fastjson.DONE).all()
    assert found.code.tolist() == list(range(9_000))
    assert found.value.tolist() == list(range(9_000))


def test_the_border_between_source_and_metric_is_part_of_the_name() -> None:
    """("ab", "c") and ("a", "bc") have the same letters."""
    messages = FIRST[-2:] * 3
    assert sure_of(messages) == 6
    assert_agree(messages)


def test_the_strict_decoder_is_what_the_tests_compare_with() -> None:
    decoder = msgspec.json.Decoder(_Event)
    assert decoder.decode(FIRST[0]).source == "web-1"
    strict = strict_codec()
    strict.decode(in_order(FIRST))
    assert strict._names.size == 0
    assert len(strict._wide) == 0


# -- wide events ----------------------------------------------------------------------------------

SETS = [
    ("cpu", "mem"),
    ("mem", "cpu"),
    ("cpu", "mem", "disk"),
    ("a", "b", "c", "d", "e"),
    ("solo",),
]


def wide_first() -> list[bytes]:
    """Every source with every order of names, one value missing at first."""
    found = list(FIRST)
    for source in ("web-1", "ab", "a"):
        for names in SETS:
            body = dict.fromkeys(names, 1.0) | ({names[-1]: None} if len(names) > 2 else {})
            whole_event = {"source": source, "values": body, "timestamp": 1_704_067_200}
            found.append(json.dumps(whole_event).encode())
    return found


def wide_message(chance: random.Random) -> bytes:
    def s() -> str:
        return space(chance)

    names = list(chance.choice(SETS))
    usual = chance.random() < 0.7
    if chance.random() < 0.08:
        names.append(chance.choice(("cpu", "new", "vector: cpu + mem", "")))
    if chance.random() < 0.05:
        chance.shuffle(names)
    if chance.random() < 0.04:
        names.pop()

    def one() -> str:
        if chance.random() < 0.1:
            return chance.choice(("null", "null", "null", "nul", "nulL", "NaN", "{}", '"1"'))
        return written(chance) if usual else number(chance)

    def name(of: str) -> str:
        return text(chance, of) if of and chance.random() < 0.2 else json.dumps(of)

    inside = ",".join(f"{s()}{name(of)}{s()}:{s()}{one()}{s()}" for of in names)
    fields = [
        ("source", text(chance, chance.choice(("web-1", "ab", "a")))),
        ("values", f"{{{inside}}}"),
        ("timestamp", '"2024-01-01T12:00:00Z"' if usual else timestamp(chance)),
    ]
    chance.shuffle(fields)
    roll = chance.random()
    if roll < 0.03:
        fields.append(chance.choice(fields))
    elif roll < 0.06:
        extra = (("metric", '"cpu"'), ("value", "1"), ("valuez", "{}"), ("values", "null"))
        fields.insert(chance.randint(0, 3), chance.choice(extra))
    elif roll < 0.08:
        fields.pop()
    elif roll < 0.1:
        fields[0] = (fields[0][0], chance.choice(("[]", "1", '"x"', "{}", "null")))
    body = (
        f"{s()}{{{','.join(f'{s()}{json.dumps(k)}{s()}:{s()}{v}{s()}' for k, v in fields)}}}{s()}"
    )
    if chance.random() < 0.04:
        body = body[: chance.randrange(len(body) + 1)] + chance.choice(("", "}", "}}", ",", "x"))
    return body.encode()


@pytest.mark.parametrize("seed", range(4))
def test_wide_events_decode_to_the_same_bits(seed: int) -> None:
    chance = random.Random(seed)
    messages = [
        wide_message(chance) if chance.random() < 0.8 else message(chance) for _ in range(8_000)
    ]
    sure = assert_agree(messages, wide_first())
    assert 1_500 < sure < 7_500


def test_random_bytes_in_wide_events_are_never_read_differently() -> None:
    chance = random.Random(19)
    messages = []
    for _ in range(8_000):
        raw = bytearray(wide_message(chance))
        for _ in range(chance.randint(1, 3)):
            if raw:
                raw[chance.randrange(len(raw))] = chance.choice(
                    b'{}[],:"\\0159eE+-. \x00\xff\x80aZTnul'
                )
        messages.append(bytes(raw))
    assert_agree(messages, wide_first())


def test_wide_events_in_any_pieces_give_the_same() -> None:
    """A schema is learnt in the middle of one: what comes before it and after it are in order."""
    chance = random.Random(5)
    messages = in_order([wide_message(chance) for _ in range(3_000)])
    whole_codec = strict_codec()
    expected = whole_codec.decode(messages)
    for size in (1, 7, 500):
        codec = Codec(SeriesIndex())
        parts = [codec.decode(messages[i : i + size]) for i in range(0, len(messages), size)]
        found = joined(parts)
        assert bits(found) == bits(expected)
        assert codec.index.names == whole_codec.index.names
        other = {v.columns: v for v in expected.vectors}
        assert {v.columns for v in found.vectors} == set(other)
        for vector in found.vectors:
            assert vector.values.tobytes() == other[vector.columns].values.tobytes()
            assert vector.series.tobytes() == other[vector.columns].series.tobytes()
            assert vector.offset.tobytes() == other[vector.columns].offset.tobytes()


def event_of(source: str, **values: float | None) -> bytes:
    return json.dumps({"source": source, "values": values, "timestamp": 1_704_067_200}).encode()


def test_the_scanner_is_sure_of_a_wide_event_from_its_second_on() -> None:
    first = [event_of("a", x=1, y=None), event_of("b", y=1, x=2)]
    assert sure_of([event_of("a", x=2, y=None), event_of("a", y=None, x=4)], first) == 2
    assert sure_of([event_of("a", x=2, y=3), event_of("b", x=None, y=None)], first) == 0
    assert sure_of([event_of("c", x=2, y=3)], first) == 0  # a source it has not seen
    assert sure_of([event_of("b", x=2, y=3), event_of("b", x=None, y=3)], first) == 2
    assert sure_of([event_of("b", x=1.1e300, y=3)], first) == 0


def test_limits_of_schemas_and_sizes_are_those_of_the_strict_way() -> None:
    many = [event_of("a", **{"x": 1.0, f"y{i}": 2.0}) for i in range(MOST_SCHEMAS + 3)]
    assert_agree(many * 3, many)
    broad = event_of("a", **{f"v{i:03}": float(i) for i in range(MOST_VALUES + 5)})
    assert assert_agree([broad] * 3, [broad]) == 3  # one by one only
    padded = event_of("a", x=1, y=2)[:-1] + b" " * 1_000_000 + b"}"
    assert assert_agree([padded], [event_of("a", x=1, y=2)]) == 0
    single = FIRST[0][:-1] + b" " * 1_000_000 + b"}"
    assert assert_agree([single]) == 0


def test_tables_of_wide_events_grow() -> None:
    sources = [f"source-{i}-{'x' * (i % 50)}" for i in range(700)]
    sets = [{f"m{j}-{s}": 1.5 for j in range(2 + s)} for s in range(7)]
    messages = [event_of(source, **sets[i % 7]) for i, source in enumerate(sources)]
    assert assert_agree(messages * 2, messages) == 1_400
