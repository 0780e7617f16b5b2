"""The Skoltech Anomaly Benchmark's layout: wide recordings in, one flag a row out, and its figures.

Who scores is injected. The first 400 rows of each file are its training, unlabelled, as published.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from detection.base import FloatArray
from detection.evaluation import (
    BoolArray,
    EvaluationError,
    read_number,
    read_time,
    write_rows,
)

TRAINING = 400
TIME, LABEL, CHANGE = "datetime", "anomaly", "changepoint"


@dataclass(frozen=True, slots=True, eq=False)
class WideRecording:
    """One file: `values` float64[n, k] of `columns`, nan where a cell is empty; times are UTC.

    `outlier` bool[n] is what the file says of its rows, None where it says nothing.
    """

    group: str
    name: str
    stamps: tuple[str, ...]
    times: tuple[datetime, ...]
    columns: tuple[str, ...]
    values: FloatArray
    outlier: BoolArray | None

    @property
    def key(self) -> str:
        """`GROUP/FILE.csv`."""
        return f"{self.group}/{self.name}"


# A recording, as a source of its own → bool[n], inside an episode
FlagRows = Callable[[WideRecording], BoolArray]


@dataclass(frozen=True, slots=True)
class WideResult:
    """Rows of one file's test part, told right and wrong; `labelled` False: nobody knows."""

    group: str
    name: str
    rows: int
    flagged: int
    labelled: bool
    hits: int = 0
    false_alarms: int = 0
    misses: int = 0


def evaluate_skab(path: Path, output: Path, flag_rows: FlagRows) -> Iterator[WideResult]:
    """Flag the rows of PATH/data/GROUP/*.csv into OUTPUT/GROUP/*.csv, one result a file.

    Raises:
        EvaluationError: nothing to read, or a file that is none of this kind.
    """
    for file in wide_files(path):
        recording = read_wide(file)
        flag = flag_rows(recording)[TRAINING:]
        _write(output, recording, flag)
        truth = recording.outlier
        if truth is None:
            yield WideResult(recording.group, recording.name, len(flag), int(flag.sum()), False)
            continue
        truth = truth[TRAINING:]
        yield WideResult(
            recording.group,
            recording.name,
            len(flag),
            int(flag.sum()),
            True,
            int((flag & truth).sum()),
            int((flag & ~truth).sum()),
            int((~flag & truth).sum()),
        )


def wide_files(path: Path) -> list[Path]:
    """The benchmark's files in order of group and number.

    Raises:
        EvaluationError: there are none.
    """
    if not path.is_dir():
        raise EvaluationError(f"{path}: no such folder; one with data/GROUP/*.csv is needed")
    files = list((path / "data").glob("*/*.csv")) or list(path.glob("*/*.csv"))
    if not files:
        raise EvaluationError(f"{path}: no data/GROUP/*.csv in it, so there is nothing to score")
    return sorted(files, key=lambda f: (f.parent.name, len(f.stem), f.stem))


def read_wide(file: Path) -> WideRecording:
    """The whole file: a column of times, columns of values, and its labels if it has any.

    Raises:
        EvaluationError: naming the line that is wrong.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, delimiter=";")
            names = tuple(reader.fieldnames or ())
            columns = tuple(n for n in names if n not in (TIME, LABEL, CHANGE))
            if TIME not in names or len(columns) < 2:
                raise EvaluationError(
                    f"{file}: its first line needs {TIME} and two columns of values, with ; between"
                )
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{file}: can't be read: {error}") from error
    if len(rows) <= TRAINING:
        raise EvaluationError(f"{file}: {len(rows)} rows, and the first {TRAINING} are training")
    stamps = tuple(row[TIME] or "" for _, row in rows)
    values = [[_value(row[name], file, line) for name in columns] for line, row in rows]
    outlier = None
    if LABEL in names:
        outlier = np.array([_value(row[LABEL], file, line) == 1 for line, row in rows])
    return WideRecording(
        file.parent.name,
        file.name,
        stamps,
        tuple(
            read_time(stamp, f"{file}, line {line}: {TIME}", example="2020-03-09 10:14:33")
            for stamp, (line, _) in zip(stamps, rows, strict=True)
        ),
        columns,
        np.array(values, dtype=np.float64),
        outlier,
    )


def figures(results: list[WideResult]) -> dict[str, float | None]:
    """F1, FAR and MAR (in %) over all test rows together; None without labels.

    F1 = TP / (TP + (FP + FN) / 2), FAR = FP / (FP + TN), MAR = FN / (FN + TP).
    """
    known = [r for r in results if r.labelled]
    hits, false, missed = (
        sum(getattr(r, name) for r in known) for name in ("hits", "false_alarms", "misses")
    )
    normal = sum(r.rows for r in known) - hits - missed
    odd = hits + missed
    return {
        "f1": hits / (hits + (false + missed) / 2) if odd else None,
        "far": 100 * false / normal if normal else None,
        "mar": 100 * missed / odd if odd else None,
    }


def _write(output: Path, recording: WideRecording, flag: BoolArray) -> None:
    rows = zip(recording.stamps[TRAINING:], flag.astype(int).tolist(), strict=True)
    write_rows(output / recording.group / recording.name, (TIME, "outlier"), rows)


def _value(text: str | None, file: Path, line: int) -> float:
    """A number; an empty cell is a missing one."""
    return math.nan if text == "" else read_number(text, f"{file}, line {line}:")
