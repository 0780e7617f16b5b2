"""`manage.py evaluate skab` on small wide recordings made here."""

from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from numpy.typing import NDArray

from config.offline_vectors import OfflineVectorScorer
from config.schema import Kafka, VigilConfig
from detection.evaluation import EvaluationError
from detection.skab import figures, read_wide, wide_files

NAMES = [f"Sensor {j}" for j in range(6)]
FAULT = slice(700, 800)


def pump(n: int = 1_000, seed: int = 3, fault: bool = True) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    hidden = np.stack([np.sin(np.arange(n) / p) for p in (13, 31, 47)], axis=1)
    values = hidden @ rng.normal(0, 1, (3, 6)) + rng.normal(0, 0.2, (n, 6))
    if fault:
        values[FAULT, 2] -= 8
    return values


def write(root: Path, name: str, values: NDArray[np.float64], labels: bool = True) -> Path:
    file = root / "data" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter=";")
        writer.writerow(["datetime", *NAMES, *(["anomaly", "changepoint"] if labels else [])])
        for i, row in enumerate(values.tolist()):
            stamp = f"2020-03-09 {10 + i // 3600:02}:{i // 60 % 60:02}:{i % 60:02}"
            told = [float(FAULT.start <= i < FAULT.stop), 0.0] if labels else []
            writer.writerow([stamp, *("" if x != x else x for x in row), *told])
    return file


def flags(output: Path, name: str) -> NDArray[np.int64]:
    with (output / name).open() as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["datetime", "outlier"]
    return np.array([int(row[1]) for row in rows[1:]])


def test_flags_of_the_test_rows_are_written_and_counted(tmp_path: Path) -> None:
    write(tmp_path, "valve/2.csv", pump())
    write(tmp_path, "valve/10.csv", pump(fault=False), labels=False)
    out, report = StringIO(), tmp_path / "figures.json"
    call_command("evaluate", "skab", str(tmp_path), "--output", str(tmp_path / "out"),
                 "--json", str(report), stdout=out)  # fmt: skip
    assert [f.name for f in wide_files(tmp_path)] == ["2.csv", "10.csv"]
    found = flags(tmp_path / "out", "valve/2.csv")
    assert len(found) == 600
    assert found[302:400].all()
    assert not found[:300].any()
    assert not found[420:].any()  # the 10th quiet event ends the episode
    assert not flags(tmp_path / "out", "valve/10.csv").any()
    metrics = json.loads(report.read_text())["metrics"]["all"]
    assert metrics["files"] == 2
    hits, false = int(found[300:400].sum()), int(found[400:].sum())
    assert metrics["f1"] == pytest.approx(hits / (hits + (false + 100 - hits) / 2))
    assert metrics["far"] == pytest.approx(100 * false / 500)
    assert "F1" in out.getvalue()


def test_batches_and_other_files_change_no_flag(tmp_path: Path) -> None:
    one = read_wide(write(tmp_path, "a/1.csv", pump()))
    other = read_wide(write(tmp_path, "a/2.csv", pump(seed=9)))
    whole = OfflineVectorScorer(VigilConfig()).flags(one)
    for size in (1, 77, 705):
        scorer = OfflineVectorScorer(VigilConfig(kafka=Kafka(batch_size=size)))
        scorer.flags(other)
        assert np.array_equal(scorer.flags(one), whole), size


def test_empty_cells_are_missing_values(tmp_path: Path) -> None:
    values = pump()
    values[np.random.default_rng(0).random(values.shape) < 0.03] = np.nan
    recording = read_wide(write(tmp_path, "a/1.csv", values))
    assert np.array_equal(recording.values, values, equal_nan=True)
    found = OfflineVectorScorer(VigilConfig()).flags(recording)
    assert found[705:800].all()
    assert found[400:700].mean() < 0.02


def test_figures_need_labels() -> None:
    assert figures([]) == {"f1": None, "far": None, "mar": None}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a;b\n1;2\n", "first line needs datetime"),
        ("datetime;a;b\n" + "2020-03-09 10:00:00;1;2\n" * 400, "first 400 are training"),
        ("datetime;a;b\n" + "yesterday;1;2\n" * 401, "line 2: datetime 'yesterday'"),
        ("datetime;a;b\n" + "2020-03-09 10:00:00;1;x\n" * 401, "line 2: 'x' is no finite"),
        ("datetime;a;b\n" + "2020-03-09 10:00:00;1\n" * 401, "line 2: None is no finite"),
    ],
)
def test_a_file_of_another_kind_is_told(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "data" / "g" / "1.csv"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(EvaluationError, match=said):
        read_wide(file)
    with pytest.raises(CommandError, match=r"1\.csv"):
        call_command("evaluate", "skab", str(tmp_path), "--output", str(tmp_path / "out"))


def test_a_folder_without_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="nothing to score"):
        call_command("evaluate", "skab", str(tmp_path), "--output", str(tmp_path / "out"))
    with pytest.raises(CommandError, match="no such folder"):
        call_command("evaluate", "skab", str(tmp_path / "no"), "--output", str(tmp_path / "out"))
