"""Stored models for the benchmark's stream, trained on events of the same kind."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from config.benchmark.load import messages
from detection.base import ScoringInput, SeriesOutput
from detection.detectors.online import OnlineDetector
from detection.model_store import promote, save
from detection.scoring import TRUSTED_AFTER
from detection.state import StateStore
from detection.training import train
from streams.models import Stream
from streams.timestamps import parse_texts

EVENTS, SERIES, SEED = 60_000, 100, 1


def promote_models(stream: Stream, algorithms: Sequence[str]) -> None:
    """Train these kinds with the defaults and let them score every metric of ``stream``."""
    if not algorithms:
        return
    rows = [msgspec.json.decode(value) for _, value in messages(EVENTS, SERIES, SEED)]
    detector = OnlineDetector()
    store = StateStore([detector.component], SERIES)
    slots = store.allocate(SERIES)
    inputs = ScoringInput(
        slots[np.arange(EVENTS) % SERIES],
        parse_texts([r["timestamp"] for r in rows]) // 1_000_000,
        np.array([r["value"] for r in rows]),
    )
    out = SeriesOutput.empty(EVENTS)
    detector.score(store.rows(detector.component.name), inputs, out)
    for algorithm in algorithms:
        trained = train(algorithm, out.features[out.seen >= TRUSTED_AFTER], seed=SEED)
        promote(save(trained, stream=stream, algorithm=algorithm).pk)
