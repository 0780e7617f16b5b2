"""Challengers score beside the champions, alert nobody, and are counted once and exactly."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from django.db import transaction

from anomalies.models import Anomaly, Outbox
from anomalies.store import AnomalySink
from config.wiring import load_model, scoring_base
from detection import bins, challengers, model_store
from detection.base import FloatArray
from detection.challengers import CHALLENGER, CHALLENGER_ONSET, CHAMPION, CHAMPION_ONSET
from detection.ensemble import Ensemble
from detection.features import FEATURE_NAMES
from detection.models import Disagreement, FeatureHour, ModelVersion, ShadowHour
from detection.scoring import (
    TRUSTED_AFTER,
    CompiledVersion,
    LoadedModel,
    ScoredBatch,
    ScoringEngine,
)
from detection.state import StateStore
from detection.tally import SAMPLES, Tallier, Tally
from detection.training import train
from detection.versions import compile_version, payload_of
from streams import checkpoint
from streams.batch import EventBatch
from streams.checkpoint import Owned
from streams.models import Stream
from streams.series import SeriesIndex
from streams.series_store import SeriesStore

START = 1_704_067_200_000_000
STEPS = 1_500
NOW = dt.datetime(2026, 5, 20, 12, tzinfo=dt.UTC)


class Residual:
    """A stored model that alarms where a feature is this large."""

    name = "isolation_forest"

    def __init__(self, level: float) -> None:
        self.level = level

    def oddness(self, features: FloatArray) -> FloatArray:
        return np.asarray(np.abs(features[:, 0]) / self.level)


def model(level: float, metric: str = "", identity: int = 7) -> LoadedModel:
    return LoadedModel("isolation_forest", metric, 1, "x", Residual(level), identity)


def version(challenger: LoadedModel | None, *champions: LoadedModel) -> CompiledVersion:
    payload = {**scoring_base(settings.VIGIL), "time_zone": "UTC", "policies": [], "models": []}
    made = compile_version(0, payload, load_model)
    # weights of 1, so that the models decide
    return replace(
        made,
        models=champions,
        challengers=() if challenger is None else (challenger,),
        ensemble=Ensemble("max", {"online": 0.2, "zscore": 0.0, "isolation_forest": 1.0}),
    )


def events(index: SeriesIndex, start: int, end: int, partition: int = 0) -> EventBatch:
    """Three series of two metrics, noisy, every 20 s."""
    names = [("web-1", "cpu"), ("web-2", "cpu"), ("web-1", "mem")]
    codes = np.array([index.code(*name) for name in names], dtype=np.int32)
    offset = np.arange(3 * start, 3 * end, dtype=np.int64)
    step = offset // 3
    noise = np.random.default_rng(3).standard_t(4, 3 * STEPS)
    return EventBatch(
        START + step * 20_000_000, codes[offset % 3],
        (50 + noise[offset]).reshape(-1, 1), np.full(len(offset), partition, dtype=np.int32),
        offset, committable={partition: 3 * end},
    )  # fmt: skip


def engine() -> ScoringEngine:
    made = ScoringEngine(SeriesIndex())
    made.attach(0)
    return made


def judged(counted: CompiledVersion, cuts: list[int], restart_at: int = -1) -> list[ScoredBatch]:
    made, parts = engine(), []
    for start, end in zip([0, *cuts], [*cuts, STEPS], strict=True):
        if start == restart_at:
            slots = made.slots_of(0)
            codes = made.slot_code[slots]
            rows, layout, names = made.pack(slots), made.layouts(slots)[0], made.index.names
            made = engine()
            again = [made.index.code(*names[c]) for c in codes.tolist()]
            made.restore(0, np.array(again, dtype=np.int32), layout, rows)
        parts.append(made.process(events(made.index, start, end), counted, {}))
    return parts


def flags(parts: list[ScoredBatch]) -> list[tuple[int, int]]:
    """(offset, flag) in the order of the log, whatever the batches."""
    return sorted(
        (int(p.events.offset[i]), int(f))
        for p in parts
        for s in p.shadows
        for i, f in zip(s.at, s.flags, strict=True)
    )


def test_the_rule_is_that_of_episodes_on_either_side() -> None:
    store = StateStore([challengers.component("a")])
    slots = store.allocate(2)
    time = np.arange(8, dtype=np.int64) * 1_000_000
    time[7] += 60_000_000
    champion = np.array([1, 1, 0, 0, 1, 0, 1, 1], dtype=bool)
    other = np.array([0, 1, 0, 1, 0, 0, 0, 1], dtype=bool)

    def compared(first: int, end: int, of: int = 1) -> list[int]:
        cut = slice(first, end)
        found = challengers.compare(
            store.rows("shadow_a"), np.full(end - first, slots[0]), time[cut], champion[cut],
            other[cut], model=of, of_metric=False, quiet_events=2, max_gap_us=30_000_000,
        )  # fmt: skip
        return [int(x) for x in found]

    a, b, first_a, first_b = CHAMPION, CHALLENGER, CHAMPION_ONSET, CHALLENGER_ONSET
    # after two quiet events, or a gap of a minute, the next is an onset again
    assert compared(0, 3) + compared(3, 8) == [
        a + first_a, a + b + first_b, 0, b, a + first_a, 0, a, a + b + first_a + first_b,
    ]  # fmt: skip
    # another model begins anew
    assert compared(6, 7, of=2) == [a + first_a]


def test_cuts_and_restarts_change_nothing_and_episodes_are_the_champions_alone() -> None:
    champion, challenger = model(7.0, identity=1), model(5.0, identity=2)
    counted = version(challenger, champion)
    whole = judged(counted, [])
    found = flags(whole)
    onsets = sum(f & CHALLENGER_ONSET > 0 for _, f in found)
    assert onsets > sum(f & CHAMPION_ONSET > 0 for _, f in found) > 3
    assert {f & 3 for _, f in found} == {0, 2, 3}
    cuts = list(range(1, STEPS, 7))
    assert flags(judged(counted, cuts)) == found
    assert flags(judged(counted, [400, 900], restart_at=900)) == found
    alone = judged(version(None, champion), [])
    assert alone[0].shadows == ()
    for name in ("score", "votes"):
        assert getattr(alone[0], name).tobytes() == getattr(whole[0], name).tobytes()
    assert (alone[0].outcome.change == whole[0].outcome.change).all()
    # What would have been its onsets are those of the ensemble with it in the champion's place.
    promoted = judged(version(None, challenger), [])[0]
    over = promoted.outcome.severity[whole[0].shadows[0].at] > 0
    assert over.tolist() == [bool(f & CHALLENGER) for f in whole[0].shadows[0].flags]
    assert (promoted.score[whole[0].shadows[0].at] == whole[0].shadows[0].score).all()


def test_it_scores_what_it_would_serve() -> None:
    mem = version(model(5.0, "mem"), model(7.0, identity=1))
    for part in judged(mem, []):
        metrics = [part.events.series[i] for i in part.shadows[0].at]
        assert {int(c) for c in metrics} == {2}
        assert (part.detail.seen[part.shadows[0].at] >= TRUSTED_AFTER).all()
    # a champion of mem's own goes on serving mem if the one for all is replaced
    rest = version(model(5.0), model(7.0, identity=1), model(9.0, "mem", 3))
    assert {int(c) for p in judged(rest, []) for c in p.events.series[p.shadows[0].at]} == {0, 1}
    added = judged(version(model(5.0)), [])[0]
    assert added.shadows[0].champion_us == 0
    assert "isolation_forest" not in added.version.names


def test_counts_are_those_of_the_events() -> None:
    parts = judged(version(model(5.0, identity=2), model(7.0, identity=1)), [333, 800])
    tally = Tally()
    index = SeriesIndex()
    events(index, 0, 1)
    index.learn_ids(np.arange(3), np.arange(3) + 10)
    tallier = Tallier(index)
    for part in parts:
        tallier.add(tally, part, {0: 1})
    total = np.sum(list(tally.shadow.values()), axis=0)
    found = [f for _, f in flags(parts)]
    assert total[0] == len(found) == 3 * (STEPS - TRUSTED_AFTER)
    assert total[1:6].tolist() == [
        sum(f & 3 == 3 for f in found), sum(f & 3 == 1 for f in found),
        sum(f & 3 == 2 for f in found), sum(f & 4 > 0 for f in found),
        sum(f & 8 > 0 for f in found),
    ]  # fmt: skip
    assert len(tally.shadow) == len({key[1] for key in tally.shadow}) == 9  # hours
    # every sixteenth event, and of each as many as it has features
    assert {key[3] for key in tally.features} == {(*FEATURE_NAMES, "score:1")}
    sampled = np.sum(list(tally.features.values()), axis=0).sum(axis=1).tolist()
    assert len(set(sampled)) == 1
    assert 0.045 < sampled[0] / len(found) < 0.08


def test_a_value_falls_into_the_bin_whose_edges_hold_it() -> None:
    edges = bins.edges_of(("level", "score:3"))
    assert edges.shape == (2, bins.BINS - 1)
    assert (np.diff(bins.edges_of(FEATURE_NAMES), axis=1) > 0).all()
    values = np.array([[-1.0, 0.0], [-0.9, 0.05], [0.0, np.nan], [1.0, 0.999]])
    counts = bins.count(values, edges)
    assert [int(x) for x in np.flatnonzero(counts[0, 0])] == [0, 9, 19]
    assert [int(x) for x in np.flatnonzero(counts[0, 1])] == [0, 19]
    assert counts.sum() == 7


# -- with the database ---------------------------------------------------------------------------


def write(
    stream: Stream, owned: Owned, made: ScoringEngine, sink: AnomalySink, counted: CompiledVersion,
    start: int, end: int,
) -> None:  # fmt: skip
    """What the runner does with a batch: silent below the stored offset, all in one transaction."""
    batch = events(made.index, start, end)
    scored = made.process(batch, counted, {0: owned.next_offset})
    SeriesStore().ensure(stream, made.index)
    loud = int((batch.offset >= owned.next_offset).sum())
    pending = sink.build([scored], {0: owned}, flush=False, replaying=() if loud else (0,))
    if not loud:
        return
    move = checkpoint.Move(owned, 3 * end, loud, 0, None)
    sink.prepare(pending)
    with transaction.atomic():
        checkpoint.advance([move])
        sink.write(pending)
    checkpoint.committed([move])


def counted_rows() -> list[Any]:
    """All that grows, but the time it took."""
    names = [
        f.attname
        for f in ShadowHour._meta.concrete_fields
        if f.name not in ("id", "champion_us", "challenger_us", "challenger")
    ]
    samples = ["series__source", "series__metric", "partition", "offset", "event_at", "value",
               "champion_score", "challenger_score"]  # fmt: skip
    return [
        sorted(ShadowHour.objects.values_list(*names)),
        sorted(Disagreement.objects.values_list(*samples)),
        sorted(FeatureHour.objects.values_list("metric", "hour", "partition", "feature", "counts")),
    ]


@pytest.mark.django_db(transaction=True)
def test_each_event_counts_once_whatever_the_batches_and_replays() -> None:
    stream = Stream.objects.create(name="raw", topic="raw")
    row = ModelVersion.objects.create(
        stream=stream, algorithm="isolation_forest", version=1, sha256="x", artefact=b"",
        state="challenger",
    )  # fmt: skip
    counted = version(model(4.0, identity=row.pk), model(7.0, identity=1))

    def run(topic_id: str, cuts: list[int], crash_at: int | None = None) -> list[Any]:
        for table in (ShadowHour, Disagreement, FeatureHour):
            table.objects.all().delete()
        owned = checkpoint.acquire(checkpoint.incarnation(stream, topic_id), 0, "me")
        made = engine()
        sink = AnomalySink(stream, made, lambda: NOW)
        for start, end in zip([0, *cuts], [*cuts, STEPS], strict=True):
            if start == crash_at:
                # another process: no snapshot, so all that was stored runs again in silence
                made = engine()
                sink = AnomalySink(stream, made, lambda: NOW)
                write(stream, owned, made, sink, counted, 0, start - 50)
                write(stream, owned, made, sink, counted, start - 50, end)
                continue
            write(stream, owned, made, sink, counted, start, end)
        return counted_rows()

    expected = run("one", [])
    hours, samples, features = expected
    assert sum(h[2] for h in hours) == 3 * (STEPS - TRUSTED_AFTER)
    differing = sum(h[4] + h[5] for h in hours)
    assert 0 < len(samples) <= differing
    assert len(samples) == sum(min(SAMPLES, h[4] + h[5]) for h in hours)
    assert {f[3] for f in features} == {*FEATURE_NAMES, "score:1"}
    assert run("two", list(range(1, STEPS, 37))) == expected
    assert run("three", [400, 900, 1_200], crash_at=900) == expected
    # It alerts nobody: every anomaly is the champion's ensemble's.
    alone = engine()
    only = alone.process(events(alone.index, 0, STEPS), replace(counted, challengers=()), {})
    onsets = int((only.outcome.change == 1).sum())
    assert onsets > 0
    assert Anomaly.objects.filter(incarnation__topic_id="one").count() == onsets
    assert Outbox.objects.filter(kind="onset").count() == 3 * onsets


@pytest.mark.django_db(transaction=True)
def test_a_transaction_that_was_fenced_off_counts_nothing() -> None:
    stream = Stream.objects.create(name="raw", topic="raw")
    owned = checkpoint.acquire(checkpoint.incarnation(stream, "id"), 0, "me")
    made = engine()
    sink = AnomalySink(stream, made, lambda: NOW)
    write(stream, owned, made, sink, version(None), 0, 400)
    before = counted_rows()
    checkpoint.acquire(checkpoint.incarnation(stream, "id"), 0, "another")
    with pytest.raises(checkpoint.FencedError):
        write(stream, owned, made, sink, version(None), 400, 800)
    assert counted_rows() == before
    assert before[2]


@pytest.mark.django_db
def test_a_challenger_is_part_of_the_version_and_a_broken_one_is_passed_over() -> None:
    stream = Stream.objects.create(name="raw", topic="raw")
    base = scoring_base(settings.VIGIL)
    assert "challengers" not in payload_of(stream, base)
    rows = np.random.default_rng(1).normal(size=(1_200, len(FEATURE_NAMES)))
    trained = train("isolation_forest", rows, seed=1, params={"n_estimators": 5})
    saved = model_store.save(trained, stream=stream, algorithm="isolation_forest")
    ModelVersion.objects.filter(pk=saved.pk).update(state="challenger")
    payload = payload_of(stream, base)
    assert [c["id"] for c in payload["challengers"]] == [saved.pk]
    compiled = compile_version(0, payload, load_model)
    assert [c.id for c in compiled.challengers] == [saved.pk]
    assert compiled.models == ()
    ModelVersion.objects.filter(pk=saved.pk).update(artefact=b"broken")
    assert compile_version(0, payload, load_model).challengers == ()
