"""From learning to use: stored, chosen by command or page, part of a scoring version."""

from __future__ import annotations

import dataclasses
from io import StringIO
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from config.wiring import load_model, scoring_base
from detection import learnt_weights, live_at, versions
from detection.errors import TransitionRefused
from detection.models import LearntWeights, ScoringVersion
from detection.versions import VersionKeeper, compile_version, ensemble_of, payload_of
from detection.weights import Learnt
from streams.models import Stream
from tests import builders
from tests.detection.test_tuning_run import web

pytestmark = pytest.mark.django_db

FOUND = Learnt("weighted", {"online": 0.5, "zscore": 0.25, "shift": 1.0}, 0.62, 0.6, 0.7, 0.5, 2.9)


def base() -> dict[str, Any]:
    return scoring_base(settings.VIGIL)


def learnt(stream: Stream, **more: Any) -> LearntWeights:
    metrics = {"held_out": {"f1": 0.61, "false_per_10000": 2.9},
               "configured": {"f1": 0.57, "false_per_10000": 2.3}}  # fmt: skip
    found = dataclasses.replace(FOUND, **more)
    return learnt_weights.save(stream, found, metrics=metrics, settings={}, actor="anna")


def test_a_learnt_threshold_becomes_a_gain_so_that_0_8_stays_the_alarm_level() -> None:
    stream = builders.stream()
    row = learnt(stream)
    learnt_weights.use(row.pk, "anna")
    ensemble = ensemble_of(payload_of(stream, base()))
    names = ("online", "zscore", "shift", "isolation_forest")
    level = -np.log(1 - 0.62) / np.log(5)
    votes = np.array([[level, level, level, np.nan], [level, level, level, 99.0]])
    # what no weight was learnt of has none in a mean
    np.testing.assert_allclose(ensemble.oddness(votes, names), [1.0, 1.0])
    assert learnt(stream, method="max", threshold=0.8).gain == 1.0


def test_what_counts_is_the_set_in_use_else_the_configuration_and_both_are_hashed() -> None:
    stream = builders.stream()
    before = payload_of(stream, base())
    assert "learnt" not in before
    first, second = learnt(stream), learnt(stream, method="max", threshold=0.8)
    assert payload_of(stream, base()) == before  # candidates change nothing
    learnt_weights.use(first.pk, "anna")
    during = payload_of(stream, base())
    assert versions.store(stream, during).sha256 != versions.store(stream, before).sha256
    assert compile_version(0, during, load_model).ensemble.weights["online"] == 0.5
    learnt_weights.use(second.pk, "olga")
    first.refresh_from_db()
    assert (first.state, first.changed_by) == ("retired", "olga")
    forest = base()["weights"]["isolation_forest"]
    assert ensemble_of(payload_of(stream, base())).weights["isolation_forest"] == forest
    learnt_weights.leave(second.pk, "olga")
    assert payload_of(stream, base()) == before
    with pytest.raises(TransitionRefused, match="not in use: nothing to leave"):
        learnt_weights.leave(second.pk, "olga")


def test_wide_events_keep_their_own_weights() -> None:
    stream = builders.stream()
    learnt_weights.use(learnt(stream).pk, "anna")
    version = compile_version(0, payload_of(stream, base()), load_model)
    assert version.vector is not None
    vectors = version.for_vectors(version.vector)
    assert (vectors.ensemble.method, vectors.ensemble.gain) == ("max", 1.0)
    assert vectors.ensemble.weights == base()["weights"]
    assert version.ensemble.method == "weighted"


def test_a_running_consumers_next_look_takes_it_up_and_what_was_live_tells_it() -> None:
    stream = builders.stream()
    keeper = VersionKeeper(stream, base(), load_model)
    assert keeper.refresh()
    assert not keeper.refresh()
    row = learnt_weights.use(learnt(stream).pk, "anna")
    assert keeper.refresh()
    one = live_at.LiveVersion(ScoringVersion.objects.get(pk=keeper.desired))
    assert (one.learnt, one.method, one.weights["shift"]) == (row.pk, "weighted", 1.0)


def test_the_command_lists_uses_and_leaves() -> None:
    def said(*words: str) -> str:
        out = StringIO()
        call_command("weights", *words, stdout=out)
        return out.getvalue()

    assert "evaluate weights --store STREAM" in said()
    row = learnt(builders.stream())
    assert "F1 0.61" in said()
    assert f"weights {row.pk} count for raw-data" in said("--use", str(row.pk))
    assert "in use" in said()
    assert "the configuration's weights count" in said("--leave", str(row.pk))
    with pytest.raises(CommandError, match="not in use"):
        said("--leave", str(row.pk))
    with pytest.raises(CommandError, match="there are no learnt weights 99999"):
        said("--use", "99999")


def test_learning_stores_a_set_for_the_stream_and_refuses_before_it_begins() -> None:
    builders.stream()
    few = ["--shape", "daily", "--seeds", "1", "--events", "7000", "--no-models"]
    out = StringIO()
    call_command("evaluate", "weights", *few, "--store", "raw-data", "--use", stdout=out)
    row = LearntWeights.objects.get()
    better = row.metrics["held_out"]["f1"] >= row.metrics["configured"]["f1"]
    assert (row.state, row.method) == ("in use" if better else "candidate", "weighted")
    assert set(row.weights) == {"online", "zscore", "shift"}
    assert set(row.metrics) >= {"learnt", "held_out", "configured"}
    said = f"Weights {row.pk} count for" if better else f"Kept as set {row.pk}, not used"
    assert said in out.getvalue()
    for words, allowed in (
        (["--store", "nowhere"], "no stream 'nowhere'; there is raw-data"),
        (["--stream", "nowhere"], "no stream 'nowhere'; there is raw-data"),
        (["--use"], "--use needs --store STREAM"),
    ):
        with pytest.raises(CommandError, match=allowed):
            call_command("evaluate", "weights", *few, *words, stdout=out)


def test_the_page_shows_figures_and_only_operators_change() -> None:
    stream = builders.stream()
    versions.store(stream, payload_of(stream, base()))
    row = learnt(stream)
    text = web(operator=False).get("/models/weights/").content.decode()
    assert "0.61" in text
    assert f"/models/weights/{row.pk}/use" not in text
    assert web(operator=False).post(f"/models/weights/{row.pk}/use").status_code == 403
    assert web().post(f"/models/weights/{row.pk}/use").status_code == 302
    row.refresh_from_db()
    assert row.state == "in use"
    assert f"learnt, set {row.pk}" in web().get("/models/weights/").content.decode()
    assert web().post(f"/models/weights/{row.pk}/leave").status_code == 302
    assert web().post(f"/models/weights/{row.pk}/leave").status_code == 302  # twice is told
    assert web().post(f"/models/weights/{row.pk}/burn").status_code == 404
    assert web().post("/models/weights/99999/use").status_code == 404


def test_an_anomaly_shows_the_weights_it_was_scored_with() -> None:
    series = builders.series()
    learnt_weights.use(learnt(series.stream).pk, "anna")
    version = versions.store(series.stream, payload_of(series.stream, base()))
    anomaly = builders.anomaly(series)
    anomaly.scoring_version = version
    anomaly.detectors = {"online": 0.91, "zscore": 0.3, "ensemble": 0.9}
    anomaly.save()
    text = web().get(f"/anomalies/{anomaly.pk}/").content.decode()
    assert "weight 0.5" in text
    assert "the mean by weight" in text
