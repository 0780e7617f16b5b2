"""The synthetic world: seeded, the same however it is cut, and true to its truth file."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from streams.connectors.faults import KINDS, TruthFile
from streams.connectors.metric_profiles import demo_fleet, profile_of, source_names
from streams.connectors.synthetic import Columns, JsonEncoder, World, grid

DAY = 86_400_000_000
START = 19_700 * DAY + 5_000_000
SERIES = grid(("web-1", "db-1", "web-2"), ("cpu_usage", "mem_usage"))


def world(seed: int = 7, rate: float = 2.0, interval_us: int = 60_000_000) -> World:
    return World(SERIES, interval_us=interval_us, seed=seed, faults_per_series_day=rate)


def joined(parts: list[Columns]) -> Columns:
    return Columns(
        np.concatenate([part.time_us for part in parts]),
        np.concatenate([part.line for part in parts]),
        np.concatenate([part.value for part in parts]),
    )


def equal(one: Columns, other: Columns) -> bool:
    return (
        np.array_equal(one.time_us, other.time_us)
        and np.array_equal(one.line, other.line)
        and np.array_equal(one.value, other.value)
    )


@pytest.mark.parametrize("pieces", [2, 7, 50])
def test_values_do_not_depend_on_how_the_time_is_cut(pieces: int) -> None:
    borders = np.linspace(START, START + DAY, pieces + 1).astype(np.int64).tolist()
    cut = [world().columns(a, b) for a, b in pairwise(borders)]
    assert equal(joined(cut), world().columns(START, START + DAY))


def test_a_later_part_is_the_same_without_the_earlier_one() -> None:
    one = world()
    one.columns(START, START + DAY)
    later = one.columns(START + DAY, START + 2 * DAY)
    assert equal(later, world().columns(START + DAY, START + 2 * DAY))


def test_equal_seeds_give_equal_bytes_and_other_seeds_do_not() -> None:
    first, again, other = world(), world(), world(seed=8)
    columns = first.columns(START, START + DAY)
    records = list(JsonEncoder(first.lines).records(columns))
    assert records == list(JsonEncoder(again.lines).records(again.columns(START, START + DAY)))
    assert not equal(columns, other.columns(START, START + DAY))


def test_every_series_has_one_event_per_interval_in_order_of_time() -> None:
    columns = world().columns(START, START + DAY)
    assert len(columns) == 6 * 1_440
    assert (np.diff(columns.time_us) >= 0).all()
    for line in range(6):
        assert (np.diff(columns.time_us[columns.line == line]) == 60_000_000).all()


def test_only_the_events_of_a_fault_differ_from_the_world_without_faults() -> None:
    faulty, calm = world(), world(rate=0)
    a, b = faulty.columns(START, START + 3 * DAY), calm.columns(START, START + 3 * DAY)
    expected = np.zeros(len(a), dtype=bool)
    faults = faulty.faults(START, START + 3 * DAY)
    for fault in faults:
        inside = (a.time_us >= fault.start_us) & (a.time_us <= fault.end_us)
        expected |= inside & (a.line == fault.line)
    assert {fault.kind for fault in faults} == set(KINDS)
    assert not (a.value != b.value)[~expected].any()
    for fault in faults:
        first = (a.time_us == fault.end_us) & (a.line == fault.line)
        assert first.sum() == (START <= fault.end_us < START + 3 * DAY)


def test_faults_look_like_their_kind() -> None:
    faulty, calm = world(), world(rate=0)
    a, b = faulty.columns(START, START + 3 * DAY), calm.columns(START, START + 3 * DAY)
    for fault in faulty.faults_starting(START, START + 2 * DAY):
        inside = (a.time_us >= fault.start_us) & (a.time_us <= fault.end_us)
        inside &= a.line == fault.line
        change = a.value[inside] - b.value[inside]
        span = faulty.lines[fault.line].profile.span
        if fault.kind == "flatline":
            assert a.value[inside] == pytest.approx(fault.magnitude, abs=0.006)
        elif fault.kind == "variance_change":
            assert a.value[inside].std() > 1.5 * b.value[inside].std()
        elif fault.kind in ("spike", "dip"):
            assert 1 <= inside.sum() <= 3
            assert (np.sign(change) == (1 if fault.kind == "spike" else -1)).all()
            assert abs(change[0]) > 0.3 * span
        elif fault.kind == "level_shift":
            assert np.median(np.abs(change)) > 0.2 * span
        else:
            assert abs(change[-1]) > abs(change[: len(change) // 4]).max()


def test_seasons_show_in_the_values() -> None:
    calm = World(
        grid(("web-1",), ("cpu_usage",)), interval_us=600_000_000, seed=1, faults_per_series_day=0
    )
    columns = calm.columns(19_698 * DAY, 19_698 * DAY + 28 * DAY)
    hour = columns.time_us // 3_600_000_000 % 24
    weekday = (columns.time_us // DAY + 3) % 7  # 0 is Monday
    day, night = np.isin(hour, (13, 14, 15)), np.isin(hour, (1, 2, 3))
    assert columns.value[day].mean() - columns.value[night].mean() > 10
    weekend = np.isin(weekday, (5, 6))
    assert columns.value[~weekend].mean() - columns.value[weekend].mean() > 3


def test_slots_bring_a_fault_each_once_they_begin() -> None:
    live = World(
        demo_fleet(6),
        interval_us=10_000_000,
        seed=7,
        faults_per_series_day=0,
        slot_faults_from_us=START,
        slot_us=75_000_000,
    )
    assert live.faults(START - DAY, START) == []
    faults = live.faults_starting(START, START + DAY // 24)
    assert 46 <= len(faults) <= 49
    assert len({fault.line for fault in faults}) == len(live.lines)
    gaps = np.diff([fault.start_us for fault in faults]) / 1e6
    assert gaps.max() <= 160


def test_narrow_events_are_those_of_the_contract() -> None:
    one = world()
    columns = one.columns(START, START + 60_000_000)
    key, value = next(JsonEncoder(one.lines).records(columns))
    event = json.loads(value or b"")
    assert key == event["source"].encode()
    assert list(event) == ["source", "metric", "value", "timestamp"]
    assert event["timestamp"].endswith("Z")


def test_wide_events_hold_all_values_of_a_source() -> None:
    one = world()
    columns = one.columns(START, START + 600_000_000)
    narrow = [json.loads(v or b"") for _, v in JsonEncoder(one.lines).records(columns)]
    wide = [json.loads(v or b"") for _, v in JsonEncoder(one.lines, wide=True).records(columns)]
    assert len(wide) * 2 == len(narrow)
    spread = [
        (event["source"], metric, value, event["timestamp"])
        for event in wide
        for metric, value in event["values"].items()
    ]
    assert spread == [tuple(event.values()) for event in narrow]


@pytest.mark.parametrize("name", ["truth.csv", "truth.jsonl"])
def test_truth_names_each_fault(tmp_path: Path, name: str) -> None:
    one = world()
    faults = one.faults_starting(START, START + DAY)
    truth = TruthFile(tmp_path / name, one.lines)
    truth.write(faults)
    truth.close()
    text = (tmp_path / name).read_text()
    if name.endswith("csv"):
        rows = list(csv.DictReader(text.splitlines()))
    else:
        rows = [json.loads(line) for line in text.splitlines()]
    assert len(rows) == len(faults) > 0
    assert set(rows[0]) == {"source", "metric", "kind", "start", "end", "magnitude"}


def test_names_suit_the_metrics() -> None:
    assert source_names(("temperature",), 2) == ["sensor-1", "sensor-2"]
    assert source_names(("cpu_usage", "temperature"), 2) == ["node-1", "node-2"]
    sources = [source for source, _ in demo_fleet(12)]
    assert len(set(sources)) == 12
    assert profile_of("my_metric") == profile_of("my_metric")
