"""Name → detector. A new detector is one file and one line here; the conformance suite finds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from detection.base import ModelDetector, SeriesDetector
from detection.detectors.change_point import ChangePointDetector
from detection.detectors.ewma import EwmaDetector
from detection.detectors.iqr import IqrDetector
from detection.detectors.isolation_forest import FlatForest, IsolationForestDetector
from detection.detectors.local_outlier_factor import LocalOutlierFactorDetector, Neighbourhood
from detection.detectors.mad import MadDetector
from detection.detectors.one_class_svm import OneClassSvmDetector, SupportVectors
from detection.detectors.online import OnlineDetector
from detection.detectors.seasonal import SeasonalDetector
from detection.detectors.shift import ShiftDetector
from detection.detectors.zscore import ZScoreDetector
from detection.errors import UnknownDetector

SERIES_DETECTORS: Mapping[str, type[SeriesDetector]] = {
    OnlineDetector.name: OnlineDetector,
    ZScoreDetector.name: ZScoreDetector,
    MadDetector.name: MadDetector,
    EwmaDetector.name: EwmaDetector,
    IqrDetector.name: IqrDetector,
    SeasonalDetector.name: SeasonalDetector,
    ChangePointDetector.name: ChangePointDetector,
    ShiftDetector.name: ShiftDetector,
}

MODEL_DETECTORS: Mapping[str, type[ModelDetector]] = {
    IsolationForestDetector.name: IsolationForestDetector,
    LocalOutlierFactorDetector.name: LocalOutlierFactorDetector,
    OneClassSvmDetector.name: OneClassSvmDetector,
}


def create_series_detector(name: str, **params: Any) -> SeriesDetector:
    """An online detector with its settings; UnknownDetector names those there are."""
    try:
        detector = SERIES_DETECTORS[name]
    except KeyError:
        raise UnknownDetector(_unknown(name, SERIES_DETECTORS)) from None
    return detector(**params)


def series_detectors(options: Mapping[str, Mapping[str, Any]]) -> tuple[SeriesDetector, ...]:
    """Those of the names in `options` that learn online, with their settings, in fixed order."""
    names = [name for name in SERIES_DETECTORS if name in options]
    return tuple(create_series_detector(name, **options[name]) for name in names)


def model_detector(name: str) -> type[ModelDetector]:
    """The class that trains and restores a stored model."""
    try:
        return MODEL_DETECTORS[name]
    except KeyError:
        raise UnknownDetector(_unknown(name, MODEL_DETECTORS)) from None


def compile_models() -> None:
    """Compile what stored models score with, or load it from the cache, before the first batch."""
    row = np.zeros((1, 1))
    stump = np.zeros((1, 1))
    FlatForest(
        stump.astype(np.uint16), stump.astype(np.float32), np.ones((1, 2)), None, 1.0, 1
    ).raw(row)
    Neighbourhood(row, np.ones(1), np.ones(1), 1).factors(row)
    SupportVectors(row, np.ones(1), 1.0, 1.0).log_scores(row)


def _unknown(name: str, known: Mapping[str, object]) -> str:
    return f"detector {name!r} is none of {', '.join(sorted(known))}"
