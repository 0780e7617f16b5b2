"""What is an extreme of its own tail is no alarm; what stands apart from it is one every time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from django.conf import settings

from config.wiring import load_model, scoring_base
from detection import shapes, tails
from detection.base import FloatArray, IntArray, ScoringInput, SeriesOutput
from detection.detectors.online import OnlineDetector
from detection.metrics import onsets
from detection.scoring import ScoringEngine
from detection.state import StateStore
from detection.versions import compile_version
from streams.batch import EventBatch
from streams.series import SeriesIndex
from tests.detection import series

MINUTE_S = 60


def judge(value: FloatArray, period_s: int = MINUTE_S) -> tuple[FloatArray, FloatArray]:
    """(what the online detector says, the same in the light of the tails) of one series."""
    raw, out = series.score_alone(OnlineDetector(), series.regular(len(value), period_s), value)
    store = StateStore([tails.component()], capacity=1)
    store.allocate(1)
    slot = np.zeros(len(value), dtype=np.int64)
    return raw, tails.judged(store.rows(tails.NAME), slot, value, raw, out)


def count(oddness: FloatArray) -> int:
    """Episodes after the first 2,000 events."""
    over = np.nan_to_num(oddness) >= 1.0
    at = onsets(over, np.arange(len(over), dtype=np.int64), 80, np.inf)
    return int((at >= 2_000).sum())


@pytest.mark.parametrize("shape", ["heavy_tails", "bursts"])
def test_extremes_of_a_tail_alarm_less(shape: str) -> None:
    before = after = 0
    for seed in range(30, 36):
        raw, found = judge(shapes.make(shape, seed).value)
        before += count(raw)
        after += count(found)
    assert before > 40
    assert after < 0.85 * before


@pytest.mark.parametrize("shape", ["normal", "daily", "ar_95", "poisson", "sawtooth", "trend"])
def test_where_tails_are_light_next_to_nothing_changes(shape: str) -> None:
    raw, found = judge(shapes.make(shape, 30).value)
    assert abs(count(raw) - count(found)) <= 1


def test_a_fault_beyond_the_tail_is_found_the_tenth_time_as_well() -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        value = rng.normal(50.0, 5.0, 12_000)
        at = np.arange(2_000, 11_500, 700)
        value[at] = 100.0 + rng.normal(0.0, 0.5, len(at))
        raw, found = judge(value)
        assert (raw[at] >= 1.0).all()
        np.testing.assert_array_equal(found[at], raw[at])


def test_a_new_value_amid_the_others_is_none_of_its_business() -> None:
    """Between two states, in the range of both: novel, and no extreme."""
    rng = np.random.default_rng(4)
    value = np.where(rng.random(6_000) < 0.5, 10.0, 90.0) + rng.normal(0.0, 1.0, 6_000)
    value[5_000:5_002] = 40.0
    raw, found = judge(value)
    assert (raw[5_000:5_002] >= 1.0).any()
    np.testing.assert_array_equal(found[5_000:5_002], raw[5_000:5_002])


def test_times_of_noise_that_come_back_are_found_more_often() -> None:
    alone = together = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        value = shapes.make("daily", seed, 12_000).value
        starts = np.arange(2_000, 11_500, 900)
        for start in starts:
            value[start : start + 45] += rng.normal(0.0, 20.0, 45)
        raw, found = judge(value, 300)
        alone += sum(bool((raw[s : s + 45] >= 1.0).any()) for s in starts)
        together += sum(bool((found[s : s + 45] >= 1.0).any()) for s in starts)
    assert together > 1.1 * alone


def test_what_goes_on_alarming_is_learnt_in_the_end() -> None:
    """Counts stand still in an episode, and go on after 500 events of it."""
    value = np.random.default_rng(8).normal(0, 1, 3_000)
    raw, out = series.score_alone(OnlineDetector(), series.regular(3_000, 60), value)
    raw[1_000:] = 2.0  # a stand-in for a detector that can't calm down
    store = StateStore([tails.component()], capacity=1)
    store.allocate(1)
    slot, state = np.zeros(3_000, dtype=np.int64), store.rows(tails.NAME)
    seen = []
    for start, end in ((0, 1_000), (1_000, 1_500), (1_500, 3_000)):
        at = slice(start, end)
        tails.judged(state, slot[at], value[at], raw[at], part(out, at))
        seen.append(float(state[0, tails.SEEN]))
    assert seen[1] == seen[0]
    assert seen[2] > seen[1] + 900


def test_no_score_stays_none_and_a_value_beyond_all_numbers_is_passed_over() -> None:
    value = np.random.default_rng(1).normal(0, 1, 1_000)
    value[[500, 600, 700]] = [np.nan, np.inf, 1e200]
    raw, found = judge(value)
    np.testing.assert_array_equal(np.isnan(raw), np.isnan(found))
    assert np.isnan(found[:150]).all()
    assert np.isfinite(found[701:]).all()


@pytest.mark.parametrize("value", [np.full(400, 3.0), np.zeros(400), 1e140 * np.arange(400.0)])
def test_series_without_a_tail(value: FloatArray) -> None:
    raw, found = judge(value)
    np.testing.assert_array_equal(np.isnan(raw), np.isnan(found))
    assert np.isfinite(found[150:]).all()


# -- several series, batches, snapshots ----------------------------------------------------------


def made(n: int = 9_000) -> tuple[IntArray, FloatArray, FloatArray, SeriesOutput]:
    """Three series mixed at random: heavy tails, bursts, noise that comes and goes."""
    rng = np.random.default_rng(3)
    slot = rng.integers(0, 3, n)
    value = np.empty(n)
    value[slot == 0] = shapes.make("heavy_tails", 1).value[: (slot == 0).sum()]
    value[slot == 1] = shapes.make("bursts", 2).value[: (slot == 1).sum()]
    value[slot == 2] = rng.normal(0, 1, (slot == 2).sum())
    noisy = np.flatnonzero(slot == 2)[2_000:2_040]
    value[noisy] *= 6.0
    inputs = ScoringInput(slot, series.regular(n, 20), value)
    store = StateStore([OnlineDetector.component])
    store.allocate(3)
    out = SeriesOutput.empty(n)
    return slot, value, OnlineDetector().score(store.rows("online"), inputs, out), out


def part(out: SeriesOutput, at: slice) -> SeriesOutput:
    return SeriesOutput(
        out.oddness[at], out.reason[at], out.onset[at], out.features[at], out.expected[at],
        out.seen[at], out.tests[at],
    )  # fmt: skip


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_batches_and_snapshots_change_no_bit(size: int) -> None:
    slot, value, raw, out = made()
    store = StateStore([tails.component()])
    store.allocate(3)
    whole = tails.judged(store.rows(tails.NAME), slot, value, raw, out)
    assert (whole != raw)[~np.isnan(raw)].any()
    other = StateStore([tails.component()])
    other.allocate(3)
    found = []
    for start in range(0, len(value), size):
        at = slice(start, start + size)
        state = other.rows(tails.NAME)
        found.append(tails.judged(state, slot[at], value[at], raw[at], part(out, at)))
        if start == 4 * size:  # goes on elsewhere
            packed = other.pack(np.arange(3))
            other = StateStore([tails.component()])
            other.allocate(70)
            other.unpack(np.arange(3), packed, store.layout_id)
    assert np.concatenate(found).tobytes() == whole.tobytes()
    assert store.pack(np.arange(3)) == other.pack(np.arange(3))
    for k in range(3):
        mine = slot == k
        alone = StateStore([tails.component()])
        alone.allocate(1)
        own = SeriesOutput(*(getattr(out, f)[mine] for f in SeriesOutput.__dataclass_fields__))
        again = tails.judged(
            alone.rows(tails.NAME), np.zeros(mine.sum(), dtype=np.int64), value[mine], raw[mine],
            own,
        )  # fmt: skip
        assert again.tobytes() == whole[mine].tobytes()


def test_a_slot_outside_the_state_is_refused() -> None:
    slot, value, raw, out = made(10)
    with pytest.raises(IndexError):
        tails.judged(np.zeros((2, tails.WIDTH)), slot, value, raw, out)


def votes(**more: Any) -> FloatArray:
    """The online detector's votes on one series, through the engine."""
    payload = {**scoring_base(settings.VIGIL), "time_zone": "UTC", "policies": [], "models": []}
    payload = {key: value for key, value in {**payload, **more}.items() if value is not None}
    engine = ScoringEngine(SeriesIndex())
    engine.attach(0)
    value = shapes.make("heavy_tails", 2).value
    offset = np.arange(len(value), dtype=np.int64)
    code = engine.index.code("a", "b")
    batch = EventBatch(
        1_704_067_200_000_000 + offset * 60_000_000, np.full(len(value), code, dtype=np.int32),
        value.reshape(-1, 1), np.zeros(len(value), dtype=np.int32), offset,
        committable={0: len(value)},
    )  # fmt: skip
    version = compile_version(0, payload, load_model)
    scored = engine.process(batch, version, {})
    return np.asarray(scored.votes[:, version.names.index("online")])


def test_versions_of_the_past_and_the_setting_know_none_of_it() -> None:
    value = shapes.make("heavy_tails", 2)
    raw, _ = series.score_alone(OnlineDetector(), value.time_s, value.value)
    np.testing.assert_array_equal(votes(own_tails=None), raw)
    np.testing.assert_array_equal(votes(own_tails=False), raw)
    now = votes()
    assert (now < raw).any()
    assert count(now) < count(raw)
