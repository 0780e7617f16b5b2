"""Stored models: numbered, checked, and never two champions of one line."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from django.db import connection

from detection import model_store
from detection.errors import ArtefactCorrupt, ArtefactIncompatible
from detection.features import FEATURE_NAMES
from detection.models import ModelVersion
from detection.training import Trained, train
from streams.models import Stream

State = ModelVersion.State


def trained(seed: int = 0) -> Trained:
    rows = np.random.default_rng(seed).normal(0, 1, (600, len(FEATURE_NAMES)))
    return train("isolation_forest", rows, seed=seed, params={"n_estimators": 5})


@pytest.fixture
def stream() -> Stream:
    return Stream.objects.create(name="raw", topic="raw")


def save(stream: Stream, seed: int = 0, metric: str = "") -> ModelVersion:
    return model_store.save(
        trained(seed), stream=stream, algorithm="isolation_forest", metric=metric
    )


@pytest.mark.django_db
def test_versions_count_up_for_each_stream_metric_and_algorithm(stream: Stream) -> None:
    other = Stream.objects.create(name="other", topic="other")
    saved = [save(stream), save(stream), save(stream, metric="cpu"), save(other)]
    assert [model.version for model in saved] == [1, 2, 1, 1]
    assert {model.state for model in saved} == {State.CANDIDATE}


@pytest.mark.django_db
def test_a_loaded_model_scores_as_the_trained_one(stream: Stream) -> None:
    model = save(stream, seed=3)
    row, detector = model_store.load(model.pk)
    rows = np.random.default_rng(9).normal(0, 2, (200, len(FEATURE_NAMES)))
    assert np.array_equal(detector.oddness(rows), trained(3).detector.oddness(rows))
    assert row.sha256 == trained(3).sha256


@pytest.mark.django_db
def test_promotion_retires_the_old_champion_and_rolling_back_works(stream: Stream) -> None:
    first, second = save(stream), save(stream, 1)
    model_store.promote(first.pk)
    model_store.promote(second.pk)
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, second.state) == (State.RETIRED, State.CHAMPION)
    assert first.retired_at is not None
    assert first.retired_at == second.promoted_at
    assert save(stream, 2).parent_id == second.pk
    model_store.promote(first.pk)
    back = ModelVersion.objects.get(pk=first.pk)
    assert (back.state, back.retired_at) == (State.CHAMPION, None)
    assert [model.pk for model in model_store.champions(stream)] == [first.pk]


@pytest.mark.django_db
def test_promoting_the_champion_again_changes_nothing(stream: Stream) -> None:
    model = save(stream)
    once = model_store.promote(model.pk)
    again = model_store.promote(model.pk)
    assert once.promoted_at == again.promoted_at


@pytest.mark.django_db
def test_every_flipped_byte_is_refused_and_the_champion_stays(stream: Stream) -> None:
    good, bad = save(stream), save(stream, 1)
    model_store.promote(good.pk)
    payload = bytes(bad.artefact)
    for at in (0, 9, 30, len(payload) // 2, len(payload) - 1):
        broken = bytearray(payload)
        broken[at] ^= 1
        ModelVersion.objects.filter(pk=bad.pk).update(artefact=bytes(broken))
        with pytest.raises(ArtefactCorrupt, match="isolation_forest v2 of raw"):
            model_store.promote(bad.pk)
    champion = model_store.champion(stream, "", "isolation_forest")
    assert champion is not None
    assert champion.pk == good.pk


@pytest.mark.django_db
def test_a_model_for_other_features_is_refused(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save(stream)
    monkeypatch.setattr("detection.artefact.FEATURE_VERSION", 99)
    with pytest.raises(ArtefactIncompatible, match="start a training run"):
        model_store.load(model.pk)


@pytest.mark.django_db(transaction=True)
def test_saving_and_promoting_at_once_gives_one_champion_and_no_lost_version() -> None:
    stream = Stream.objects.create(name="raw", topic="raw")
    model = trained()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(3):
                row = model_store.save(model, stream=stream, algorithm="isolation_forest")
                model_store.promote(row.pk)
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    versions = ModelVersion.objects.order_by("version").values_list("version", flat=True)
    assert list(versions) == list(range(1, 13))
    assert ModelVersion.objects.filter(state=State.CHAMPION).count() == 1
