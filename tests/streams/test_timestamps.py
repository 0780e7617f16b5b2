"""The vectorised timestamp reader says what the strict one says, or leaves it to that one."""

from __future__ import annotations

import datetime as dt
import random
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from streams.timestamps import (
    EARLIEST_US,
    LATEST_US,
    UNPARSED,
    TimestampError,
    parse_one,
    parse_texts,
)

NOON = 1_704_110_400_000_000


def strict(text: str) -> int | None:
    try:
        return parse_one(text)
    except TimestampError:
        return None


YEARS = ("2000", "2100", "1972", "1971", "1970", "2199", "2200", "0001", "9999")
ZONES = ("z", "-00:00", "+00:00", "+05:30", "-11:45", "+14:00", "+23:59", "-23:59", "+24:00", "+02",
         "+0230", "", " Z", "+05:60", "UTC", "+01:00:30", "Z ")  # fmt: skip


def text_of(chance: random.Random) -> str:
    """Mostly well-formed; each part is now and then out of range or of another form."""

    def part(low: int, high: int, *odd: str) -> str:
        usual = f"{chance.randint(low, high):02}"
        return chance.choice(odd) if chance.random() < 0.12 else usual

    date = f"{part(1971, 2199, *YEARS)}-{part(1, 12, '02', '00', '13')}"
    date += f"-{part(1, 28, '29', '30', '31', '00', '32')}"
    time = f"{part(0, 23, '24')}:{part(0, 59, '60', '6')}:{part(0, 59, '60', '61', '-1')}"
    length = chance.randint(0, 11)
    fraction = "." + "".join(chance.choice("0123456789") for _ in range(length))
    fraction = chance.choice(
        (fraction, "", "", ",5", ".-1") if chance.random() < 0.2 else (fraction, "")
    )
    zone = chance.choice(ZONES) if chance.random() < 0.3 else "Z"
    between = chance.choice("T" * 16 + "t  _")
    return f"{date}{between}{time}{fraction}{zone}"


def test_fast_and_strict_reader_agree_on_thousands_of_forms() -> None:
    chance = random.Random(1)
    texts = [text_of(chance) for _ in range(60_000)]
    found = parse_texts(texts)
    known = found != UNPARSED
    wrong = [
        (text, us, strict(text))
        for text, us in zip(texts, found.tolist(), strict=True)
        if us != UNPARSED and us != strict(text)
    ]
    assert wrong == []
    # It is no use unless it reads the usual ones, and refuses enough for this to mean something.
    assert known.sum() > 3_000
    accepted = sum(strict(text) is not None for text in texts)
    assert known.sum() > 0.6 * accepted
    assert (~known).sum() > 10_000


def test_every_common_form_is_read_without_the_strict_reader() -> None:
    moments = [NOON + k * 86_400_000_000 * 37 + k for k in range(0, 1_500, 7)]
    for timespec in ("seconds", "milliseconds", "microseconds"):
        for ending in ("Z", "+00:00"):
            texts, expected = [], []
            for us in moments:
                at = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=us)
                texts.append(at.isoformat(timespec=timespec).replace("+00:00", ending))
                unit = {"seconds": 1_000_000, "milliseconds": 1_000, "microseconds": 1}[timespec]
                expected.append(us // unit * unit)
            assert parse_texts(texts).tolist() == expected


def test_every_day_of_four_centuries_is_read_or_refused() -> None:
    texts = [
        f"{year:04}-{month:02}-{day:02}T00:00:00Z"
        for year in range(1969, 2203)
        for month in range(1, 13)
        for day in range(1, 32)
    ]
    expected = [strict(text) for text in texts]
    assert [us if us != UNPARSED else None for us in parse_texts(texts).tolist()] == expected


@pytest.mark.parametrize("count", range(1, 10))
def test_fractions_are_cut_to_microseconds_never_rounded(count: int) -> None:
    text = f"2024-01-01T12:00:00.{'987654999'[:count]}Z"
    cut = int("987654999"[: min(count, 6)].ljust(6, "0"))
    assert parse_one(text) == NOON + cut
    assert parse_texts([text]).tolist() == [NOON + cut]


@pytest.mark.parametrize(
    "text",
    ["2024-01-01T12:00:00Z\x00", "2024-01-01T12:00:00Z\x00\x00x", "\x002024-01-01T12:00:00Z"],
)
def test_the_fast_reader_leaves_texts_with_a_nul_to_the_strict_one(text: str) -> None:
    assert parse_texts([text]).tolist() == [UNPARSED]


def test_units_of_numbers_are_known_by_their_size() -> None:
    seconds = NOON // 1_000_000
    for number in (seconds, seconds * 10**3, seconds * 10**6, seconds * 10**9):
        assert parse_one(number) == NOON
        assert parse_one(float(number)) == NOON
    assert parse_one(1_704_110_400.25) == NOON + 250_000
    for us in (EARLIEST_US, LATEST_US - 1_000_000):
        for number in (us // 10**6, us // 10**3, us, us * 10**3):
            assert parse_one(number) == us


@pytest.mark.parametrize(
    "raw",
    [True, None, [], {}, b"2024", float("nan"), float("inf"), -float("inf"), 0, -1_704_110_400,
     10**30, 1e300, "", "today", "1704110400", "2024-01-01", "2024-01-01T12:00:00",
     "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2023-02-29T00:00:00Z"],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_a_reason(raw: object) -> None:
    with pytest.raises(TimestampError) as refusal:
        parse_one(raw)
    assert str(refusal.value)


def test_a_stream_may_give_a_zone_to_timestamps_without_one() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert parse_one("2024-01-01T13:00:00", berlin) == NOON
    assert parse_one("2024-07-01T14:00:00", berlin) == parse_one("2024-07-01T12:00:00Z")
    assert parse_one("2024-01-01T12:00:00Z", berlin) == NOON


def test_an_empty_list_gives_an_empty_array() -> None:
    assert parse_texts([]).dtype == np.int64
    assert len(parse_texts([])) == 0
