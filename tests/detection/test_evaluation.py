from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from detection import evaluation
from tests.detection import series


def write(folder: Path, name: str, value: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["timestamp", "value"])
        for epoch_s, x in zip(series.regular(len(value)).tolist(), value.tolist(), strict=True):
            stamp = datetime.fromtimestamp(epoch_s, UTC).replace(tzinfo=None)
            writer.writerow([stamp.isoformat(sep=" "), x])


def test_a_spike_in_a_corpus_is_written_at_its_onset(tmp_path: Path) -> None:
    value = series.daily(2000, 1)
    value[1500:1503] = 150.0
    write(tmp_path / "in" / "data" / "made", "spike.csv", value)
    write(tmp_path / "in" / "data" / "made", "calm.csv", series.daily(2000, 2))
    assert evaluation.evaluate_nab(tmp_path / "in", tmp_path / "out") == 2
    with (tmp_path / "out" / "made" / "spike.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    score = np.array([float(row["anomaly_score"]) for row in rows])
    assert list(rows[0]) == ["timestamp", "value", "anomaly_score"]
    assert len(rows) == 2000
    assert (score >= 0).all()
    assert (score <= 1).all()
    assert score[1500] >= 0.8
    assert (score[1501:1580] < 0.8).all()


def test_an_empty_corpus_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        evaluation.evaluate_nab(tmp_path, tmp_path / "out")


def test_an_episode_closes_after_quiet_events() -> None:
    score = np.zeros(400)
    score[[0, 50, 130, 211, 300]] = 0.9
    onset = evaluation.episode_onsets(score, 0.8, 80)
    assert np.flatnonzero(onset).tolist() == [0, 211, 300]


def test_own_alarms_inside_an_episode_are_written() -> None:
    score = np.zeros(100)
    score[[10, 20, 30]] = 0.9
    alarm = np.zeros(100, np.bool_)
    alarm[[20, 40]] = True
    assert np.flatnonzero(evaluation.announcements(score, alarm)).tolist() == [10, 20]


def test_only_onsets_are_written_over_the_threshold() -> None:
    score = np.array([np.nan, 0.5, 0.9, 0.95, 0.7])
    onset = np.array([False, False, True, False, False])
    assert evaluation.written_score(score, onset).tolist() == [0.0, 0.5, 0.9, 0.0, 0.7]
