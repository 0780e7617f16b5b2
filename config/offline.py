"""Scores recorded series as the consumer would, from bytes on, with no server.

The same codec, engine, configuration and scoring version; only Kafka and the rows are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from config.schema import VigilConfig
from config.wiring import load_model, scoring_base
from detection import episodes
from detection.base import FloatArray
from detection.evaluation import BoolArray, EvaluationError, Recording
from detection.scoring import ScoringEngine
from detection.thresholds import Policy
from detection.versions import FORMAT, compile_version
from streams.codec import Codec
from streams.series import SeriesIndex

PARTITION = 0
METRIC = "value"


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


class OfflineScorer:
    """One partition of messages; each recording is a series that was never seen before.

    No stored models and no policies of the database count: what is scored is the configuration.
    """

    def __init__(self, config: VigilConfig) -> None:
        self._engine = ScoringEngine(SeriesIndex())
        self._codec = Codec(self._engine.index)
        base = scoring_base(config)
        policy = Policy("configuration", threshold=base["threshold"])
        payload = {
            "format": FORMAT,
            **base,
            "time_zone": "UTC",
            "policies": [policy.as_dict()],
            "models": [],
        }
        self._version = compile_version(0, payload, load_model)
        self._batch_size = config.kafka.batch_size
        self._engine.attach(PARTITION)
        self._offset = 0

    def score(self, recording: Recording) -> tuple[FloatArray, BoolArray]:
        """(score float64[n], nan while warming up; onset bool[n]) of the recording's events.

        Raises:
            EvaluationError: the codec refuses a row.
        """
        messages = self._messages(recording)
        parts = [
            self._process(recording, messages[start : start + self._batch_size])
            for start in range(0, len(messages), self._batch_size)
        ]
        scores, onsets = zip(*parts, strict=True)
        return np.concatenate(scores), np.concatenate(onsets)

    def _messages(self, recording: Recording) -> list[RecordedMessage]:
        first = self._offset
        self._offset += len(recording.stamps)
        rows = zip(recording.times, recording.value.tolist(), strict=True)
        return [
            RecordedMessage(
                msgspec.json.encode(
                    {
                        "source": recording.key,
                        "metric": METRIC,
                        "value": value,
                        "timestamp": time.isoformat(),
                    }
                ),
                first + at,
            )
            for at, (time, value) in enumerate(rows)
        ]

    def _process(
        self, recording: Recording, messages: Sequence[RecordedMessage]
    ) -> tuple[FloatArray, BoolArray]:
        decoded = self._codec.decode(messages)
        if decoded.rejects:
            refused = decoded.rejects[0]
            row = refused.offset - (self._offset - len(recording.stamps)) + 1
            raise EvaluationError(
                f"{recording.key}, row {row}: no event ({refused.reason}): {refused.detail}"
            )
        scored = self._engine.process(decoded.batch, self._version, {})
        return scored.score, scored.outcome.change == episodes.ONSET
