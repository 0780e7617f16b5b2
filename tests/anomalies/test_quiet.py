"""What a budget of onsets leaves in the database, and what pages, API and admin say of it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from django.db import transaction
from django.test import Client

from anomalies import quiet
from anomalies.models import Anomaly, Candidate
from anomalies.store import AnomalySink
from config.wiring import load_model, scoring_base
from detection.models import ThresholdPolicy, VersionLog
from detection.scoring import ScoringEngine
from detection.thresholds import HELD_BACK, LEVELS, WOULD_OPEN
from detection.versions import compile_version, payload_of, store
from streams import checkpoint
from streams.batch import EventBatch
from streams.models import Rollup, Series, Stream
from streams.series import SeriesIndex
from streams.series_store import SeriesStore
from tests import builders
from tests.detection.series import walk

START = 1_704_067_200_000_000
EVENTS = 8_000
NOW = dt.datetime(2026, 5, 20, 12, tzinfo=dt.UTC)


def scored(stream: Stream, **policy: Any) -> tuple[int, int]:
    """Score a restless series of 10 s under a global policy; (anomalies, held back)."""
    if policy:
        ThresholdPolicy.objects.create(name="mine", **policy)
    owned = checkpoint.acquire(checkpoint.incarnation(stream, "id-1"), 0, "me")
    row = store(stream, payload_of(stream, scoring_base(settings.VIGIL)))
    VersionLog.objects.create(
        incarnation_id=owned.incarnation_id, partition=0, from_offset=0, scoring_version=row
    )
    version = compile_version(row.pk, row.payload, load_model)
    engine = ScoringEngine(SeriesIndex())
    engine.attach(0)
    sink = AnomalySink(stream, engine, lambda: NOW)
    code = engine.index.code("web-1", "cpu")
    offset = np.arange(EVENTS, dtype=np.int64)
    batch = EventBatch(
        START + offset * 10_000_000, np.full(EVENTS, code, dtype=np.int32),
        walk(EVENTS, 3).reshape(-1, 1), np.zeros(EVENTS, dtype=np.int32), offset,
        committable={0: EVENTS},
    )  # fmt: skip
    parts = [engine.process(batch, version, {})]
    SeriesStore().ensure(stream, engine.index)
    pending = sink.build(parts, {0: owned}, flush=True)
    sink.prepare(pending)
    with transaction.atomic():
        sink.write(pending)
    return Anomaly.objects.count(), Series.objects.get().held_back


@pytest.fixture
def stream(transactional_db: None) -> Stream:
    return Stream.objects.create(name="raw", topic="raw")


def test_what_is_held_back_is_a_marked_candidate_and_counted(stream: Stream) -> None:
    raised, held = scored(stream)
    marked = [c for c in Candidate.objects.all() if c.levels & HELD_BACK]
    would = [c for c in Candidate.objects.all() if c.levels & WOULD_OPEN]
    assert held == len(marked) > 3
    level = LEVELS.tolist().index(0.8)
    counted = sum(r.onset_counts[level] for r in Rollup.objects.exclude(onset_counts=None))
    assert counted == len(would) == held + raised, "what the rollups say of 0.8"
    assert not Anomaly.objects.filter(offset__in=[c.offset for c in marked]).exists()

    series = Series.objects.get()
    assert series.raised_threshold is not None
    found = quiet.of_series(series)
    assert found is not None
    assert found.acts
    assert (found.raised, found.without, found.held) == (raised, len(would), held)
    assert found.threshold == series.raised_threshold > found.policy.threshold == 0.8


def test_an_anomaly_names_the_threshold_in_effect_and_why(stream: Stream) -> None:
    scored(stream)
    first = Anomaly.objects.earliest("onset_at")
    assert (first.threshold, first.policy) == (0.8, "configuration")
    later = Anomaly.objects.filter(threshold__gt=0.8).earliest("onset_at")
    assert later.policy == "configuration, raised from 0.8: 1 a day"
    assert later.score >= later.threshold


def test_one_field_of_a_policy_switches_it_off(stream: Stream) -> None:
    raised, held = scored(stream, max_onsets_per_day=0)
    assert (held, Series.objects.get().raised_threshold) == (0, None)
    found = quiet.of_series(Series.objects.get())
    assert found is not None
    assert not found.acts
    assert not found.limited
    assert found.without == raised > 6
    assert set(Anomaly.objects.values_list("threshold", "policy")) == {(0.8, "mine v1")}


def test_an_empty_field_is_as_the_configuration_says(stream: Stream) -> None:
    ThresholdPolicy.objects.create(name="empty")
    ThresholdPolicy.objects.create(name="five", max_onsets_per_day=5, priority=1)
    base = {**scoring_base(settings.VIGIL), "max_onsets_per_day": 2.5}
    found = {p["name"]: p["max_onsets_per_day"] for p in payload_of(stream, base)["policies"]}
    assert found == {"five": 5, "empty": 2.5, "configuration": 2.5}


def test_the_series_page_says_with_and_without(web: Client, stream: Stream) -> None:
    raised, held = scored(stream)
    series = Series.objects.get()
    text = " ".join(web.get(f"/series/{series.pk}/?whole=1").content.decode().split())
    assert "at most 1 a day" in text
    assert "threshold raised from 0.80 to" in text
    assert f"{raised} a day instead of {raised + held}" in text
    assert f"{held} were held back" in text
    text = web.get("/").content.decode()
    assert f"Quiet: {held} onsets held back" in text
    one = Anomaly.objects.filter(threshold__gt=0.8).earliest("onset_at")
    assert "raised from 0.8: 1 a day" in web.get(f"/anomalies/{one.pk}/").content.decode()


def test_a_series_that_nobody_scored_has_nothing_to_say(web: Client, db: None) -> None:
    series = builders.series()
    text = web.get(f"/series/{series.pk}/?whole=1").content.decode()
    assert 'id="quiet"' not in text
    assert "raised to" not in text


def test_statistics_count_what_was_held_back(db: None) -> None:
    assert quiet.totals() == {"series_raised": 0, "held_back": 0}
    builders.series("a", held_back=7, raised_threshold=0.94)
    builders.series("b", held_back=5)
    assert quiet.totals() == {"series_raised": 1, "held_back": 12}


def test_the_admin_edits_the_budget(client: Client, db: None) -> None:
    client.force_login(builders.user(is_staff=True, is_superuser=True))
    given = {"name": "all", "enabled": "on", "priority": 0, "threshold": 0.8, "direction": "both",
             "min_absolute_deviation": 0, "min_relative_deviation": 0, "medium_from": 0.85,
             "high_from": 0.9, "critical_from": 0.95}  # fmt: skip
    path = "/admin/detection/thresholdpolicy/add/"
    for wrong in ("-1", "inf", "nan"):
        answer = client.post(path, {**given, "max_onsets_per_day": wrong})
        assert answer.status_code == 200, wrong
        assert not ThresholdPolicy.objects.exists()
    client.post(path, {**given, "max_onsets_per_day": "0"})
    assert ThresholdPolicy.objects.get().max_onsets_per_day == 0
