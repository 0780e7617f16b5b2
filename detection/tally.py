"""What a batch adds to the counts of challengers and of drift, and how it is written.

These rows grow, so they are written only in the transaction that moves the partition's offset, of
events that no earlier one has counted (a silent replay adds nothing). A row belongs to one
partition, whose owner alone writes it: no consumer waits for another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from detection import bins, challengers
from detection.challengers import Shadow
from detection.ensemble import score_from_oddness
from detection.features import FEATURE_NAMES
from detection.scoring import TRUSTED_AFTER, LoadedModel, ScoredBatch
from streams.clock import from_us
from streams.series import SeriesIndex

HOUR_US = 3_600_000_000
SAMPLES = 50
"""Disagreements kept of each challenger, hour and partition: the first ones by offset."""

_SHADOW = """
INSERT INTO detection_shadowhour AS t (challenger_id, hour, partition, events, "both",
    only_champion, only_challenger, champion_onsets, challenger_onsets, champion_us, challenger_us)
SELECT u.model, timestamptz 'epoch' + u.hour * interval '1 hour', u.partition, u.events, u.agree,
    u.only_a, u.only_b, u.onsets_a, u.onsets_b, u.us_a, u.us_b
FROM unnest(%s::bigint[], %s::bigint[], %s::int[], %s::bigint[], %s::bigint[], %s::bigint[],
    %s::bigint[], %s::bigint[], %s::bigint[], %s::float8[], %s::float8[])
    AS u (model, hour, partition, events, agree, only_a, only_b, onsets_a, onsets_b, us_a, us_b)
JOIN detection_modelversion m ON m.id = u.model
ORDER BY u.model, u.hour, u.partition
FOR KEY SHARE OF m
ON CONFLICT (challenger_id, hour, partition) DO UPDATE SET
    events = t.events + EXCLUDED.events, "both" = t."both" + EXCLUDED."both",
    only_champion = t.only_champion + EXCLUDED.only_champion,
    only_challenger = t.only_challenger + EXCLUDED.only_challenger,
    champion_onsets = t.champion_onsets + EXCLUDED.champion_onsets,
    challenger_onsets = t.challenger_onsets + EXCLUDED.challenger_onsets,
    champion_us = t.champion_us + EXCLUDED.champion_us,
    challenger_us = t.challenger_us + EXCLUDED.challenger_us
RETURNING challenger_id, (extract(epoch FROM hour) / 3600)::bigint, partition,
    only_champion + only_challenger
"""

_DISAGREEMENTS = """
INSERT INTO detection_disagreement (challenger_id, series_id, incarnation_id, partition, "offset",
    event_at, value, champion_score, challenger_score)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (challenger_id, incarnation_id, partition, "offset", series_id) DO NOTHING
"""

_FEATURES = """
INSERT INTO detection_featurehour AS t (stream_id, metric, hour, partition, feature, counts)
SELECT %s, u.metric, timestamptz 'epoch' + u.hour * interval '1 hour', u.partition, u.feature,
    u.counts::bigint[]
FROM unnest(%s::text[], %s::bigint[], %s::int[], %s::text[], %s::text[])
    AS u (metric, hour, partition, feature, counts)
ORDER BY u.metric, u.hour, u.feature, u.partition
ON CONFLICT (stream_id, metric, hour, feature, partition) DO UPDATE SET counts = (
    SELECT array_agg(a + b ORDER BY i)
    FROM unnest(t.counts, EXCLUDED.counts) WITH ORDINALITY AS v (a, b, i))
"""

Place = tuple[int, int, int]  # challenger, hour since 1970, partition


@dataclass(slots=True)
class Tally:
    """The counts of one batch; writing it twice counts twice."""

    # events, both, only champion, only challenger, onsets of the two, µs of the two
    shadow: dict[Place, NDArray[np.float64]] = field(default_factory=dict)
    differing: dict[Place, list[tuple[Any, ...]]] = field(default_factory=dict)
    # (metric, hour, partition, names of the rows): [names, bins]
    features: dict[tuple[str, int, int, tuple[str, ...]], NDArray[np.int64]] = field(
        default_factory=dict
    )


class Tallier:
    """Counts the batches of one stream."""

    def __init__(self, index: SeriesIndex) -> None:
        self._index = index
        self._metrics: dict[str, int] = {}
        self._metric = np.zeros(0, dtype=np.int64)  # number of the metric, by series code

    def add(self, tally: Tally, scored: ScoredBatch, lives: Mapping[int, int]) -> None:
        """Count a scored part; ``lives`` is the incarnation's id of each partition."""
        for shadow in scored.shadows:
            self._add_shadow(tally, scored, shadow, lives)
        # Any source may bring a schema of its own: only those with a model are counted.
        if scored.vector is None or scored.version.models:
            self._add_features(tally, scored)

    def _add_shadow(
        self, tally: Tally, scored: ScoredBatch, shadow: Shadow, lives: Mapping[int, int]
    ) -> None:
        loud = ~scored.silent[shadow.at]
        at, flags = shadow.at[loud], shadow.flags[loud]
        if not len(at):
            return
        events = scored.events
        hour = events.event_time[at] // HOUR_US
        places, group = np.unique(
            np.stack([hour, events.partition[at]], axis=1), axis=0, return_inverse=True
        )
        group = group.reshape(-1)
        size = len(places)

        def counted(chosen: NDArray[np.bool_]) -> NDArray[np.intp]:
            return np.bincount(group[chosen], minlength=size)

        sides = flags & 3
        total = np.bincount(group, minlength=size)
        columns = np.column_stack(
            [
                total,
                counted(sides == 3),
                counted(sides == challengers.CHAMPION),
                counted(sides == challengers.CHALLENGER),
                counted((flags & challengers.CHAMPION_ONSET) > 0),
                counted((flags & challengers.CHALLENGER_ONSET) > 0),
                total * (shadow.champion_us / len(shadow.at)),
                total * (shadow.challenger_us / len(shadow.at)),
            ]
        ).astype(np.float64)
        keys = [(shadow.model, h, p) for h, p in places.tolist()]
        for key, row in zip(keys, columns, strict=True):
            known = tally.shadow.get(key)
            tally.shadow[key] = row if known is None else known + row
        score = shadow.score[loud]
        differ = np.flatnonzero((sides == challengers.CHAMPION) | (sides == challengers.CHALLENGER))
        for number in np.unique(group[differ]).tolist():
            kept = tally.differing.setdefault(keys[number], [])
            mine = differ[group[differ] == number]
            mine = mine[np.argsort(events.offset[at[mine]], kind="stable")]  # of one partition
            for k in mine[: SAMPLES - len(kept)].tolist():
                kept.append(self._sample(scored, shadow.model, int(at[k]), float(score[k]), lives))

    def _sample(
        self, scored: ScoredBatch, model: int, i: int, score: float, lives: Mapping[int, int]
    ) -> tuple[Any, ...]:
        events = scored.events
        partition = int(events.partition[i])
        own = float(scored.score[i])
        return (
            model,
            int(self._index.ids[events.series[i]]),
            lives[partition],
            partition,
            int(events.offset[i]),
            from_us(int(events.event_time[i])),
            float(events.values[i, 0]),
            None if own != own else own,
            None if score != score else score,
        )

    def _add_features(self, tally: Tally, scored: ScoredBatch) -> None:
        events = scored.events
        room = np.empty(len(events), dtype=np.int64)
        wanted = (scored.detail.seen >= TRUSTED_AFTER) & ~scored.silent
        at = room[: bins.sampled(events.offset, wanted, room)]
        if not len(at):
            return
        self._learn_metrics()
        models, columns = scored.version.models, FEATURE_NAMES
        if scored.vector is not None:
            of = self._index.names[events.series[at[0]]][1]  # a batch is of one schema
            models = tuple(m for m in models if m.metric == of)
            columns = bins.value_keys(len(scored.vector.columns))
            if not models:
                return
        hour = events.event_time[at] // HOUR_US
        metric = self._metric[events.series[at]]
        partition = events.partition[at].astype(np.int64)
        hours, code = np.unique(hour, return_inverse=True)
        # one number a place: events of a batch and partitions are below 2^20, metrics below 2^23
        key = (metric << 40) | (code.astype(np.int64) << 20) | partition
        places, group = np.unique(key, return_inverse=True)
        stored = dict.fromkeys(m.algorithm for m in models)
        values = scored.detail.features[at]
        if stored:
            votes = scored.votes[at][:, [scored.version.names.index(name) for name in stored]]
            values = np.column_stack([values, score_from_oddness(votes)])
        edges = bins.edges_of((*columns, *("score" for _ in stored)))
        counts = bins.count(values, edges, group, len(places))
        known = list(self._metrics)
        for place, rows in zip(places.tolist(), counts, strict=True):
            of = known[place >> 40]
            scores = (f"score:{_serving(models, name, of)}" for name in stored)
            where = (
                of,
                int(hours[place >> 20 & 0xFFFFF]),
                place & 0xFFFFF,
                (*columns, *scores),
            )
            before = tally.features.get(where)
            tally.features[where] = rows if before is None else before + rows

    def _learn_metrics(self) -> None:
        fresh = self._index.names[len(self._metric) :]
        if fresh:
            more = [self._metrics.setdefault(m, len(self._metrics)) for _, m in fresh]
            self._metric = np.concatenate([self._metric, np.array(more, dtype=np.int64)])


def _serving(models: tuple[LoadedModel, ...], algorithm: str, metric: str) -> int:
    """The champion of an algorithm that scores this metric: its own before that of all."""
    mine = [m for m in models if m.algorithm == algorithm and m.metric in ("", metric)]
    return max(mine, key=lambda m: m.metric).id if mine else 0


def write(cursor: psycopg.Cursor[Any], stream: int, tally: Tally) -> None:
    """Inside the transaction that moves the offsets: let the rows grow."""
    if tally.shadow:
        keys = sorted(tally.shadow)
        counts = np.array([tally.shadow[key] for key in keys])
        whole = [counts[:, i].astype(np.int64).tolist() for i in range(6)]
        cursor.execute(
            _SHADOW,
            [*map(list, zip(*keys, strict=True)), *whole, counts[:, 6].tolist(),
             counts[:, 7].tolist()],
        )  # fmt: skip
        rows = []
        for model, hour, partition, differed in cursor.fetchall():
            key = (model, hour, partition)
            mine = tally.shadow[key]
            before = int(differed) - int(mine[2] + mine[3])
            rows += tally.differing.get(key, [])[: max(0, SAMPLES - before)]
        if rows:
            cursor.executemany(_DISAGREEMENTS, rows)
    rows_of: dict[tuple[str, int, str, int], NDArray[np.int64]] = {}
    for (of, hour, partition, names), counts in tally.features.items():
        for name, row in zip(names, counts, strict=True):
            if row.any():
                # two versions may have scored parts of a batch, with other models' scores
                place = (of, hour, name, partition)
                known = rows_of.get(place)
                rows_of[place] = row if known is None else known + row
    if rows_of:
        places = sorted(rows_of)
        text = ["{" + ",".join(map(str, rows_of[place].tolist())) + "}" for place in places]
        metrics, hours, features, partitions = map(list, zip(*places, strict=True))
        cursor.execute(_FEATURES, [stream, metrics, hours, partitions, features, text])
