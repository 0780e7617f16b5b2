"""How good detection is: the NAB corpus scored causally, with one configuration for all files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detection.base import FloatArray, IntArray, ScoringInput, SeriesOutput
from detection.detectors.online import OnlineDetector
from detection.detectors.zscore import ZScoreDetector
from detection.ensemble import (
    DEFAULT_METHOD,
    combine,
    score_from_oddness,
    stack,
    weights_for,
)
from detection.state import StateStore

BoolArray = NDArray[np.bool_]
# (epoch_s int64[n], value float64[n]) of one series → (score float64[n], nan = none; onset bool[n])
ScoreSeries = Callable[[IntArray, FloatArray], tuple[FloatArray, BoolArray]]

THRESHOLD = 0.8
QUIET_EVENTS = 80


def evaluate_nab(
    path: Path, output: Path, score_series: ScoreSeries | None = None, threshold: float = THRESHOLD
) -> int:
    """Score PATH/data/CATEGORY/*.csv into OUTPUT/CATEGORY/*.csv; the number of files.

    Input columns are timestamp (without a zone, taken as UTC) and value. An onset is written with
    its score, at least `threshold`; other events with theirs where it is below `threshold`, and 0
    where an episode only goes on. `score_series` sees each file as a new series.
    """
    score_series = score_default if score_series is None else score_series
    count = 0
    for source in sorted((path / "data").glob("*/*.csv")):
        stamps, epoch_s, value = _read(source)
        score, onset = score_series(epoch_s, value)
        target = output / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("timestamp", "value", "anomaly_score"))
            written = written_score(score, onset, threshold)
            writer.writerows(zip(stamps, value.tolist(), written.tolist(), strict=True))
        count += 1
    if count == 0:
        raise FileNotFoundError(f"no data/CATEGORY/*.csv under {path}")
    return count


def score_default(epoch_s: IntArray, value: FloatArray) -> tuple[FloatArray, BoolArray]:
    """The default ensemble on one series, with its announcements."""
    score, alarm = score_ensemble(epoch_s, value)
    return score, announcements(score, alarm)


def score_ensemble(epoch_s: IntArray, value: FloatArray) -> tuple[FloatArray, BoolArray]:
    """(score of the default ensemble, the online detector's own onsets) of one series."""
    detectors = (OnlineDetector(), ZScoreDetector())
    store = StateStore([detector.component for detector in detectors])
    inputs = ScoringInput(np.repeat(store.allocate(1), len(value)), epoch_s, value)
    out = SeriesOutput.empty(len(value))
    columns = [
        detectors[0].score(store.rows("online"), inputs, out),
        detectors[1].score(store.rows("zscore"), inputs),
    ]
    weights = weights_for([detector.name for detector in detectors])
    return score_from_oddness(combine(stack(columns), DEFAULT_METHOD, weights)), out.onset


def announcements(
    score: FloatArray, alarm: BoolArray, threshold: float = THRESHOLD, quiet: int = QUIET_EVENTS
) -> BoolArray:
    """Episode onsets, and updates: own new alarms of the detector (`alarm`) inside an episode."""
    return episode_onsets(score, threshold, quiet) | (alarm & (score >= threshold))


def episode_onsets(score: FloatArray, threshold: float, quiet: int) -> BoolArray:
    """bool[n]: first event at or over the threshold after more than `quiet` events below it."""
    over = np.flatnonzero(score >= threshold)
    onset = np.zeros(len(score), np.bool_)
    if len(over):
        onset[over[np.diff(over, prepend=-quiet - 2) > quiet]] = True
        onset[over[0]] = True
    return onset


def written_score(score: FloatArray, onset: BoolArray, threshold: float = THRESHOLD) -> FloatArray:
    """What the benchmark reads, float64[n] in [0, 1]; no score counts as 0."""
    known = np.nan_to_num(score, nan=0.0)
    below = np.where(known < threshold, known, 0.0)
    return np.where(onset, np.maximum(known, threshold), below)


def _read(source: Path) -> tuple[list[str], IntArray, FloatArray]:
    rows = list(_rows(source))
    stamps = [stamp for stamp, _ in rows]
    epoch_s = np.array([_epoch_s(stamp) for stamp in stamps], dtype=np.int64)
    return stamps, epoch_s, np.array([value for _, value in rows])


def _rows(source: Path) -> Iterator[tuple[str, float]]:
    with source.open(newline="") as stream:
        for row in csv.DictReader(stream):
            yield row["timestamp"], float(row["value"])


def _epoch_s(stamp: str) -> int:
    return int(datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp())
