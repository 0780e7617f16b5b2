"""The label *expected*: a fault that was released is quiet, at the same offset in every replay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from django.conf import settings

from config.wiring import load_model, scoring_base
from detection import episodes
from detection.base import FloatArray
from detection.detectors import online_kernel
from detection.quarantine import NAME, Release
from detection.scoring import CompiledVersion, ScoredBatch, ScoringEngine
from detection.versions import compile_version
from streams.batch import EventBatch
from streams.series import SeriesIndex

START = 1_704_067_200_000_000
STEP_US = 300_000_000
N = 5_000
FIRST, EVERY, LENGTH = 1_400, 701, 4  # not at one time of day, which the detector would learn
COUNTS_FROM = 2_500  # the release, after two episodes
SOURCES = ("web-1", "web-2")


def values() -> FloatArray:
    """Noise on a level; the same four odd events every 701."""
    value = np.random.default_rng(5).normal(50, 2.0, N)
    for start in range(FIRST, N, EVERY):
        value[start : start + LENGTH] = [140.0, 141.0, 140.5, 140.0]
    return value


def flat_runs() -> FloatArray:
    """The same, but the odd events are long runs of one value."""
    value = np.random.default_rng(6).normal(50, 2.0, N)
    for start in range(FIRST, N, EVERY):
        value[start : start + 60] = value[start]
    return value


def release(number: int = 7, source: str = "web-1", **more: Any) -> Release:
    given = {"partition": 0, "first": FIRST, "last": FIRST + LENGTH - 1, "values": (140.0, 141.0)}
    return Release(id=number, source=source, metric="cpu", **given | more)


def levels() -> FloatArray:
    """The same, but the odd events are a level that lasts."""
    rng = np.random.default_rng(7)
    value = rng.normal(50, 2.0, N)
    for start in range(FIRST, N, EVERY):
        value[start : start + 60] += 90
    return value


def version(*releases: Release, whole: bool = False) -> CompiledVersion:
    """The online detector alone, which has the quarantine, or all of a series' detectors."""
    base = scoring_base(settings.VIGIL)
    if not whole:
        base["detectors"] = {"online": base["detectors"]["online"]}
    payload = {
        **base, "time_zone": "UTC", "policies": [], "models": [],
        "releases": [r.as_dict() for r in releases],
    }  # fmt: skip
    return compile_version(0, payload, load_model)


class Lab:
    """Two series with the same values, event by event in turn."""

    def __init__(self, value: FloatArray) -> None:
        self.value = value
        self.engine = ScoringEngine(SeriesIndex())
        self.engine.attach(0)

    def batch(self, start: int, end: int) -> EventBatch:
        codes = np.array([self.engine.index.code(s, "cpu") for s in SOURCES], dtype=np.int32)
        offset = np.arange(2 * start, 2 * end, dtype=np.int64)
        return EventBatch(
            START + offset // 2 * STEP_US, codes[offset % 2],
            self.value[offset // 2].reshape(-1, 1), np.zeros(len(offset), dtype=np.int32), offset,
            committable={0: 2 * end},
        )  # fmt: skip

    def score(self, start: int, end: int, by: CompiledVersion, size: int = N) -> FloatArray:
        """Scores [end − start, 2]."""
        parts = []
        for at in range(start, end, size):
            scored = self.engine.process(self.batch(at, min(at + size, end)), by, {})
            parts.append(scored.score[scored.arrival(np.arange(len(scored.score)))])
        return np.concatenate(parts).reshape(-1, 2)

    def run(self, after: CompiledVersion, size: int = N, *, whole: bool = False) -> FloatArray:
        before = self.score(0, COUNTS_FROM, version(whole=whole), size)
        return np.concatenate([before, self.score(COUNTS_FROM, N, after, size)])

    def snapshot(self) -> tuple[str, list[bytes]]:
        slots = self.engine.slots_of(0)
        return self.engine.layouts(slots)[0], self.engine.pack(slots)

    @classmethod
    def restored(cls, value: FloatArray, snapshot: tuple[str, list[bytes]]) -> Lab:
        lab = cls(value)
        codes = [lab.engine.index.code(s, "cpu") for s in SOURCES]
        lab.engine.restore(0, np.array(codes, dtype=np.int32), *snapshot)
        return lab


def found(scores: FloatArray) -> list[bool]:
    """Which of the episodes after the release have a score at the alarm level."""
    starts = [s for s in range(FIRST, N, EVERY) if s > COUNTS_FROM]
    return [bool((scores[s : s + 60] >= 0.8).any()) for s in starts]


def test_a_fault_comes_back_as_a_fault_until_it_is_released() -> None:
    value = values()
    without = Lab(value).run(version())
    assert all(found(without[:, 0]))
    released = Lab(value).run(version(release()))
    assert not any(found(released[:, 0]))
    assert np.array_equal(released[:, 1], without[:, 1], equal_nan=True)  # web-2 is untouched
    assert np.array_equal(released[:COUNTS_FROM], without[:COUNTS_FROM], equal_nan=True)


def test_values_alone_release_what_was_seen_before_event_numbers_were_kept() -> None:
    released = Lab(values()).run(version(release(first=-1, last=-1)))
    assert not any(found(released[:, 0]))


def test_another_fault_stays_in_quarantine() -> None:
    value = values()
    value[1_900:1_904] = 0.0
    value[3_900:3_904] = 0.0
    scores = Lab(value).run(version(release()))
    assert not any(found(scores[:, 0]))
    assert (scores[3_900:3_904, 0] >= 0.8).any()


def test_a_flat_line_that_is_expected_is_usual() -> None:
    value = flat_runs()
    without = Lab(value).run(version())
    assert all(found(without[:, 0]))
    first = FIRST + int(np.argmax(without[FIRST : FIRST + 60, 0] >= 0.8))
    given = {"first": first, "last": FIRST + 59, "values": (), "flat": True}
    scores = Lab(value).run(version(release(**given)))
    assert not any(found(scores[:, 0]))


@pytest.mark.parametrize("make", [values, flat_runs, levels])
def test_what_is_expected_is_silent_in_all_of_a_series_detectors(make: Any) -> None:
    value = make()
    without = Lab(value).run(version(whole=True), whole=True)
    assert all(found(without[:, 0]))
    first = FIRST + int(np.argmax(without[FIRST : FIRST + 60, 0] >= 0.8))
    length = LENGTH if make is values else 60
    peaks = (float(value[first]), float(value[first : FIRST + length].max()))
    given = {"first": first, "last": FIRST + length - 1, "values": peaks}
    after = version(release(**given, flat=make is flat_runs), whole=True)
    scores = Lab(value).run(after, whole=True)
    # neither the episode nor the way back from it
    for start in range(FIRST, N, EVERY):
        if start > COUNTS_FROM:
            assert (scores[start : start + 200, 0] < 0.8).all(), start
    assert np.array_equal(scores[:, 1], without[:, 1], equal_nan=True)


def test_another_level_of_the_same_series_is_told_by_all_the_same() -> None:
    value = levels()
    value[4_700:4_760] += 45
    scores = Lab(value).run(version(release(last=FIRST + 59), whole=True), whole=True)
    assert (scores[4_700:4_760, 0] >= 0.8).any()


def test_an_expected_level_that_stays_becomes_the_level() -> None:
    """After 500 events the others learn it: what leaves it is judged by it."""
    value = levels()
    value[3_000:] = np.random.default_rng(8).normal(140, 2.0, N - 3_000)
    lab = Lab(value)
    after = version(release(last=FIRST + 59), whole=True)
    scores = lab.run(after, whole=True)
    assert (scores[3_000:, 0] >= 0.8).sum() == 0
    mean = lab.engine.store.rows("shift")[lab.engine.slots_of(0)[0]][1]
    assert mean > 130


@pytest.mark.parametrize("whole", [False, True])
def test_batches_and_snapshots_before_and_after_give_the_same_bits(whole: bool) -> None:
    others = release(9, source="web-2", last=FIRST + 1, flat=whole)
    value, after = values(), version(release(), others, whole=whole)
    calm = Lab(value)
    expected = calm.run(after, whole=whole)
    for size in (7, 997) if whole else (1, 7, 997):
        lab = Lab(value)
        assert np.array_equal(lab.run(after, size, whole=whole), expected, equal_nan=True)
        assert lab.snapshot() == calm.snapshot()
    for cut in (2_000, COUNTS_FROM, COUNTS_FROM + 1, 4_000):
        lab = Lab(value)
        lab.score(0, min(cut, COUNTS_FROM), version(whole=whole))
        if cut > COUNTS_FROM:
            lab.score(COUNTS_FROM, cut, after)
        other = Lab.restored(value, lab.snapshot())
        if cut < COUNTS_FROM:
            other.score(cut, COUNTS_FROM, version(whole=whole))
        rest = other.score(max(cut, COUNTS_FROM), N, after)
        assert np.array_equal(rest, expected[max(cut, COUNTS_FROM) :], equal_nan=True)
        assert other.snapshot() == calm.snapshot()


def test_a_release_counts_once_and_a_younger_one_again() -> None:
    lab = Lab(values())
    lab.run(version(release()))
    marks = lab.engine.store.rows(NAME)
    slots = lab.engine.slots_of(0)
    assert marks[slots, 0].tolist() == [7.0, 0.0]
    row = lab.engine.store.rows("online")[slots[0]]
    row[online_kernel.FLAGS_LOW] = 1.0  # as if held back anew
    lab.engine.process(lab.batch(N - 1, N), version(release()), {})
    assert row[online_kernel.FLAGS_LOW] == 1.0
    younger = release(8, first=0, last=N - 2)
    lab.engine.process(lab.batch(N - 1, N), version(release(), younger), {})
    assert marks[slots, 0].tolist() == [8.0, 0.0]


def test_another_partition_and_a_state_that_never_saw_the_episode_stay_as_they_are() -> None:
    value = values()
    expected = Lab(value).run(version())
    elsewhere = Lab(value).run(version(release(partition=3)))
    assert np.array_equal(elsewhere, expected, equal_nan=True)
    early = Lab(value).score(0, 1_000, version(release(flat=True)))
    assert np.array_equal(early, expected[:1_000], equal_nan=True)


@pytest.mark.parametrize("flat", [False, True])
def test_a_release_survives_its_payload(flat: bool) -> None:
    given = release(flat=flat)
    assert Release.of(given.as_dict()) == given


def test_the_episode_is_still_open_when_it_is_released() -> None:
    """Labelled while it goes on: what is used after the label is not held back again."""
    value = values()
    value[2_490:2_540] = np.random.default_rng(1).normal(140, 0.5, 50)
    lab = Lab(value)
    lab.score(0, COUNTS_FROM, version())
    after = version(release(first=2_490, last=2_499))
    scored: ScoredBatch = lab.engine.process(lab.batch(COUNTS_FROM, N), after, {})
    mine = scored.events.series == scored.events.series[0]
    row, onsets = scored.score[mine], scored.outcome.change[mine] == episodes.ONSET
    assert (row[100:] >= 0.8).sum() == 0
    assert onsets.sum() <= 1
