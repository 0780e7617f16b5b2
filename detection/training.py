"""Training and restoring stored models: pure functions of history, settings and a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection import bins
from detection.artefact import check_compatible, dump, library_versions, load
from detection.base import FloatArray, RowScorer
from detection.errors import ArtefactIncompatible, NotEnoughData
from detection.features import (
    ALL,
    FEATURE_NAMES,
    FEATURE_VERSION,
    LEAST_SCALES,
    VECTOR_VERSION,
    Space,
    places,
    set_of,
)
from detection.registry import model_detector
from detection.subset import OnSubset

MOST_ROWS = 200_000


@dataclass(frozen=True, slots=True)
class Trained:
    """A model ready to store: its payload's sha256 names it for good."""

    detector: RowScorer
    manifest: dict[str, Any]
    payload: bytes
    sha256: str


def train(
    name: str,
    features: FloatArray,
    *,
    seed: int,
    excluded: NDArray[np.bool_] | None = None,
    most_rows: int = MOST_ROWS,
    holdout: float = 0.3,
    params: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    columns: Sequence[str] = FEATURE_NAMES,
    space: Space = "series",
    fitted: Callable[[], None] = lambda: None,
) -> Trained:
    """Fit detector `name` on rows [n, k] in order of event time.

    `excluded` bool[n] leaves out rows of confirmed anomalies; of more than `most_rows` a seeded
    sample is taken, in order. The last `holdout` share calibrates and never trains. `provenance`
    (training range, stream …) goes into the manifest as it is, like `space`: "vector" where the k
    `columns` are the values of wide events. Of series `params` may name a set of `features` (see
    `detection.features`), and only those are learnt. `fitted` is told when the fit is done and the
    test on held-out rows begins. Equal arguments give equal bytes.
    NotEnoughData, UnknownDetector or ValueError; rows that aren't finite are left out.
    """
    names = list(columns)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"columns {names} are not one name each")
    if space == "series" and tuple(names) != FEATURE_NAMES:
        raise ValueError(f"the columns of series are {', '.join(FEATURE_NAMES)}")
    if features.ndim != 2 or features.shape[1] != len(names):
        raise ValueError(f"features {features.shape} are not [n, {len(names)}]")
    settings = dict(params or {})
    chosen_set = settings.pop("features", ALL)
    at = np.arange(len(names))
    if space == "series":
        at = places(set_of(chosen_set))
    elif chosen_set != ALL:
        raise ValueError("sets of features are of series; a model of wide events has all values")
    if chosen_set != ALL:  # left out where it changes nothing: equal models have equal manifests
        names = [names[place] for place in at]
    usable = np.isfinite(features).all(axis=1)
    if excluded is not None:
        usable &= ~excluded
    chosen = _sample(np.flatnonzero(usable), most_rows, seed)
    if len(chosen) == 0:
        raise NotEnoughData("no usable rows")
    rows = np.ascontiguousarray(features[np.ix_(chosen, at)])
    detector = model_detector(name).fit(
        rows,
        seed=seed,
        holdout=holdout,
        least_scale=LEAST_SCALES[at] if space == "series" else None,
        **settings,
    )
    if chosen_set != ALL:
        settings["features"] = chosen_set
    fitted()
    oddness = detector.oddness(rows[len(rows) - int(holdout * len(rows)) :])
    manifest = {
        "detector": name,
        "space": space,
        "feature_names": names,
        "feature_version": FEATURE_VERSION if space == "series" else VECTOR_VERSION,
        "libraries": library_versions(),
        "seed": seed,
        "params": settings,
        "holdout": holdout,
        "rows_given": len(features),
        "rows_used": len(rows),
        "rows_excluded": int(len(features) - usable.sum()),
        "metrics": _metrics(oddness),
        "score_counts": bins.score_counts(oddness),
        **(provenance or {}),
    }
    payload, sha256 = dump(detector.arrays(), manifest)
    return Trained(_whole(detector, manifest), manifest, payload, sha256)


def restore(payload: bytes, sha256: str) -> tuple[RowScorer, dict[str, Any]]:
    """(detector, manifest) of a stored model; ArtefactCorrupt or ArtefactIncompatible.

    One of series takes rows of all features, whichever it was trained on.
    """
    arrays, manifest = load(payload, sha256)
    check_compatible(manifest)
    name = manifest.get("detector")
    if not isinstance(name, str):
        raise ArtefactIncompatible("the model names no detector: retrain it")
    detector = model_detector(name).from_arrays(arrays)
    names = manifest["feature_names"]
    if detector.columns != len(names):
        raise ArtefactIncompatible(
            f"the model scores {detector.columns} columns and names {len(names)}: retrain it"
        )
    return _whole(detector, manifest), manifest


def _whole(detector: RowScorer, manifest: Mapping[str, Any]) -> RowScorer:
    """Behind a face of all features where it was trained on some; itself otherwise."""
    names = tuple(manifest["feature_names"])
    if manifest.get("space", "series") != "series" or names == FEATURE_NAMES:
        return detector
    return OnSubset(detector, names)


def _sample(rows: NDArray[np.intp], most: int, seed: int) -> NDArray[np.intp]:
    if len(rows) <= most:
        return rows
    picked = np.random.default_rng(seed).choice(len(rows), size=most, replace=False)
    return rows[np.sort(picked)]


def _metrics(oddness: FloatArray) -> dict[str, float]:
    """What the held-out rows look like to the model; all of it is normal until labelled."""
    return {
        "held_out_rows": float(len(oddness)),
        "held_out_alarms_per_10000": float(1e4 * np.mean(oddness >= 1.0)),
        "held_out_oddness_p50": float(np.quantile(oddness, 0.5)),
        "held_out_oddness_p99": float(np.quantile(oddness, 0.99)),
        "held_out_oddness_max": float(oddness.max()),
    }
