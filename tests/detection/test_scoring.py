"""The engine's own rules: who scores what, what a replay skips, and the zone's clock."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from django.conf import settings

from config.wiring import load_model, scoring_base
from detection import episodes
from detection.base import FloatArray
from detection.errors import StateLayoutError
from detection.scoring import TRUSTED_AFTER, CompiledVersion, LoadedModel, ScoringEngine
from detection.versions import compile_version
from detection.zone_clock import ZoneClock
from streams.batch import EventBatch
from streams.series import SeriesIndex

START = 1_704_067_200_000_000
PAYLOAD = {"time_zone": "UTC", "policies": [], "models": []}


def engine(*partitions: int) -> ScoringEngine:
    made = ScoringEngine(SeriesIndex())
    for partition in partitions or (0,):
        made.attach(partition)
    return made


def version(made: ScoringEngine, **more: Any) -> CompiledVersion:
    payload = {**scoring_base(settings.VIGIL), **PAYLOAD, **more}
    return compile_version(0, payload, load_model)


def batch(made: ScoringEngine, n: int, metrics: tuple[str, ...] = ("cpu",), first: int = 0,
          partition: int = 0) -> EventBatch:  # fmt: skip
    """n events each of one source with these metrics, a minute apart."""
    codes = np.array([made.index.code("web-1", m) for m in metrics], dtype=np.int32)
    k = len(metrics)
    offset = np.arange(first * k, (first + n) * k, dtype=np.int64)
    return EventBatch(
        START + offset // k * 60_000_000, codes[offset % k],
        (50 + offset * 7 % 13 / 3).reshape(-1, 1), np.full(n * k, partition, dtype=np.int32),
        offset, committable={partition: int(offset[-1]) + 1},
    )  # fmt: skip


class Constant:
    """A stored model that always says the same."""

    name = "isolation_forest"

    def __init__(self, oddness: float) -> None:
        self.value = oddness
        self.asked = 0

    def oddness(self, features: FloatArray) -> FloatArray:
        self.asked += len(features)
        return np.full(len(features), self.value)


def with_models(base: CompiledVersion, **by_metric: float) -> CompiledVersion:
    models = tuple(
        LoadedModel("isolation_forest", metric.replace("every", ""), 1, "x", Constant(value))
        for metric, value in by_metric.items()
    )
    return replace(base, models=models)


def test_a_model_of_the_metric_wins_over_the_one_for_all() -> None:
    made = engine()
    scored = made.process(
        batch(made, 200, ("cpu", "mem")), with_models(version(made), cpu=0.25, every=0.5), {}
    )
    forest = scored.votes[
        scored.arrival(np.arange(400)), scored.version.names.index("isolation_forest")
    ]
    cpu, old = np.arange(400) % 2 == 0, np.arange(400) // 2 >= TRUSTED_AFTER
    assert np.isnan(forest[~old]).all()
    assert (forest[old & cpu] == 0.25).all()
    assert (forest[old & ~cpu] == 0.5).all()


def test_results_stand_series_by_series_and_can_be_put_into_the_logs_order() -> None:
    made = engine()
    events = batch(made, 200, ("cpu", "mem", "disk"))
    scored = made.process(events, version(made), {})
    assert (np.diff(scored.slot) >= 0).all()
    assert (np.diff(scored.events.offset)[np.diff(scored.slot) == 0] > 0).all()
    back = scored.arrival(np.arange(len(events)))
    assert np.array_equal(scored.events.offset[back], events.offset)
    assert np.array_equal(scored.events.series[back], events.series)


def test_warming_up_has_no_score() -> None:
    made = engine()
    scored = made.process(batch(made, 400), version(made), {})
    seen = scored.detail.seen
    warm = seen >= TRUSTED_AFTER
    assert np.isfinite(scored.score[warm]).all()
    assert np.isnan(scored.score[seen < 5]).all()
    assert not scored.is_anomaly[np.isnan(scored.score)].any()


def test_only_detectors_in_use_learn() -> None:
    made = engine()
    detectors = scoring_base(settings.VIGIL)["detectors"]
    without = {**detectors, "zscore": {"enabled": False}}
    made.process(batch(made, 300), version(made, detectors=without), {})
    assert (made.store.rows("zscore")[made.slots_of(0)] == 0).all()
    made.process(batch(made, 5, first=300), version(made), {})
    assert (made.store.rows("zscore")[made.slots_of(0), 0] == 5).all()


def test_an_old_version_scores_with_the_settings_of_then() -> None:
    detectors = scoring_base(settings.VIGIL)["detectors"]
    changed = {**detectors, "zscore": {**detectors["zscore"], "threshold": 6.0}}
    one, other = engine(), engine()
    usual = one.process(batch(one, 300), version(one), {})
    wider = other.process(batch(other, 300), version(other, detectors=changed), {})
    at = usual.version.names.index("zscore")
    spoke = ~np.isnan(usual.votes[:, at])
    assert spoke.any()
    assert np.allclose(usual.votes[spoke, at], 2 * wider.votes[spoke, at])


def test_the_online_detector_switched_off_still_learns() -> None:
    off, on = engine(), engine()
    detectors = scoring_base(settings.VIGIL)["detectors"]
    without = {**detectors, "online": {"enabled": False}}
    off.process(batch(off, 300), version(off, detectors=without), {})
    on.process(batch(on, 300), version(on), {})
    one = off.process(batch(off, 5, first=300), version(off), {})
    other = on.process(batch(on, 5, first=300), version(on), {})
    assert np.array_equal(one.score, other.score)
    assert np.isfinite(one.score).all()


def test_what_a_series_has_seen_is_skipped_and_what_is_stored_is_silent() -> None:
    made = engine(0, 1)
    made.process(batch(made, 10, ("cpu", "mem")), version(made), {})
    again = batch(made, 14, ("cpu", "mem", "new"))
    unseen = made.unseen(again)
    expected = (again.offset > np.where(np.arange(42) % 3 == 0, 18, 19)) | (np.arange(42) % 3 == 2)
    assert unseen.tolist() == expected.tolist()
    assert made.unseen(batch(made, 3, partition=1)).all()
    scored = made.process(batch(made, 20, first=10), version(made), {0: 15})
    assert scored.silent.tolist() == [offset < 15 for offset in range(10, 30)]


def test_a_partition_given_up_is_forgotten_and_its_room_used_again() -> None:
    made = engine(0, 1)
    names = tuple(f"m{i}" for i in range(50))
    for _ in range(30):
        made.attach(0)
        made.process(batch(made, 2, names), version(made), {})
    made.process(batch(made, 3, names[:1], partition=1), version(made), {})
    assert len(made.slots_of(0)) == 50
    assert made.store.capacity <= 1024
    before = made.pack(made.slots_of(1))
    made.detach(0)
    assert made.pack(made.slots_of(1)) == before


def test_state_of_another_layout_is_refused() -> None:
    made = engine()
    made.process(batch(made, 3), version(made), {})
    rows = made.pack(made.slots_of(0))
    other = engine()
    code = np.array([other.index.code("web-1", "cpu")], dtype=np.int32)
    with pytest.raises(StateLayoutError):
        other.restore(0, code, "another", rows)
    other.attach(0)
    other.restore(0, code, made.layouts(made.slots_of(0))[0], rows)
    assert other.pack(other.slots_of(0)) == rows


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe"]
)
def test_the_zones_clock_follows_daylight_saving(zone: str) -> None:
    rng = np.random.default_rng(4)
    seconds = rng.integers(1_672_531_200, 1_735_689_600, 400)
    change = int(dt.datetime(2024, 3, 31, 1, tzinfo=dt.UTC).timestamp())
    seconds = np.concatenate([seconds, np.arange(change - 3_600, change + 3_600, 60)])
    clock = ZoneClock(zone)
    expected = [
        s + round(dt.datetime.fromtimestamp(s, ZoneInfo(zone)).utcoffset().total_seconds())  # type: ignore[union-attr]
        for s in seconds.tolist()
    ]
    for _ in range(2):
        assert clock.local_s(seconds * 1_000_000 + 999_999).tolist() == expected
    assert len(clock.local_s(np.zeros(0, dtype=np.int64))) == 0


# -- wide events as vectors -----------------------------------------------------------------------


def wide(made: ScoringEngine, n: int, first: int = 0, k: int = 4, sources: int = 2,
         partition: int = 0) -> EventBatch:  # fmt: skip
    """n wide events of these sources in turn; those from 1,000 to 1,059 are out of step."""
    names = tuple(f"v{j}" for j in range(k))
    at = np.arange(2_000, dtype=np.int64)  # all: BLAS rounds a part's sums in another way
    codes = [made.index.code(f"plant-{s}", f"vector: of {k}") for s in range(sources)]
    swing = np.sin(at[:, None] / np.array([7.0, 19.0]))
    noise = np.stack([np.sin(at * at * (j + 2) * 0.37) for j in range(k)], axis=1)
    values = swing @ np.array([[1.0, -2.0, 0.5, 3.0], [2.0, 1.0, -1.0, 0.3]])[:, :k] + 0.3 * noise
    values[1_000:1_060, 1] += 20
    at, values = at[first : first + n], values[first : first + n]
    return EventBatch(
        START + at * 1_000_000, np.array(codes, dtype=np.int32)[at % sources], values,
        np.full(n, partition, dtype=np.int32), at, names, {partition: first + n},
    )  # fmt: skip


def test_a_vector_is_told_of_from_the_end_of_its_training_on() -> None:
    made = engine()
    scored = made.process(wide(made, 1_400), version(made), {})
    assert scored.version.names == ("vector",)
    assert len(scored.events) == 1_400 - 2 * 400
    assert scored.events.columns == ("value",)
    assert scored.vector is not None
    assert scored.vector.columns == ("v0", "v1", "v2", "v3")
    assert np.isfinite(scored.score).all()
    assert (scored.events.values[:, 0] >= 0).all()
    low, usual, alarm = scored.detail.expected.T
    assert (low == 0).all()
    assert (usual < alarm).all()
    over = scored.events.values[:, 0] > alarm
    assert np.array_equal(over, scored.score > 0.8)
    onset = np.flatnonzero(scored.outcome.change == 1)
    assert len(onset) == 2
    assert set(scored.events.offset[onset].tolist()) == {1_000, 1_001}
    assert (scored.vector.share[onset].argmax(axis=1) == 1).all()
    assert scored.detail.seen.min() == 400
    # ten events after the last odd one, not 80
    assert len(scored.outcome.closed) == 2
    last = scored.outcome.closed[:, 1 + episodes.END_OFFSET - episodes.EPISODE_FROM]
    closed = scored.events.offset[scored.outcome.closed_at]
    assert sorted((closed - last).tolist()) == [20, 20]
    assert (made.last_offsets(made.slots_of(0)) == [1_398, 1_399]).all()


@pytest.mark.parametrize("size", [1, 7, 250])
def test_vectors_are_the_same_in_any_batches_and_after_a_move(size: int) -> None:
    one, other = engine(0), engine(0)
    whole = one.process(wide(one, 1_300), version(one), {})
    scores, row = [], {}
    for start in range(0, 1_300, size):
        if start // 600 > (start - size) // 600:  # in training and after it: another process
            slots = other.slots_of(0)
            names = [other.index.names[c] for c in other.slot_code[slots].tolist()]
            rows, layouts = other.pack(slots), other.layouts(slots)
            assert [len(r) for r in rows] == other.row_bytes(slots).tolist()
            other = engine(0)
            other.index.code("somebody", "else")
            for name, layout, packed in zip(names, layouts, rows, strict=True):
                assert other.readable(layout)
                code = np.array([other.index.code(*name)], dtype=np.int32)
                other.restore(0, code, layout, [packed])
        part = wide(other, min(size, 1_300 - start), start)
        assert other.unseen(part).all()
        scores.append(other.process(part, version(other), {}).score)
    assert np.concatenate(scores).tobytes() == whole.score.tobytes()
    for made in (one, other):
        slots = made.slots_of(0)
        rows = made.pack(slots)
        row[made] = {
            made.index.names[made.slot_code[s]]: r for s, r in zip(slots, rows, strict=True)
        }
    assert row[one] == row[other]


def test_what_vectors_saw_in_training_is_not_seen_twice() -> None:
    made = engine()
    made.process(wide(made, 300), version(made), {})
    assert not made.unseen(wide(made, 300)).any()
    assert made.unseen(wide(made, 20, 290)).tolist() == [False] * 10 + [True] * 10
    assert len(made.changed_slots(0)) == 2


def test_rows_of_vectors_hold_no_state_of_other_detectors() -> None:
    made = engine()
    made.process(batch(made, 3), version(made), {})
    made.process(wide(made, 900), version(made), {})
    slots = made.slots_of(0)
    narrow, *vectors = made.row_bytes(slots).tolist()
    assert narrow > 8_000
    assert all(size < narrow / 3 for size in vectors)
    shared, mine, _ = made.layouts(slots)
    assert shared != mine
    for broken in (mine.replace("vector:1", "vector:2"), mine.replace(":k4", ":k"), mine + "x"):
        assert not made.readable(broken)
        with pytest.raises(StateLayoutError):
            made.restore(0, made.slot_code[slots[1:2]], broken, made.pack(slots[1:2]))


def test_a_partition_that_leaves_takes_its_vectors_along() -> None:
    made = engine(0, 1)
    for _ in range(20):
        made.attach(0)
        made.process(wide(made, 900), version(made), {})
    made.process(wide(made, 900, partition=1), version(made), {})
    assert len(made.vectors) == 4
    assert len(made.vectors.pool(4).rows) <= 8
    before = made.pack(made.slots_of(1))
    made.detach(0)
    assert len(made.vectors) == 2
    assert made.pack(made.slots_of(1)) == before
    made.process(batch(made, 3, partition=1, first=900), version(made), {})


def test_without_its_detector_a_vector_sees_nothing() -> None:
    made = engine()
    usual = version(made)
    detectors = {**scoring_base(settings.VIGIL)["detectors"], "vector": {"enabled": False}}
    for off in (version(made, detectors=detectors), replace(usual, vector=None)):
        scored = made.process(wide(made, 500), off, {})
        assert len(scored.events) == len(scored.score) == 0
        assert made.unseen(wide(made, 500)).all()
    assert not len(made.vectors)
