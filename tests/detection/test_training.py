from __future__ import annotations

import numpy as np
import pytest

from detection import artefact
from detection.base import FloatArray
from detection.detectors.isolation_forest import IsolationForestDetector
from detection.errors import ArtefactCorrupt, ArtefactIncompatible, NotEnoughData, UnknownDetector
from detection.features import FEATURE_NAMES, FEATURE_SETS
from detection.registry import MODEL_DETECTORS, create_series_detector, series_detectors
from detection.training import restore, train


def history(n: int = 3000) -> FloatArray:
    return np.random.default_rng(4).normal(0, 1, (n, len(FEATURE_NAMES)))


def test_equal_history_and_seed_give_equal_bytes() -> None:
    params = {"n_estimators": 20}
    first = train("isolation_forest", history(), seed=7, params=params)
    again = train("isolation_forest", history(), seed=7, params=params)
    other = train("isolation_forest", history(), seed=8, params=params)
    assert first.payload == again.payload
    assert first.sha256 == again.sha256 != other.sha256


def test_a_stored_model_scores_as_the_trained_one() -> None:
    trained = train(
        "isolation_forest",
        history(),
        seed=7,
        params={"n_estimators": 20},
        provenance={"stream": "metrics"},
    )
    detector, manifest = restore(trained.payload, trained.sha256)
    rows = history(100)
    assert detector.oddness(rows).tobytes() == trained.detector.oddness(rows).tobytes()
    assert manifest == trained.manifest
    assert manifest["stream"] == "metrics"
    assert manifest["rows_used"] == 3000
    with pytest.raises(ArtefactCorrupt):
        restore(trained.payload[:-1] + b"?", trained.sha256)


def test_confirmed_anomalies_and_broken_rows_are_left_out() -> None:
    rows = history()
    rows[10] = np.nan
    excluded = np.zeros(3000, np.bool_)
    excluded[100:600] = True
    params = {"n_estimators": 5}
    trained = train("isolation_forest", rows, seed=1, excluded=excluded, params=params)
    assert trained.manifest["rows_excluded"] == 501
    clean = train("isolation_forest", rows[~excluded][np.arange(2500) != 10], seed=1, params=params)
    probe = history(50)
    np.testing.assert_array_equal(trained.detector.oddness(probe), clean.detector.oddness(probe))


def test_the_number_of_rows_is_capped() -> None:
    trained = train("isolation_forest", history(), seed=1, most_rows=1000)
    assert trained.manifest["rows_used"] == 1000
    assert trained.manifest["rows_given"] == 3000


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(NotEnoughData):
        train("isolation_forest", history(50), seed=1)


def test_a_model_of_wide_events_keeps_its_columns() -> None:
    rows = np.random.default_rng(4).normal(0, 1, (1000, 3))
    columns = ("pressure", "flow", "temperature")
    trained = train(
        "isolation_forest",
        rows,
        seed=1,
        params={"n_estimators": 5},
        columns=columns,
        space="vector",
    )
    assert trained.manifest["space"] == "vector"
    assert trained.manifest["feature_names"] == list(columns)
    detector, _ = restore(trained.payload, trained.sha256)
    assert detector.oddness(rows).tobytes() == trained.detector.oddness(rows).tobytes()
    with pytest.raises(ValueError, match="columns of series"):
        train("isolation_forest", rows, seed=1, columns=columns)
    with pytest.raises(ValueError, match="one name each"):
        train("isolation_forest", rows, seed=1, columns=("a", "b", "a"), space="vector")


def test_a_model_of_other_columns_than_it_names_is_refused() -> None:
    rows = np.random.default_rng(4).normal(0, 1, (1000, 3))
    made = IsolationForestDetector.fit(rows, seed=1, n_estimators=3)
    good = train("isolation_forest", history(1000), seed=1, params={"n_estimators": 3})
    payload, sha256 = artefact.dump(made.arrays(), good.manifest)
    with pytest.raises(ArtefactIncompatible, match="3 columns and names 10"):
        restore(payload, sha256)


@pytest.mark.parametrize("algorithm", list(MODEL_DETECTORS))
def test_a_model_of_some_features_sees_no_others_and_takes_rows_of_all(algorithm: str) -> None:
    rows, names = history(), FEATURE_SETS["event"]
    at = [FEATURE_NAMES.index(name) for name in names]
    trained = train(algorithm, rows, seed=3, params={"features": "event"})
    detector, manifest = restore(trained.payload, trained.sha256)
    assert manifest["feature_names"] == list(names)
    assert manifest["params"] == {"features": "event"}
    probe = history(60) * 3
    found = detector.oddness(probe)
    assert found.tobytes() == trained.detector.oddness(probe).tobytes()
    shaken = probe.copy()
    shaken[:, [i for i in range(len(FEATURE_NAMES)) if i not in at]] = 9.0
    np.testing.assert_array_equal(detector.oddness(shaken), found)
    shares, near = detector.contributions(probe), detector.nearest(probe)
    unseen = np.setdiff1d(np.arange(len(FEATURE_NAMES)), at)
    assert not shares[:, unseen].any()
    assert np.isnan(near[:, unseen]).all()
    assert np.isfinite(near[:, at]).all()
    odd = shares.any(axis=1)
    assert odd.any()
    np.testing.assert_allclose(shares[odd].sum(axis=1), 1.0)
    with pytest.raises(ValueError, match=r"needs \[n, 10\]"):
        detector.oddness(probe[:, at])


def test_all_features_are_the_same_model_named_or_not() -> None:
    named = train("isolation_forest", history(), seed=3, params={"features": "all"})
    assert named.sha256 == train("isolation_forest", history(), seed=3).sha256
    detector, _ = restore(named.payload, named.sha256)
    assert isinstance(detector, IsolationForestDetector)  # nothing stands before its kernel


def test_sets_of_features_that_do_not_exist_or_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="features 'magic' is none of all, forecast"):
        train("isolation_forest", history(), seed=1, params={"features": "magic"})
    wide = np.random.default_rng(4).normal(0, 1, (1000, 3))
    with pytest.raises(ValueError, match="a model of wide events has all values"):
        train("isolation_forest", wide, seed=1, params={"features": "event"},
              columns=("a", "b", "c"), space="vector")  # fmt: skip
    good = train("isolation_forest", history(), seed=1, params={"features": "event"})
    _, arrays = good, artefact.load(good.payload, good.sha256)[0]
    turned = good.manifest | {"feature_names": good.manifest["feature_names"][::-1]}
    with pytest.raises(ArtefactIncompatible, match="start a training run"):
        restore(*artefact.dump(arrays, turned))


def test_unknown_detectors_name_the_known_ones() -> None:
    with pytest.raises(UnknownDetector, match="isolation_forest"):
        train("magic", history(), seed=1)
    with pytest.raises(UnknownDetector, match=r"online.*zscore"):
        create_series_detector("magic")


def test_online_detectors_take_their_settings() -> None:
    detectors = {d.name: d for d in series_detectors({"online": {}, "zscore": {"threshold": 4.0}})}
    assert set(detectors) == {"online", "zscore"}
    assert vars(detectors["zscore"])["threshold"] == 4.0
