"""Labels and reports as figures, counted by hand."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from anomalies.judged import figures
from anomalies.models import Anomaly
from detection.models import Evaluation
from streams.models import Series
from tests import builders

pytestmark = pytest.mark.django_db


def labelled(of: Series, label: str, minutes: int, **detectors: float | None) -> Anomaly:
    at = timezone.now() - timedelta(minutes=minutes)
    return builders.anomaly(of, at=at, label=label, detectors=detectors)


def reported(of: Series, minutes: int, label: str = "") -> Anomaly:
    at = timezone.now() - timedelta(minutes=minutes)
    return builders.anomaly(of, at=at, origin="manual", kind="manual", label=label, detectors={})


def world() -> Series:
    of = builders.series()
    labelled(of, "real", 10, online=0.9, zscore=None)
    labelled(of, "real", 200, online=0.85, zscore=0.81)
    labelled(of, "false_alarm", 300, online=0.7, zscore=0.95)
    labelled(of, "expected", 400, online=0.8, zscore=0.2)
    labelled(of, "", 500, online=0.99, zscore=0.99)
    reported(of, 205)  # five minutes from an alarm
    reported(of, 1000)  # nothing near
    reported(of, 1200, label="false_alarm")  # withdrawn
    return of


def test_labels_by_hand() -> None:
    of = world()
    found = figures(of.stream)
    assert (found["anomalies"], found["unlabelled"]) == (5, 1)
    assert found["labels"] == {"real": 2, "false_alarm": 1, "expected": 1}
    assert found["precision"] == 0.5
    online, zscore = found["detectors"]["online"], found["detectors"]["zscore"]
    assert (online["real"], online["false_alarm"], online["expected"]) == (2, 0, 1)
    assert online["precision"] == pytest.approx(2 / 3)
    assert zscore["precision"] == 0.5
    assert (found["reported"], found["reported_found"]) == (2, 1)
    assert found["recall_of_reported"] == 0.5
    assert found["days"] == pytest.approx(2.0)
    assert found["false_alarms_a_day"] == pytest.approx(0.5)
    assert found["alarms_a_day"] == pytest.approx(2.5)
    assert found["onsets_per_10000"] == pytest.approx(10.0)
    assert figures(of.stream, match_s=60)["reported_found"] == 0


def test_another_stream_and_no_labels_are_no_figures() -> None:
    world()
    empty = figures(builders.stream("empty"))
    assert empty["anomalies"] == empty["reported"] == 0
    assert empty["precision"] is empty["recall_of_reported"] is empty["alarms_a_day"] is None


def test_the_command_shows_and_keeps_them(tmp_path: Path) -> None:
    of = world()
    out, file = StringIO(), tmp_path / "labels.json"
    arguments = ["--stream", of.stream.name, "--keep", "--json", str(file)]
    call_command("evaluate", "labels", *arguments, stdout=out)
    assert "1 of 2 reported ones found" in out.getvalue()
    assert json.loads(file.read_text())["metrics"]["precision"] == 0.5
    kept = Evaluation.objects.get()
    assert (kept.kind, kept.stream, kept.model) == ("labels", of.stream, None)
    assert kept.metrics["recall_of_reported"] == 0.5
    with pytest.raises(CommandError, match="there is no stream 'other'; there is raw-data"):
        call_command("evaluate", "labels", "--stream", "other", stdout=out)
