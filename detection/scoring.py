"""Event batches to scored batches: state of every series, detectors, ensemble, episodes.

Scores depend only on the events of a series in order and on the scoring version that counts at
their offset: never on batch borders, on other series or on the process.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from detection import challengers, episodes, expected, heartbeat, tails
from detection.base import RowScorer, ScoringInput, SeriesDetector, SeriesOutput
from detection.challengers import Shadow
from detection.detectors.online import OnlineDetector, flat_alone, without_course
from detection.detectors.vector import VectorDetector
from detection.detectors.vector_kernel import SHARES_FROM
from detection.ensemble import Ensemble, score_from_oddness
from detection.episodes import Limits, Outcome
from detection.features import FEATURE_NAMES
from detection.heartbeat import Gaps
from detection.ordering import by_slot
from detection.quarantine import Releases
from detection.series_rows import SeriesRows
from detection.silence import Silence
from detection.state import StateStore
from detection.thresholds import PolicyTable
from detection.zone_clock import ZoneClock
from streams.batch import NARROW, EventBatch
from streams.series import SeriesIndex

TRUSTED_AFTER = 150
"""Events of a series before its features are like those that models are trained on."""
PIECE = 8_192
"""Events that go through all online detectors at one go: what one says of them is still in a core's
cache when the next one reads it."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A stored model in use: ``metric`` empty serves all; ``id`` is its row, 0 without one."""

    algorithm: str
    metric: str
    version: int
    sha256: str
    detector: RowScorer
    id: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class CompiledVersion:
    """A scoring version ready for use; ``id`` is its row, 0 where nothing is stored."""

    id: int
    detectors: tuple[SeriesDetector, ...]
    models: tuple[LoadedModel, ...]
    ensemble: Ensemble
    policies: PolicyTable
    limits: Limits
    time_zone: str = "UTC"
    challengers: tuple[LoadedModel, ...] = ()
    vector: VectorDetector | None = None
    vector_ensemble: Ensemble | None = None  # None: the same
    vector_models: tuple[LoadedModel, ...] = ()
    vector_challengers: tuple[LoadedModel, ...] = ()
    of_vectors: bool = False
    own_tails: bool = False
    silence: Silence | None = None
    releases: Releases = field(default_factory=Releases)

    @property
    def running(self) -> tuple[SeriesDetector, ...]:
        """The detectors whose state moves on: the online one gives features and band to all."""
        if any(d.name == OnlineDetector.name for d in self.detectors):
            return self.detectors
        return (OnlineDetector(), *self.detectors)

    @property
    def names(self) -> tuple[str, ...]:
        """The detectors' names, in the order of ``ScoredBatch.votes``."""
        stored = dict.fromkeys(m.algorithm for m in self.models)
        if self.of_vectors:
            return (VectorDetector.name, *stored)
        return (*(d.name for d in self.detectors), *stored)

    def for_vectors(self, detector: VectorDetector) -> CompiledVersion:
        """The same version as it scores the vectors of wide events."""
        limits = replace(self.limits, quiet_events=detector.quiet_events)
        return replace(
            self,
            limits=limits,
            ensemble=self.vector_ensemble or self.ensemble,
            models=self.vector_models,
            challengers=self.vector_challengers,
            of_vectors=True,
        )


@dataclass(frozen=True, slots=True, eq=False)
class VectorDetail:
    """What is known of scored vectors beside their distance: ``columns`` names the k values.

    ``value`` float64 [n, k] as they came, nan for null. Where an event may be an anomaly (else nan)
    ``share`` [n, k] is the part of each in the squared distance, ``level`` its smoothed value,
    ``usual`` the mean of that, ``expected`` the level that goes with all the other values.
    """

    columns: tuple[str, ...]
    value: NDArray[np.float64]
    share: NDArray[np.float64]
    usual: NDArray[np.float64]
    level: NDArray[np.float64]
    expected: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ScoredBatch:
    """Events with what was found: all arrays in the order of ``events``.

    That is by series; ``arrival`` puts chosen ones into the order of the log.

    ``score`` float64 [n] in [0, 1), nan while warming up; ``votes`` float64 [n, d] oddness of each
    of ``version.names``, nan where it abstains; ``silent`` bool [n] marks events whose effects were
    stored before (a replay that only rebuilds state); ``shadows`` is what challengers said, and
    ``gaps`` the silences that an event ended. Of wide events' vectors ``events.values`` is the
    distance from their usual pattern, ``detail.expected`` its band, ``detail.features`` [n, k] are
    the smoothed values in deviations from their means, and ``vector`` says more.
    """

    events: EventBatch
    version: CompiledVersion
    slot: NDArray[np.int64]
    score: NDArray[np.float64]
    oddness: NDArray[np.float64]
    votes: NDArray[np.float64]
    detail: SeriesOutput
    policy: NDArray[np.int32]
    outcome: Outcome
    silent: NDArray[np.bool_]
    shadows: tuple[Shadow, ...] = ()
    vector: VectorDetail | None = None
    gaps: Gaps = field(default_factory=Gaps.none)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The columns of ``detail.features``."""
        return FEATURE_NAMES if self.vector is None else self.vector.columns

    @property
    def is_anomaly(self) -> NDArray[np.bool_]:
        """Events inside an episode and over its threshold."""
        inside: NDArray[np.bool_] = self.outcome.change != episodes.NONE
        return inside

    def arrival(self, at: NDArray[np.intp]) -> NDArray[np.intp]:
        """Indices ``at`` in the order in which their partitions hold the events."""
        return at[self.log_order(at)]

    def log_order(self, at: NDArray[np.intp]) -> NDArray[np.intp]:
        """Which of the indices ``at`` comes first, second … in the log, intp [len(at)]."""
        order: NDArray[np.intp] = np.lexsort((self.events.offset[at], self.events.partition[at]))
        return order


class ScoringEngine(SeriesRows):
    """Scores the events of one stream's series, and keeps their state."""

    def __init__(self, index: SeriesIndex, capacity: int = 1024) -> None:
        super().__init__(index, capacity)
        self._zones: dict[str, ZoneClock] = {}

    def process(
        self, batch: EventBatch, version: CompiledVersion, silent_below: Mapping[int, int]
    ) -> ScoredBatch:
        """Score events of owned partitions; those a series has seen already must not be in it.

        What comes back is in the order of series, and a series' events as they came: each one's
        row of state is then fetched once a batch. Of vectors that still learn nothing is told:
        their events are left out.
        """
        if batch.columns != NARROW:
            return self._process_vectors(batch, version, silent_below)
        slot = self._slot(batch)
        order = by_slot(slot, len(self.slot_code))
        events, slot = batch.take(order), slot[order]
        time_us = events.event_time
        value = np.ascontiguousarray(events.values[:, 0])
        zone = self._zones.setdefault(version.time_zone, ZoneClock(version.time_zone))
        inputs = ScoringInput(slot, zone.local_s(time_us), value)
        if version.releases:
            names_of = self.index.names
            version.releases.apply(self.store, names_of, slot, events.series, events.partition)
        detail = SeriesOutput.empty(len(events))
        names = version.names
        votes = np.full((len(events), len(names)), np.nan)
        for start in range(0, len(events), PIECE):
            end = start + PIECE
            self._score_series(
                inputs.part(start, end), version, detail.part(start, end), votes[start:end]
            )
        spent: dict[int, float] = {}
        if version.models:
            self._score_models(events, version, detail, votes, names, spent)
        scored = self._judged(events, version, slot, votes, detail, silent_below, spent)
        return replace(scored, gaps=self._gaps(scored))

    def _score_series(
        self,
        inputs: ScoringInput,
        version: CompiledVersion,
        detail: SeriesOutput,
        votes: NDArray[np.float64],
    ) -> None:
        """What each detector that learns online says; fills `detail` and its column of `votes`."""
        usual = _Expected(self.store, inputs)
        for detector in version.running:
            rows = self.store.rows(detector.component.name)
            oddness = usual.score(detector, rows, detail)
            if version.own_tails and detector.name == OnlineDetector.name:
                rows = self.store.rows(tails.NAME)
                judged = tails.judged(rows, inputs.slot, inputs.value, oddness, detail)
                oddness = usual.unraised(oddness, judged)
            if detector.name in version.names:
                votes[:, version.names.index(detector.name)] = oddness

    def _gaps(self, scored: ScoredBatch) -> Gaps:
        """What the events say of how usual it is that none come."""
        events, silence = scored.events, scored.version.silence
        heard = np.full(max(events.committable, default=0) + 1, -1.0)
        for partition, at_us in self._heard.items():
            if partition < len(heard):
                heard[partition] = at_us
        return heartbeat.advance(
            self.store.rows(heartbeat.NAME),
            scored.slot,
            events.event_time,
            events.offset,
            scored.policy,
            np.full(len(scored.version.policies.rows), np.inf)
            if silence is None
            else silence.asked_us,
            0.0 if silence is None else silence.least_us,
            heard[events.partition],
            self.delays,
        )

    def _process_vectors(
        self, batch: EventBatch, version: CompiledVersion, silent_below: Mapping[int, int]
    ) -> ScoredBatch:
        """The same of one schema's wide events: their distance takes the place of the value."""
        detector = version.vector
        if detector is None:  # nobody looks at vectors, so that no series of one sees the events
            detector, batch = VectorDetector(), batch.take(np.zeros(len(batch), dtype=np.bool_))
        version = version.for_vectors(detector)
        k = len(batch.columns)
        slot = self._slot(batch)
        rows = self.vectors.rows_of(slot, k)
        # a stored model may alarm where the distance alone would not
        explain_from = 0.0 if version.models else SHARES_FROM
        found = detector.score(self.vectors.pool(k), rows, batch.values, explain_from)
        self.changed[slot] = True
        known = np.flatnonzero(~np.isnan(found.oddness))
        told = found.take(known)
        events = EventBatch(
            batch.event_time[known],
            batch.series[known],
            told.distance.reshape(-1, 1),
            batch.partition[known],
            batch.offset[known],
            committable=batch.committable,
        )
        detail = replace(SeriesOutput.empty(len(known)), features=told.standard, seen=told.seen)
        detail.expected[:, 0] = 0.0
        detail.expected[:, 1:] = told.band
        votes = np.full((len(known), len(version.names)), np.nan)
        votes[:, 0] = told.oddness
        spent: dict[int, float] = {}
        if version.models:
            self._score_models(events, version, detail, votes, version.names, spent)
        scored = self._judged(events, version, slot[known], votes, detail, silent_below, spent)
        # Events that were only learnt have been seen as well.
        np.maximum.at(self._episodes()[:, episodes.LAST_OFFSET], slot, batch.offset)
        said = VectorDetail(
            batch.columns,
            batch.values[known],
            told.share,
            told.usual,
            told.level,
            told.expected,
        )
        return replace(scored, vector=said)

    def _judged(
        self,
        events: EventBatch,
        version: CompiledVersion,
        slot: NDArray[np.int64],
        votes: NDArray[np.float64],
        detail: SeriesOutput,
        silent_below: Mapping[int, int],
        spent: Mapping[int, float],
    ) -> ScoredBatch:
        """One score out of the detectors' votes, and what it does to episodes and rollups."""
        oddness = version.ensemble.oddness(votes, version.names)
        score = score_from_oddness(oddness)
        policy = version.policies.index(self.index.names)[events.series]
        outcome = episodes.advance(
            self._episodes(),
            slot,
            events.event_time,
            events.offset,
            np.ascontiguousarray(events.values[:, 0]),
            score,
            detail.expected,
            policy,
            version.policies.rows,
            version.limits,
        )
        self.changed[slot] = True
        self._touched.append(slot[outcome.change != episodes.NONE])
        silent = np.zeros(len(events), dtype=np.bool_)
        for partition, below in silent_below.items():
            silent |= (events.partition == partition) & (events.offset < below)
        scored = ScoredBatch(
            events, version, slot, score, oddness, votes, detail, policy, outcome, silent
        )
        if not version.challengers:
            return scored
        return replace(scored, shadows=self._shadows(scored, spent))

    def _score_models(
        self,
        events: EventBatch,
        version: CompiledVersion,
        detail: SeriesOutput,
        votes: NDArray[np.float64],
        names: tuple[str, ...],
        spent: dict[int, float],
    ) -> None:
        ready = detail.seen >= TRUSTED_AFTER
        # A model of the metric wins over the one that serves all metrics: it comes last.
        for model in sorted(version.models, key=lambda m: m.metric):
            chosen = ready
            if model.metric:
                metrics = np.array([m == model.metric for _, m in self.index.names])
                chosen = ready & metrics[events.series]
            began = time.perf_counter()
            if chosen.all():
                votes[:, names.index(model.algorithm)] = model.detector.oddness(detail.features)
            elif chosen.any():
                votes[chosen, names.index(model.algorithm)] = model.detector.oddness(
                    detail.features[chosen]
                )
            spent[model.id] = (time.perf_counter() - began) * 1e6

    def _shadows(self, scored: ScoredBatch, spent: Mapping[int, float]) -> tuple[Shadow, ...]:
        """What the challengers say of the same events: each in its champion's place, or added."""
        version, events, detail = scored.version, scored.events, scored.detail
        found = []
        for model in version.challengers:
            at = np.flatnonzero(
                (detail.seen >= TRUSTED_AFTER) & self._served(version, model)[events.series]
            )
            if not len(at):
                continue
            began = time.perf_counter()
            vote = model.detector.oddness(detail.features[at])
            took_us = (time.perf_counter() - began) * 1e6
            names = list(version.names)
            votes = scored.votes[at]
            if model.algorithm not in names:
                names.append(model.algorithm)
                votes = np.column_stack([votes, vote])
            votes[:, names.index(model.algorithm)] = vote
            score = score_from_oddness(version.ensemble.oddness(votes, names))
            over = episodes.over_threshold(
                score, events.values[at, 0], detail.expected[at, 1], scored.policy[at],
                version.policies.rows,
            )  # fmt: skip
            flags = challengers.compare(
                self.store.rows(challengers.component_name(model.algorithm)),
                scored.slot[at],
                events.event_time[at],
                scored.outcome.severity[at] > 0,
                over,
                model=model.id,
                of_metric=bool(model.metric),
                quiet_events=version.limits.quiet_events,
                max_gap_us=version.limits.max_gap_us,
            )
            champion_us = sum(
                spent.get(m.id, 0.0)
                for m in version.models
                if (m.algorithm, m.metric) == (model.algorithm, model.metric)
            )
            found.append(Shadow(model.id, at, score, flags, champion_us, took_us))
        return tuple(found)

    def _served(self, version: CompiledVersion, model: LoadedModel) -> NDArray[np.bool_]:
        """Which series codes a challenger would score as champion, bool [series]."""
        metrics = [metric for _, metric in self.index.names]
        if model.metric:
            return np.array([metric == model.metric for metric in metrics])
        own = {m.metric for m in version.models if m.algorithm == model.algorithm and m.metric}
        return np.array([metric not in own for metric in metrics])


class _Expected:
    """Lets detectors score a batch so that what was called expected is no alarm.

    The online detector sees and learns all, since it has released the values itself; what else it
    would say of them, and of the way back, is left out. Others don't see them.
    """

    def __init__(self, store: StateStore, inputs: ScoringInput) -> None:
        self._inputs = inputs
        self._mark = np.zeros(0, dtype=np.int8)
        if store.in_use(expected.NAME):
            self._mark = expected.mark(store.rows(expected.NAME), inputs.slot, inputs.value)

    def score(
        self, detector: SeriesDetector, rows: NDArray[np.float64], detail: SeriesOutput
    ) -> NDArray[np.float64]:
        """Oddness float64 [n]; the online detector fills ``detail``."""
        whole, mark = self._inputs, self._mark
        if not mark.any():
            return detector.score(rows, whole, detail)
        if detector.name == OnlineDetector.name:
            oddness = detector.score(rows, whole, detail)
            after, usual = mark == expected.AFTER, mark >= expected.UNSEEN
            oddness[after] = without_course(
                oddness[after], detail.features[after], detail.tests[after]
            )
            oddness[usual] = flat_alone(oddness[usual], detail.tests[usual])
            return oddness
        at = np.flatnonzero(mark != expected.UNSEEN)
        oddness = np.zeros(len(whole))
        seen = ScoringInput(whole.slot[at], whole.epoch_s[at], whole.value[at])
        oddness[at] = detector.score(rows, seen)
        oddness[mark == expected.LEARNT] = 0.0
        return oddness

    def unraised(
        self, oddness: NDArray[np.float64], judged: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """``judged`` [n], but for what is expected, and the way back, no more than ``oddness``."""
        if not self._mark.any():
            return judged
        return np.where(self._mark != expected.NO, np.fmin(oddness, judged), judged)
