"""Stored models: numbered, checked, and never two champions of one line."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from django.db import connection

from detection import model_store
from detection.errors import ArtefactCorrupt, ArtefactIncompatible, TransitionRefused
from detection.features import FEATURE_NAMES
from detection.models import ModelTransition, ModelVersion
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
    model = save(stream, metric="cpu")
    monkeypatch.setattr("detection.artefact.FEATURE_VERSION", 99)
    way_out = r"train --retrain --stream raw --algorithm isolation_forest --metric cpu"
    with pytest.raises(ArtefactIncompatible, match=f"start a training run.*{way_out}"):
        model_store.load(model.pk)
    with pytest.raises(ArtefactIncompatible, match=way_out):
        model_store.promote(model.pk)
    assert ModelVersion.objects.get().state == State.CANDIDATE


def states(stream: Stream) -> list[str]:
    return list(ModelVersion.objects.order_by("pk").values_list("state", flat=True))


@pytest.mark.django_db
def test_rolling_back_goes_down_the_champions_until_there_is_none(stream: Stream) -> None:
    models = [save(stream, seed) for seed in range(3)]
    for model in models:
        model_store.promote(model.pk)
    for present, before in ((2, 1), (1, 0)):
        done = model_store.roll_back(stream, "", "isolation_forest", actor="anna", reason="worse")
        assert done.left is not None
        assert done.back is not None
        assert (done.left.pk, done.back.pk) == (models[present].pk, models[before].pk)
    done = model_store.roll_back(stream, "", "isolation_forest", actor="anna")
    assert done.back is None
    assert states(stream) == [State.RETIRED] * 3
    with pytest.raises(TransitionRefused, match="no champion to roll back"):
        model_store.roll_back(stream, "", "isolation_forest")


@pytest.mark.django_db
def test_a_version_that_was_left_never_comes_back_by_rolling_back(stream: Stream) -> None:
    first, wrong, better = (save(stream, seed) for seed in range(3))
    for model in (first, wrong):
        model_store.promote(model.pk)
    model_store.roll_back(stream, "", "isolation_forest")
    model_store.promote(better.pk)
    assert model_store.roll_back(stream, "", "isolation_forest").back == first
    model_store.promote(wrong.pk)
    model_store.retire(wrong.pk, actor="anna")
    assert model_store.champion(stream, "", "isolation_forest") is None
    assert model_store.roll_back(stream, "", "isolation_forest").back == first


@pytest.mark.django_db
def test_rolling_back_to_none_and_a_line_of_its_own(stream: Stream) -> None:
    mine, other = save(stream), save(stream, metric="cpu")
    for model in (mine, other, save(stream, 1)):
        model_store.promote(model.pk)
    done = model_store.roll_back(stream, "", "isolation_forest", to_none=True)
    assert done.left is not None
    assert (done.left.version, done.back) == (2, None)
    assert model_store.champion(stream, "cpu", "isolation_forest") == other
    assert model_store.roll_back(stream, "", "isolation_forest").back == mine


@pytest.mark.django_db
def test_a_predecessor_that_is_broken_is_refused_with_a_way_out(stream: Stream) -> None:
    broken, present = save(stream), save(stream, 1)
    model_store.promote(broken.pk)
    model_store.promote(present.pk)
    payload = bytearray(broken.artefact)
    payload[-1] ^= 1
    ModelVersion.objects.filter(pk=broken.pk).update(artefact=bytes(payload))
    with pytest.raises(ArtefactCorrupt, match="roll back to none"):
        model_store.roll_back(stream, "", "isolation_forest")
    assert model_store.champion(stream, "", "isolation_forest") == present
    with pytest.raises(ArtefactCorrupt, match="isolation_forest v1 of raw"):
        model_store.challenge(broken.pk)


@pytest.mark.django_db
def test_champions_without_recorded_transitions_can_be_rolled_back_to(stream: Stream) -> None:
    old, present = save(stream), save(stream, 1)
    model_store.promote(old.pk)
    model_store.promote(present.pk)
    ModelTransition.objects.all().delete()
    assert model_store.previous_champion(stream, "", "isolation_forest") == old


@pytest.mark.django_db
def test_one_challenger_and_never_the_champion(stream: Stream) -> None:
    champion, one, other = (save(stream, seed) for seed in range(3))
    model_store.promote(champion.pk)
    model_store.challenge(one.pk, actor="anna")
    model_store.challenge(other.pk, actor="anna", reason="newer")
    assert states(stream) == [State.CHAMPION, State.CANDIDATE, State.CHALLENGER]
    with pytest.raises(TransitionRefused, match="is the champion"):
        model_store.challenge(champion.pk)
    model_store.promote(other.pk)
    assert states(stream) == [State.RETIRED, State.CANDIDATE, State.CHAMPION]


@pytest.mark.django_db
def test_every_change_is_recorded_with_who_made_it_and_why(stream: Stream) -> None:
    first, second = save(stream), save(stream, 1)
    model_store.promote(first.pk)
    model_store.challenge(second.pk, actor="anna", reason="looks better")
    model_store.promote(second.pk, actor="anna", reason="it is")
    model_store.roll_back(stream, "", "isolation_forest", actor="ben", reason="it was not")
    rows = ModelTransition.objects.order_by("pk")
    found = list(rows.values_list("model", "from_state", "to_state", "actor", "reason"))
    assert found == [
        (first.pk, "", "candidate", "vigil", "trained"),
        (second.pk, "", "candidate", "vigil", "trained"),
        (first.pk, "candidate", "champion", "vigil", ""),
        (second.pk, "candidate", "challenger", "anna", "looks better"),
        (second.pk, "challenger", "champion", "anna", "it is"),
        (first.pk, "champion", "retired", "anna", "v2 took its place"),
        (first.pk, "retired", "champion", "ben", "it was not"),
        (second.pk, "champion", "retired", "ben", "v1 took its place"),
    ]


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
