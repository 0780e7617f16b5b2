"""`manage.py evaluate` and the scorer behind it, on small recordings made here."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from django.core.management import CommandError, call_command

from config.evaluations.series import with_all_detectors
from config.offline import OfflineScorer, training_points
from config.schema import AnomalyDetection, Kafka, VigilConfig
from detection.base import FloatArray
from detection.evaluation import EvaluationError, Recording
from detection.injection import KINDS
from detection.metrics import onsets
from detection.recurring import BASES, FAULTS
from detection.registry import MODEL_DETECTORS
from tests.architecture.sources import PROJECT

START = datetime(2024, 1, 1, tzinfo=UTC)
SPIKE = slice(1500, 1503)


def daily(n: int = 2000, seed: int = 1) -> FloatArray:
    rng = np.random.default_rng(seed)
    return np.asarray(50 + 20 * np.sin(2 * np.pi * np.arange(n) / 288) + rng.normal(0, 1.0, n))


def recording(value: FloatArray, name: str = "spike.csv") -> Recording:
    times = tuple(START + timedelta(minutes=5 * i) for i in range(len(value)))
    stamps = tuple(f"{t:%Y-%m-%d %H:%M:%S}" for t in times)
    return Recording("made", name, stamps, times, value)


def spiky() -> Recording:
    value = daily()
    value[SPIKE] = 150.0
    return recording(value)


def corpus(root: Path) -> Path:
    file = root / "data" / "made" / "spike.csv"
    file.parent.mkdir(parents=True)
    made = spiky()
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("timestamp", "value"))
        writer.writerows(zip(made.stamps, made.value.tolist(), strict=True))
    return root


def test_an_episode_has_one_onset_at_its_first_event() -> None:
    score, onset = OfflineScorer(VigilConfig()).score(spiky())
    assert np.isnan(score[:30]).all()
    assert onset[1500]
    assert not onset[1501:1580].any()
    assert (score[SPIKE] >= 0.8).all()


def test_neither_the_batch_size_nor_other_files_change_a_bit() -> None:
    one = OfflineScorer(VigilConfig())
    small = OfflineScorer(VigilConfig(kafka=Kafka(batch_size=97)))
    small.score(recording(daily(500, 2), "other.csv"))
    for whole, cut in zip(one.score(spiky()), small.score(spiky()), strict=True):
        np.testing.assert_array_equal(whole, cut)


def test_a_row_that_the_codec_refuses_is_named() -> None:
    scorer = OfflineScorer(VigilConfig())
    scorer.score(recording(daily(10)))
    value = daily(10)
    value[4] = 1e305
    with pytest.raises(EvaluationError, match=r"made/huge\.csv, row 5: no event \(value\)"):
        scorer.score(recording(value, "huge.csv"))


@pytest.mark.slow
def test_the_command_needs_no_server(tmp_path: Path) -> None:
    nobody = {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "REDIS_URL": "redis://127.0.0.1:1/0",
    }
    command = [sys.executable, "manage.py", "evaluate", "nab", str(corpus(tmp_path / "in"))]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out")],
        cwd=PROJECT,
        env={**os.environ, **nobody},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "[1/1] made/spike.csv: 2,000 rows" in done.stdout
    assert "none labelled" in done.stdout
    with (tmp_path / "out" / "made" / "spike.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    score = np.array([float(row["anomaly_score"]) for row in rows])
    assert list(rows[0]) == ["timestamp", "value", "anomaly_score"]
    assert len(rows) == 2000
    assert (score[:30] == 0).all()
    assert score[1500] >= 0.8
    assert (score[1501:1580] < 0.8).all()


def test_mistakes_are_told_to_people(tmp_path: Path) -> None:
    def run(path: Path, output: Path) -> None:
        call_command("evaluate", "nab", str(path), "--output", str(output), stdout=StringIO())

    with pytest.raises(CommandError, match="no such folder"):
        run(tmp_path / "absent", tmp_path / "out")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(CommandError, match="taken"):
        run(corpus(tmp_path / "in"), tmp_path / "taken")


def test_models_train_on_the_recordings_own_past() -> None:
    value = daily(3000)
    value[2500:2503] = 150.0
    config = with_all_detectors(VigilConfig())
    scored = OfflineScorer(config).run(recording(value))
    stored = sorted(MODEL_DETECTORS)
    assert sorted(scored.names[-len(stored) :]) == stored
    first = training_points(3000)[0]
    for name in stored:
        vote = scored.votes[:, scored.names.index(name)]
        assert np.isnan(vote[:first]).all()
        assert np.isfinite(vote[first:]).all()
        assert vote[2500] > np.quantile(vote[first:], 0.99)
    # the model knows nothing of what comes later
    other = OfflineScorer(config).run(recording(value[:2600]))
    np.testing.assert_array_equal(other.votes, scored.votes[:2600])
    without = OfflineScorer(config, models=False).run(recording(value))
    assert not set(without.names) & set(stored)
    np.testing.assert_array_equal(without.votes, scored.votes[:, : len(without.names)])


def test_training_is_repeated_when_history_has_grown_fourfold() -> None:
    assert training_points(1150) == []
    assert training_points(20_000) == [1150, 4600, 18_400]


def test_normal_counts_onsets_of_each_detector(tmp_path: Path) -> None:
    out, file = StringIO(), tmp_path / "normal.json"
    arguments = ["--shape", "normal", "--shape", "heavy_tails", "--seeds", "1", "--events", "3000"]
    call_command("evaluate", "normal", "--no-models", "--json", str(file), *arguments, stdout=out)
    found = json.loads(file.read_text())
    assert list(found["metrics"]) == ["normal", "heavy_tails"]
    row = found["metrics"]["heavy_tails"]
    assert set(row) == {"ensemble", "online", "zscore", "shift"}
    assert row["ensemble"]["after_2000"] == 10.0 * row["ensemble"]["onsets"]
    assert row["ensemble"]["after_10000"] is None
    assert found["settings"]["threshold"] == 0.8
    assert "heavy_tails" in out.getvalue()


def test_onsets_from_scores_are_those_of_the_engine() -> None:
    value = np.random.default_rng(5).standard_t(2, 6000)
    scored = OfflineScorer(VigilConfig(), models=False).run(recording(value))
    alone = onsets(np.nan_to_num(scored.score) >= 0.8, scored.time_us, 80, 86_400e6)
    assert len(alone) > 3
    assert alone.tolist() == np.flatnonzero(scored.onset).tolist()


def test_injected_counts_faults_by_kind(tmp_path: Path) -> None:
    out, file = StringIO(), tmp_path / "injected.json"
    arguments = ["--shape", "daily", "--seeds", "1", "--events", "7000", "--no-models"]
    call_command("evaluate", "injected", *arguments, "--json", str(file), stdout=out)
    metrics = json.loads(file.read_text())["metrics"]
    kinds = metrics["kinds"]
    assert set(kinds) == set(KINDS)
    assert kinds["spike"] == {"faults": 1, "found": 1, "recall": 1.0, "delay_events": 0.0}
    assert metrics["all"]["faults"] == sum(kind["faults"] for kind in kinds.values())
    assert metrics["all"]["found"] == sum(kind["found"] for kind in kinds.values())
    assert metrics["all"] == metrics["groups"]["daily"]
    assert 0.3 < metrics["all"]["pr_auc"] <= 1
    assert 0.3 < metrics["all"]["vus_pr"] <= 1
    assert "recurring_spike" in out.getvalue()


def test_injected_takes_recordings_of_ones_own(tmp_path: Path) -> None:
    root = tmp_path / "in"
    file = root / "data" / "mine" / "a.csv"
    file.parent.mkdir(parents=True)
    made = recording(daily(4000))
    with file.open("w", newline="") as stream:
        rows = zip(made.stamps, made.value.tolist(), strict=True)
        csv.writer(stream).writerows([("timestamp", "value"), *rows])
    out = StringIO()
    arguments = ["--path", str(root), "--seeds", "1", "--kind", "spike", "--no-models"]
    call_command("evaluate", "injected", *arguments, stdout=out)
    assert "mine" in out.getvalue()
    with pytest.raises(CommandError, match="give longer ones"):
        call_command("evaluate", "injected", "--events", "1500", "--no-models", stdout=out)
    with pytest.raises(CommandError, match="no such folder"):
        call_command("evaluate", "injected", "--path", str(tmp_path / "absent"), stdout=out)


@pytest.mark.slow
def test_recurring_tells_occurrences_apart(tmp_path: Path) -> None:
    out, file = StringIO(), tmp_path / "recurring.json"
    call_command(
        "evaluate", "recurring", "--seeds", "1", "--no-models", "--json", str(file), stdout=out
    )
    metrics = json.loads(file.read_text())["metrics"]
    assert list(metrics["all"]) == ["1st", "2nd", "3rd", "4th", "5th+"]
    assert metrics["all"]["1st"] > 0.85
    assert metrics["all"]["5th+"] > 0.8
    assert set(metrics) == {"all", *FAULTS, *(f"on {base}" for base in BASES)}


def test_weights_come_as_configuration_to_paste(tmp_path: Path) -> None:
    out, file = StringIO(), tmp_path / "weights.json"
    arguments = ["--shape", "daily", "--seeds", "1", "--events", "7000", "--no-models"]
    call_command("evaluate", "weights", *arguments, "--json", str(file), stdout=out)
    metrics = json.loads(file.read_text())["metrics"]
    pasted = yaml.safe_load(out.getvalue().partition("To use them:\n")[2])["anomaly_detection"]
    assert pasted["combine"] == "weighted"
    assert pasted["threshold"] == pytest.approx(metrics["threshold"], abs=1e-3)
    assert set(pasted["weights"]) == {"online", "zscore", "shift"}
    detection = AnomalyDetection(**pasted)  # the configuration takes it as it is
    assert max(detection.weights.values()) == 1.0
    assert metrics["learnt"]["false_per_10000"] <= 3.0
    assert metrics["held_out"]["f1"] > 0.5
