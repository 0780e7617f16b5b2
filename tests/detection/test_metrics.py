"""Figures of detection against cases counted by hand and a slow, plain reference."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detection.base import FloatArray
from detection.metrics import (
    Hits,
    Tally,
    average_precision,
    by_episode,
    by_event,
    delays,
    onsets,
    slopes,
    vus_pr,
)

FAULTS = np.array([[10, 20], [40, 42], [60, 80]])


def marks(*at: int, n: int = 100) -> np.ndarray:
    out = np.zeros(n, dtype=np.bool_)
    out[list(at)] = True
    return out


def test_an_onset_opens_and_quiet_or_a_gap_closes() -> None:
    over = marks(2, 5, 8, n=10)
    time_us = np.array([0, 1, 2, 3, 4, 5, 100, 101, 102, 103])
    assert onsets(over, time_us, quiet=80, max_gap_us=50).tolist() == [2, 8]
    assert onsets(over, time_us, quiet=2, max_gap_us=500).tolist() == [2, 5, 8]
    assert onsets(over, time_us, quiet=3, max_gap_us=500).tolist() == [2]
    assert onsets(marks(n=10), time_us, 3, 50).tolist() == []


def test_events_are_counted_one_by_one() -> None:
    hits = by_event(marks(1, 2, 3, 4, n=10), marks(3, 4, 5, 6, 7, 8, n=10))
    assert (hits.right, hits.wrong, hits.missed) == (2, 2, 4)
    assert hits.precision == 0.5
    assert hits.recall == pytest.approx(1 / 3)
    assert hits.f1 == pytest.approx(0.4)


def test_episodes_are_counted_by_their_onsets() -> None:
    hits = by_episode(marks(5, 10, 15, 20, 42, 79, 99), FAULTS)
    # 10 and 15 in the first fault, 79 in the last; 5, 20, 42 and 99 in none; the second is missed
    assert (hits.right, hits.wrong, hits.missed, hits.found) == (3, 4, 1, 2)
    assert hits.precision == pytest.approx(3 / 7)
    assert hits.recall == pytest.approx(2 / 3)
    assert hits.f1 == pytest.approx(2 * (3 / 7) * (2 / 3) / (3 / 7 + 2 / 3))


def test_grace_forgives_what_comes_just_after_a_fault() -> None:
    onset = marks(5, 20, 24, 25, 42, 99)
    assert by_episode(onset, FAULTS, grace=5).wrong == 3  # 5, 25, 99
    assert by_episode(onset, FAULTS).wrong == 6
    assert by_episode(onset, FAULTS, grace=5).found == 0


def test_ratios_of_nothing_are_no_figures() -> None:
    nothing = by_episode(marks(), np.zeros((0, 2), dtype=np.int64))
    assert (nothing.precision, nothing.recall, nothing.f1) == (None, None, None)
    assert by_episode(marks(3), np.zeros((0, 2), dtype=np.int64)).precision == 0.0
    missed = by_episode(marks(), FAULTS)
    assert (missed.precision, missed.recall, missed.f1) == (None, 0.0, 0.0)


def test_sums_of_hits_keep_alarms_and_faults_apart() -> None:
    both = Hits(3, 1, 1, found=2) + Hits(1, 0, 0, found=1)
    assert (both.right, both.wrong, both.missed, both.found) == (4, 1, 1, 3)
    assert (Hits(1) + Hits(2)).found is None


def test_delay_is_to_the_first_onset_inside() -> None:
    assert delays(marks(5, 13, 15, 60), FAULTS).tolist() == [3, -1, 0]
    assert delays(marks(), FAULTS).tolist() == [-1, -1, -1]
    assert delays(marks(20, 42, 80), FAULTS).tolist() == [-1, -1, -1]


def test_average_precision_by_hand() -> None:
    label = np.array([False, True, False, True])
    # by falling score: right, wrong, right, wrong: 1/2 · 1/1 + 1/2 · 2/3
    score = np.array([0.7, 0.9, 0.1, 0.5])
    assert average_precision(score, label) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision(np.array([np.nan, 0.9, np.nan, 0.5]), label) == pytest.approx(1.0)
    assert average_precision(score, np.zeros(4, dtype=np.bool_)) is None


def test_slopes_by_hand() -> None:
    label = slopes(12, np.array([[4, 6]]), 6)
    falling = [math.sqrt(1 - d / 6) for d in (1, 2, 3)]
    assert label.tolist() == pytest.approx([0, *falling[::-1], 1, 1, *falling, 0, 0, 0])
    at_the_edges = slopes(4, np.array([[0, 1], [3, 4]]), 8)
    assert at_the_edges.tolist() == pytest.approx([1, 1, 1, 1])
    assert slopes(5, np.array([[1, 3]]), 1).tolist() == [0, 1, 1, 0, 0]


def brute_force(score: FloatArray, faults: np.ndarray, widest: int) -> float:
    """The paper's definition word for word: one loop per width, threshold, event and segment."""
    n = len(score)
    areas = []
    for width in range(widest + 1):
        label = [0.0] * n
        for start, end in faults.tolist():
            for i in range(n):
                if start <= i < end:
                    label[i] += 1.0
                elif 0 < start - i <= width // 2:
                    label[i] += math.sqrt(1 - (start - i) / width)
                elif 0 < i - (end - 1) <= width // 2:
                    label[i] += math.sqrt(1 - (i - (end - 1)) / width)
        label = [min(1.0, one) for one in label]
        segments: list[list[int]] = []
        for i in range(n):
            if label[i] > 0 and (i == 0 or label[i - 1] == 0):
                segments.append([])
            if label[i] > 0:
                segments[-1].append(i)
        faulty = (sum(int(end - start) for start, end in faults) + sum(label)) / 2
        area, recall_before = 0.0, 0.0
        for threshold in sorted(set(score.tolist()), reverse=True):
            alarm = [one >= threshold for one in score]
            hit = sum(label[i] for i in range(n) if alarm[i])
            met = sum(any(alarm[i] for i in segment) for segment in segments)
            recall = min(hit / faulty, 1.0) * met / len(segments)
            area += (recall - recall_before) * hit / sum(alarm)
            recall_before = recall
        areas.append(area)
    return sum(areas) / len(areas)


@pytest.mark.parametrize("seed", range(6))
def test_vus_pr_equals_a_plain_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    faults = np.array([[3, 6], [20, 29], [35, 36], [57, 60]])
    score = rng.random(60)
    score[faults[1, 0] : faults[1, 1]] += 0.5
    score = np.round(score, 1 + seed % 3)  # ties
    assert vus_pr(score, faults, 16) == pytest.approx(brute_force(score, faults, 16), abs=1e-12)


def test_vus_pr_of_the_best_and_of_width_nought() -> None:
    label = slopes(100, FAULTS, 0)
    assert vus_pr(label, FAULTS, 0) == pytest.approx(1.0)
    score = np.random.default_rng(1).random(100)
    one = slopes(100, FAULTS[:1], 0) > 0
    assert vus_pr(score, FAULTS[:1], 0) == pytest.approx(average_precision(score, one))
    near = np.roll(label, 2)  # late by two events: the volume forgives it, the area does not
    assert vus_pr(near, FAULTS, 20) > vus_pr(near, FAULTS, 0)
    assert vus_pr(score, np.zeros((0, 2), dtype=np.int64)) is None


def test_a_tally_over_two_series_by_hand() -> None:
    tally = Tally(grace=3, widest=4)
    time_s = np.arange(100) * 864.0
    score = np.full(100, 0.1)
    score[:5] = np.nan
    onset = marks(12, 30, 60)
    tally.add(score, onset, onset, FAULTS, time_s)
    none = np.zeros((0, 2), dtype=np.int64)
    tally.add(score, marks(2, 50), marks(2, 50, 51), none, time_s, start=10)
    found = tally.figures()
    assert (found.series, found.events, found.faults, found.found) == (2, 190, 3, 2)
    assert found.precision == 0.5
    assert found.recall == pytest.approx(2 / 3)
    assert found.false_onsets == 2  # 30 and 50; 2 lies before the start
    days = (99 + 89) * 864.0 / 86_400
    assert found.false_alarms_a_day == pytest.approx(2 / days)
    assert found.false_onsets_per_10000 == pytest.approx(1e4 * 2 / (190 - 32))
    assert (found.delay_events, found.delay_s) == (1.0, 864.0)  # of 2 and 0
    assert found.event_recall == pytest.approx(2 / 32)
    assert found.event_precision == pytest.approx(2 / 5)
    assert 0 < found.vus_pr < 1
    assert found.as_dict()["faults"] == 3
