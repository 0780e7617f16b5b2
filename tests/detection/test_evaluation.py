from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from detection import evaluation
from detection.base import FloatArray
from detection.evaluation import BoolArray, EvaluationError, Recording


def write(root: Path, lines: list[str], name: str = "one.csv") -> Path:
    file = root / "data" / "made" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def tens_are_onsets(recording: Recording) -> tuple[FloatArray, BoolArray]:
    """Value 10 opens an episode, 9 goes on with one, nan comes out for 0."""
    value = recording.value
    return np.where(value == 0, np.nan, value / 10), value == 10


ROWS = [
    "timestamp,value",
    "2014-04-01 00:00:00,0",
    "2014-04-01 00:05:00,2.5",
    "2014-04-01 00:10:00,10",
    "2014-04-01 00:15:00,9",
]


def test_each_row_is_written_with_its_score(tmp_path: Path) -> None:
    write(tmp_path / "in", ROWS)
    results = list(evaluation.evaluate_nab(tmp_path / "in", tmp_path / "out", tens_are_onsets, 0.8))
    with (tmp_path / "out" / "made" / "one.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [
        ["timestamp", "value", "anomaly_score"],
        ["2014-04-01 00:00:00", "0.0", "0.0"],
        ["2014-04-01 00:05:00", "2.5", "0.25"],
        ["2014-04-01 00:10:00", "10.0", "1.0"],
        ["2014-04-01 00:15:00", "9.0", "0.0"],
    ]
    assert [(r.rows, r.onsets, r.windows) for r in results] == [(4, 1, None)]


def test_windows_with_an_onset_are_counted(tmp_path: Path) -> None:
    write(tmp_path, ROWS)
    labels = tmp_path / "labels" / "combined_windows.json"
    labels.parent.mkdir()
    windows = [
        ["2014-04-01 00:00:00.000000", "2014-04-01 00:05:00.000000"],
        ["2014-04-01 00:10:00.000000", "2014-04-01 00:15:00.000000"],
    ]
    labels.write_text(json.dumps({"made/one.csv": windows}), encoding="utf-8")
    [result] = evaluation.evaluate_nab(tmp_path, tmp_path / "out", tens_are_onsets, 0.8)
    assert (result.windows, result.found) == (2, 1)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["time,value", "1,2"], r"one\.csv: no column timestamp in its first line"),
        (["a,b"], "no column timestamp and no column value"),
        (["timestamp,value"], "no rows"),
        (["timestamp,value", "yesterday,2"], "line 2: timestamp 'yesterday' is no time"),
        ([*ROWS, "2014-04-01 00:20:00"], "line 6: value None is no finite number"),
        ([*ROWS, "2014-04-01 00:20:00,nan"], "line 6: value 'nan' is no finite number"),
        ([*ROWS, "2014-04-01 00:20:00,x"], "line 6: value 'x' is no finite number"),
    ],
)
def test_a_bad_file_is_named_with_its_line(lines: list[str], message: str, tmp_path: Path) -> None:
    file = write(tmp_path, lines)
    with pytest.raises(EvaluationError, match=message):
        evaluation.read_recording(file)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, ROWS)
    file.write_bytes(b"timestamp,value\n\xff\xfe,1\n")
    with pytest.raises(EvaluationError, match=r"one\.csv: can't be read"):
        evaluation.read_recording(file)


def test_an_empty_corpus_and_a_missing_one_are_errors(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"no data/CATEGORY/\*\.csv"):
        evaluation.recordings(tmp_path)
    with pytest.raises(EvaluationError, match="no such folder"):
        evaluation.recordings(tmp_path / "absent")


def test_labels_of_another_shape_are_an_error(tmp_path: Path) -> None:
    labels = tmp_path / "labels" / "combined_windows.json"
    labels.parent.mkdir()
    labels.write_text('{"made/one.csv": [["soon"]]}', encoding="utf-8")
    with pytest.raises(EvaluationError, match="not the benchmark's labels"):
        evaluation.read_labels(tmp_path)


def test_times_without_a_zone_are_utc(tmp_path: Path) -> None:
    recording = evaluation.read_recording(write(tmp_path, ROWS))
    assert recording.times[0] == datetime(2014, 4, 1, tzinfo=UTC)


def test_only_onsets_are_written_over_the_threshold() -> None:
    score = np.array([np.nan, 0.5, 0.9, 0.95, 0.7])
    onset = np.array([False, False, True, False, False])
    assert evaluation.written_score(score, onset, 0.8).tolist() == [0.0, 0.5, 0.9, 0.0, 0.7]
