"""How good detection is: the NAB corpus scored causally, with one configuration for all files.

Reading and writing the benchmark's files, and what was found of its labels; who scores is injected.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detection.base import FloatArray

BoolArray = NDArray[np.bool_]
Window = tuple[datetime, datetime]


class EvaluationError(ValueError):
    """The corpus can't be evaluated; says which file and line and what is needed."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One file of the corpus. Its times have no zone and count as UTC."""

    category: str
    name: str
    stamps: tuple[str, ...]
    times: tuple[datetime, ...]
    value: FloatArray

    @property
    def key(self) -> str:
        """`CATEGORY/FILE.csv`, as the benchmark's labels name it."""
        return f"{self.category}/{self.name}"


# A recording, as a series of its own → (score float64[n], nan = none yet; onset bool[n])
ScoreSeries = Callable[[Recording], tuple[FloatArray, BoolArray]]


@dataclass(frozen=True, slots=True)
class FileResult:
    """What was found in one file; `windows` labelled ones, `found` of them with an onset."""

    category: str
    name: str
    rows: int
    onsets: int
    windows: int | None
    found: int


def evaluate_nab(
    path: Path, output: Path, score_series: ScoreSeries, threshold: float
) -> Iterator[FileResult]:
    """Score PATH/data/CATEGORY/*.csv into OUTPUT/CATEGORY/*.csv, one result a file.

    Input columns are timestamp and value. An onset is written with its score, at least
    `threshold`; other events with theirs where it is below `threshold`, and 0 where an episode
    only goes on or where there is no score yet.

    Raises:
        EvaluationError: nothing to read, or a file that is none of this kind.
    """
    files = recordings(path)
    labels = read_labels(path)
    for file in files:
        recording = read_recording(file)
        score, onset = score_series(recording)
        _write(output, recording, written_score(score, onset, threshold))
        windows = None if labels is None else labels.get(recording.key, ())
        yield FileResult(
            recording.category,
            recording.name,
            len(score),
            int(onset.sum()),
            None if windows is None else len(windows),
            windows_found(recording, onset, windows or ()),
        )


def recordings(path: Path) -> list[Path]:
    """The corpus' files in order of category and name.

    Raises:
        EvaluationError: there are none.
    """
    if not path.is_dir():
        raise EvaluationError(f"{path}: no such folder; one with data/CATEGORY/*.csv is needed")
    files = sorted((path / "data").glob("*/*.csv"))
    if not files:
        raise EvaluationError(f"{path}: no data/CATEGORY/*.csv in it, so there is nothing to score")
    return files


def read_recording(file: Path) -> Recording:
    """The whole file.

    Raises:
        EvaluationError: naming the line that is wrong.
    """
    stamps: list[str] = []
    times: list[datetime] = []
    values: list[float] = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = {"timestamp", "value"} - set(reader.fieldnames or ())
            if missing:
                raise EvaluationError(
                    f"{file}: no column {' and no column '.join(sorted(missing))} in its first line"
                )
            for row in reader:
                place = f"{file}, line {reader.line_num}"
                stamps.append(row["timestamp"])
                times.append(read_time(row["timestamp"], f"{place}: timestamp"))
                values.append(read_number(row["value"], f"{place}: value"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{file}: can't be read: {error}") from error
    if not stamps:
        raise EvaluationError(f"{file}: no rows")
    return Recording(
        file.parent.name, file.name, tuple(stamps), tuple(times), np.array(values, dtype=np.float64)
    )


def read_labels(path: Path) -> Mapping[str, Sequence[Window]] | None:
    """PATH/labels/combined_windows.json: file → first and last moment of each window, if there.

    Raises:
        EvaluationError: it is something else.
    """
    file = path / "labels" / "combined_windows.json"
    if not file.exists():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {
            key: [(datetime.fromisoformat(a), datetime.fromisoformat(b)) for a, b in windows]
            for key, windows in found.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise EvaluationError(f"{file}: not the benchmark's labels: {error}") from error


def windows_found(recording: Recording, onset: BoolArray, windows: Sequence[Window]) -> int:
    """How many windows hold an onset."""
    hits = [recording.times[i] for i in np.flatnonzero(onset)]
    return sum(any(_utc(first) <= hit <= _utc(last) for hit in hits) for first, last in windows)


def written_score(score: FloatArray, onset: BoolArray, threshold: float) -> FloatArray:
    """What the benchmark reads, float64[n] in [0, 1]; no score counts as 0."""
    known = np.nan_to_num(score, nan=0.0)
    below = np.where(known < threshold, known, 0.0)
    return np.where(onset, np.maximum(known, threshold), below)


def read_time(text: str | None, place: str, *, example: str = "2014-04-01 00:05:00") -> datetime:
    """An aware time; UTC where it names no zone. `place` says where it stands, for the error.

    Raises:
        EvaluationError: it is none.
    """
    try:
        return _utc(datetime.fromisoformat(text or ""))
    except ValueError:
        raise EvaluationError(f"{place} {text!r} is no time such as {example}") from None


def read_number(text: str | None, place: str) -> float:
    """A finite number; `place` says where it stands, for the error.

    Raises:
        EvaluationError: it is none.
    """
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise EvaluationError(f"{place} {text!r} is no finite number")
    return value


def write_rows(target: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A CSV file, with the folders above it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def _write(output: Path, recording: Recording, written: FloatArray) -> None:
    columns = (recording.stamps, recording.value.tolist(), written.tolist())
    write_rows(
        output / recording.category / recording.name,
        ("timestamp", "value", "anomaly_score"),
        zip(*columns, strict=True),
    )


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
