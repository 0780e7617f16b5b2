"""Scores recorded wide events as the consumer would, from bytes on, with no server."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np

from config.offline import PARTITION, RecordedMessage
from config.schema import VigilConfig
from config.wiring import load_model, scoring_base
from detection import episodes
from detection.evaluation import BoolArray, EvaluationError
from detection.scoring import ScoredBatch, ScoringEngine
from detection.skab import WideRecording
from detection.thresholds import Policy
from detection.versions import FORMAT, compile_version
from streams.codec import Codec
from streams.series import SeriesIndex


class OfflineVectorScorer:
    """One partition of wide messages; each recording is a source that was never seen before."""

    def __init__(self, config: VigilConfig) -> None:
        self._engine = ScoringEngine(SeriesIndex())
        self._codec = Codec(self._engine.index)
        base = scoring_base(config)
        payload = {
            "format": FORMAT,
            **base,
            "time_zone": "UTC",
            "policies": [Policy("configuration", threshold=base["threshold"]).as_dict()],
            "models": [],
        }
        self._version = compile_version(0, payload, load_model)
        self._batch_size = config.kafka.batch_size
        self._engine.attach(PARTITION)
        self._offset = 0

    def flags(self, recording: WideRecording) -> BoolArray:
        """bool[n]: the event lies inside an episode of the recording's vector.

        Raises:
            EvaluationError: the codec refuses a row.
        """
        first, n = self._offset, len(recording.times)
        self._offset += n
        inside = np.zeros(n, dtype=np.bool_)
        open_before = 0
        for start, end in pairwise([*range(0, n, self._batch_size), n]):
            for scored in self._scored(recording, start, end, first):
                at = scored.events.offset - first
                turns = np.zeros(n + 1, dtype=np.int64)
                turns[at[scored.outcome.change == episodes.ONSET]] += 1
                np.subtract.at(turns, at[scored.outcome.closed_at], 1)
                running = open_before + np.cumsum(turns)
                inside[at] = running[at] > 0
                open_before = int(running[-1])
        return inside

    def _scored(
        self, recording: WideRecording, start: int, end: int, first: int
    ) -> list[ScoredBatch]:
        rows = zip(recording.times[start:end], recording.values[start:end].tolist(), strict=True)
        messages = [
            RecordedMessage(
                msgspec.json.encode(
                    {
                        "source": recording.key,
                        # nan is written as null: a missing value
                        "values": dict(zip(recording.columns, row, strict=True)),
                        "timestamp": time,
                    }
                ),
                first + start + at,
            )
            for at, (time, row) in enumerate(rows)
        ]
        decoded = self._codec.decode(messages)
        if decoded.rejects:
            refused = decoded.rejects[0]
            raise EvaluationError(
                f"{recording.key}, row {refused.offset - first + 1}: no event ({refused.reason}): "
                f"{refused.detail}"
            )
        if not decoded.vectors:
            raise EvaluationError(
                f"{recording.key}: its {len(recording.columns)} values are not judged together"
            )
        self._engine.process(decoded.batch, self._version, {})
        return [self._engine.process(v, self._version, {}) for v in decoded.vectors]
