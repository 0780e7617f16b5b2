"""Scores recorded series as the consumer would, from bytes on, with no server.

The same codec, engine, configuration and scoring version; only Kafka and the rows are missing.
Stored models are trained on each recording's own past, at the points where a running system would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from config.schema import VigilConfig
from config.wiring import load_model, scoring_base
from detection import episodes
from detection.base import FloatArray
from detection.errors import NotEnoughData
from detection.evaluation import BoolArray, EvaluationError, Recording
from detection.registry import MODEL_DETECTORS
from detection.scoring import TRUSTED_AFTER, LoadedModel, ScoredBatch, ScoringEngine
from detection.training import train
from detection.training_run import MIN_ROWS
from detection.versions import FORMAT, compile_version, configured_policy
from streams.codec import Codec
from streams.series import SeriesIndex

PARTITION = 0
METRIC = "value"
GROWTH = 4
"""History grows that many times before a running system trains again by itself."""


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    """What the codec asks of a Kafka message, for one that was never in Kafka."""

    raw: bytes
    place: int

    def value(self) -> bytes | None:
        return self.raw

    def key(self) -> bytes | None:
        return None

    def partition(self) -> int:
        return PARTITION

    def offset(self) -> int:
        return self.place


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A recording with what was found, in event order.

    `score` float64[n], nan while warming up; `onset` bool[n], an episode's first event; `flagged`
    bool[n], every event over the threshold; `votes` float64[n, d], oddness of each of `names`, nan
    where it abstains; `time_us` int64[n].
    """

    score: FloatArray
    onset: BoolArray
    flagged: BoolArray
    votes: FloatArray
    names: tuple[str, ...]
    time_us: NDArray[np.int64]


class OfflineScorer:
    """One partition of messages; each recording is a series that was never seen before.

    No policies of the database count: what is scored is the configuration. With `models` the
    enabled stored models are trained on the recording's own features: first when there are enough
    rows, then whenever the history has grown fourfold; `given` models are used as they are. What
    detection does by itself is measured without the budget of onsets: `limited` false.
    """

    def __init__(
        self,
        config: VigilConfig,
        *,
        models: bool = True,
        limited: bool = True,
        given: Sequence[LoadedModel] = (),
        seed: int = 0,
    ) -> None:
        self._engine = ScoringEngine(SeriesIndex())
        self._codec = Codec(self._engine.index)
        self._base = scoring_base(config)
        if not limited:
            self._base["max_onsets_per_day"] = 0.0
        payload = {
            "format": FORMAT,
            **self._base,
            "time_zone": "UTC",
            "policies": [configured_policy(self._base).as_dict()],
            "models": [],
        }
        version = compile_version(0, payload, load_model)
        self._version = replace(version, models=tuple(given))
        self._batch_size = config.kafka.batch_size
        self._params = trained_detectors(config) if models else {}
        for model in given:
            self._params.pop(model.algorithm, None)
        self._seed = seed
        self._engine.attach(PARTITION)
        self._offset = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The detectors' names, in the order of `Scored.votes`."""
        return tuple(dict.fromkeys((*self._version.names, *self._params)))

    @property
    def settings(self) -> dict[str, Any]:
        """What the scores depend on, for a report."""
        weights = self._base["weights"]
        return {
            "threshold": self._base["threshold"],
            "max_onsets_per_day": self._base["max_onsets_per_day"],
            "combine": self._base["combine"],
            "detectors": list(self.names),
            "weights": {name: weights.get(name, 1.0) for name in self.names},
            "trained": sorted(self._params),
        }

    def score(self, recording: Recording) -> tuple[FloatArray, BoolArray]:
        """(score float64[n], nan while warming up; onset bool[n]) of the recording's events.

        Raises:
            EvaluationError: the codec refuses a row.
        """
        scored = self.run(recording)
        return scored.score, scored.onset

    def run(self, recording: Recording) -> Scored:
        """All that scoring finds in the recording's events.

        Raises:
            EvaluationError: the codec refuses a row.
        """
        messages = self._messages(recording)
        points = training_points(len(messages)) if self._params else []
        # one event first: once the codec knows the series' name, it decodes ten times faster
        borders = {*range(1, len(messages), self._batch_size), *points}
        cuts = [0, *sorted(borders), len(messages)]
        version, parts = self._version, list[ScoredBatch]()
        for start, end in pairwise(cuts):
            if start in points:
                version = replace(
                    self._version, models=(*self._version.models, *self._trained(parts))
                )
            decoded = self._codec.decode(messages[start:end])
            if decoded.rejects:
                refused = decoded.rejects[0]
                row = refused.offset - messages[0].place + 1
                raise EvaluationError(
                    f"{recording.key}, row {row}: no event ({refused.reason}): {refused.detail}"
                )
            parts.append(self._engine.process(decoded.batch, version, {}))
        return self._joined(parts)

    def _trained(self, parts: Sequence[ScoredBatch]) -> list[LoadedModel]:
        """One model of each kind, from the features of the events so far."""
        seen = np.concatenate([part.detail.seen for part in parts])
        features = np.concatenate([part.detail.features for part in parts])
        usable = (seen >= TRUSTED_AFTER) & np.isfinite(features).all(axis=1)
        models: list[LoadedModel] = []
        for name, params in self._params.items():
            try:
                made = train(name, features[usable], seed=self._seed, params=params)
            except NotEnoughData:  # as in a running system: the others go on
                continue
            models.append(LoadedModel(name, "", 1, made.sha256, made.detector))
        return models

    def _joined(self, parts: Sequence[ScoredBatch]) -> Scored:
        names = self.names
        votes = np.full((sum(len(part.score) for part in parts), len(names)), np.nan)
        at = 0
        for part in parts:
            for column, name in enumerate(part.version.names):
                votes[at : at + len(part.score), names.index(name)] = part.votes[:, column]
            at += len(part.score)
        change = np.concatenate([part.outcome.change for part in parts])
        return Scored(
            np.concatenate([part.score for part in parts]),
            change == episodes.ONSET,
            change != episodes.NONE,
            votes,
            names,
            np.concatenate([part.events.event_time for part in parts]),
        )

    def _messages(self, recording: Recording) -> list[RecordedMessage]:
        first = self._offset
        self._offset += len(recording.times)
        rows = zip(recording.times, recording.value.tolist(), strict=True)
        return [
            RecordedMessage(
                msgspec.json.encode(
                    {
                        "source": recording.key,
                        "metric": METRIC,
                        "value": value,
                        "timestamp": time,
                    }
                ),
                first + at,
            )
            for at, (time, value) in enumerate(rows)
        ]


def trained_detectors(config: VigilConfig) -> dict[str, dict[str, Any]]:
    """The enabled detectors that are trained, with their settings."""
    sections = config.anomaly_detection.detectors
    return {
        name: getattr(sections, name).model_dump(mode="json", exclude={"enabled"})
        for name in sections.enabled
        if name in MODEL_DETECTORS
    }


def training_points(events: int) -> list[int]:
    """Before which events of a series a running system has trained: 1,150, 4,600, 18,400 …"""
    points, at = [], MIN_ROWS + TRUSTED_AFTER
    while at < events:
        points.append(at)
        at *= GROWTH
    return points
