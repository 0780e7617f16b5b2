"""Which settings, policies and models count from which offset on: frozen, hashed, logged.

A scoring version is written once and never changed. The log of a partition names the version that
counts from an offset on; it is committed before the version is used, so every replay obeys it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from django.db import transaction

from detection import learnt_weights
from detection.detectors.vector import VectorDetector
from detection.ensemble import Ensemble
from detection.episodes import Limits
from detection.errors import DetectionError
from detection.models import (
    ModelVersion,
    QuarantineRelease,
    ScoringVersion,
    ThresholdPolicy,
    VersionLog,
)
from detection.quarantine import KEPT, Release, Releases
from detection.registry import series_detectors
from detection.scoring import CompiledVersion, LoadedModel
from detection.silence import Silence
from detection.thresholds import LEARNT, Policy, PolicyTable
from streams.batch import EventBatch
from streams.checkpoint import Owned, hold
from streams.errors import UnusableError
from streams.models import Stream
from streams.vectors import is_vector

log = logging.getLogger(__name__)

FORMAT = 1

ModelLoader = Callable[[int], LoadedModel]


def payload_of(stream: Stream, base: Mapping[str, Any]) -> dict[str, Any]:
    """What counts now for a stream: ``base`` (the configuration), policies, champions."""
    payload = {
        "format": FORMAT,
        **base,
        "time_zone": stream.time_zone,
        "policies": [
            *_policies(stream, base["max_onsets_per_day"]),
            configured_policy(base).as_dict(),
        ],
        "models": _models(stream, ModelVersion.State.CHAMPION),
    }
    if challengers := _models(stream, ModelVersion.State.CHALLENGER):
        payload["challengers"] = challengers
    if releases := _releases(stream):
        payload["releases"] = releases
    if learnt := learnt_weights.in_use(stream):
        payload["learnt"] = {
            "id": learnt.pk, "combine": learnt.method, "weights": learnt.weights,
            "gain": learnt.gain,
        }  # fmt: skip
    return payload


def ensemble_of(payload: Mapping[str, Any], *, of_vectors: bool = False) -> Ensemble:
    """How a version's detectors become one: by learnt weights where it has some, of series only.

    A mean by learnt weights leaves out detectors that nothing was learnt of.
    """
    learnt = payload.get("learnt")
    if not learnt or of_vectors:
        return Ensemble(payload.get("combine", ""), payload.get("weights", {}))
    others = payload["weights"]
    if learnt["combine"] != "max":
        others = dict.fromkeys(others, 0.0)
    return Ensemble(learnt["combine"], {**others, **learnt["weights"]}, learnt["gain"])


def _models(stream: Stream, state: str) -> list[dict[str, Any]]:
    rows = ModelVersion.objects.filter(stream=stream, state=state)
    return [
        {
            "id": m.pk,
            "algorithm": m.algorithm,
            "metric": m.metric,
            "version": m.version,
            "sha256": m.sha256,
        }
        for m in rows.order_by("algorithm", "metric").defer("artefact")
    ]


def configured_policy(base: Mapping[str, Any]) -> Policy:
    """What counts where no policy of the admin does."""
    return Policy(
        "configuration",
        threshold=base["threshold"],
        max_onsets_per_day=base["max_onsets_per_day"],
    )


def policy_table(stream: Stream, base: Mapping[str, Any]) -> PolicyTable:
    """What counts for this stream's series by the rows of now."""
    rows = [Policy(**p) for p in _policies(stream, base["max_onsets_per_day"])]
    return PolicyTable([*rows, configured_policy(base)])


def _releases(stream: Stream) -> list[dict[str, Any]]:
    rows = QuarantineRelease.objects.filter(series__stream=stream).select_related("series")
    return [
        Release(
            id=r.pk,
            source=r.series.source,
            metric=r.series.metric,
            partition=-1 if r.partition is None else r.partition,
            first=-1 if r.first_event is None else r.first_event,
            last=-1 if r.last_event is None else r.last_event,
            values=tuple(r.values),
            flat=r.flat,
            pause_s=r.pause_s,
        ).as_dict()
        for r in sorted(rows.order_by("-pk")[:KEPT], key=lambda r: r.pk)
    ]


def _policies(stream: Stream, max_onsets_per_day: float) -> list[dict[str, Any]]:
    rows = ThresholdPolicy.objects.filter(enabled=True)
    mine = [p for p in rows if p.stream_id in (None, stream.pk)]

    def precedence(p: ThresholdPolicy) -> tuple[bool, bool, int, int]:
        return (
            bool(p.source_pattern or p.metric_pattern),
            p.stream_id is not None,
            p.priority,
            p.pk,
        )

    return [
        Policy(
            name=p.name,
            version=p.version,
            source_pattern=p.source_pattern,
            metric_pattern=p.metric_pattern,
            threshold=p.threshold,
            direction=p.direction,
            min_absolute_deviation=p.min_absolute_deviation,
            min_relative_deviation=p.min_relative_deviation,
            medium_from=p.medium_from,
            high_from=p.high_from,
            critical_from=p.critical_from,
            max_onsets_per_day=(
                max_onsets_per_day if p.max_onsets_per_day is None else p.max_onsets_per_day
            ),
            silence_after_s=LEARNT if p.silence_after_s is None else p.silence_after_s,
        ).as_dict()
        for p in sorted(mine, key=precedence, reverse=True)
    ]


def store(stream: Stream, payload: Mapping[str, Any]) -> ScoringVersion:
    """The row of this payload, the same one for the same content."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    row, _ = ScoringVersion.objects.get_or_create(
        stream=stream, sha256=sha256, defaults={"payload": payload}
    )
    return row


def compile_version(
    identity: int,
    payload: Mapping[str, Any],
    load_model: ModelLoader,
) -> CompiledVersion:
    """Ready to score with: with the settings of then, whatever the configuration says now.

    Raises:
        ArtefactError: a model can't be loaded.
    """
    enabled = payload["detectors"]
    options = {
        name: {key: value for key, value in values.items() if key != "enabled"}
        for name, values in enabled.items()
        if values.get("enabled")
    }
    models = tuple(load_model(m["id"]) for m in payload["models"] if m["algorithm"] in options)
    rivals = _challengers(payload, options, load_model)
    policies = PolicyTable([Policy(**p) for p in payload["policies"]])
    return CompiledVersion(
        id=identity,
        detectors=series_detectors(options),
        models=tuple(m for m in models if not is_vector(m.metric)),
        vector=VectorDetector(**options[VectorDetector.name]) if _sees_vectors(options) else None,
        vector_models=tuple(m for m in models if is_vector(m.metric)),
        ensemble=ensemble_of(payload),
        vector_ensemble=ensemble_of(payload, of_vectors=True),
        policies=policies,
        limits=Limits(payload["quiet_events"], round(payload["max_gap_s"] * 1_000_000)),
        time_zone=payload["time_zone"],
        challengers=tuple(m for m in rivals if not is_vector(m.metric)),
        vector_challengers=tuple(m for m in rivals if is_vector(m.metric)),
        # versions of the past know of none of these
        own_tails=payload.get("own_tails", False),
        silence=Silence.of(payload.get("silence"), policies),
        releases=Releases([Release.of(r) for r in payload.get("releases", ())]),
    )


def _challengers(
    payload: Mapping[str, Any], options: Mapping[str, Any], load_model: ModelLoader
) -> tuple[LoadedModel, ...]:
    """Those that can be loaded: a broken one must not keep what alarms from its settings."""
    found = []
    for given in payload.get("challengers", ()):
        if given["algorithm"] not in options:
            continue
        try:
            found.append(load_model(given["id"]))
        except DetectionError as error:
            log.error("challenger.refused model=%s reason=%s", given["id"], error)
    return tuple(found)


def _sees_vectors(options: Mapping[str, Any]) -> bool:
    """Versions from before there were vectors don't name their detector, and go without it."""
    return VectorDetector.name in options


class VersionKeeper:
    """The log of the owned partitions of one stream, and what should count next."""

    def __init__(
        self,
        stream: Stream,
        base: Mapping[str, Any],
        load_model: ModelLoader,
    ) -> None:
        self._stream = stream
        self._base = base
        self._load_model = load_model
        self._compiled: dict[int, CompiledVersion] = {}
        self._models: dict[int, LoadedModel] = {}
        self._entries: dict[int, list[tuple[int, int]]] = {}
        self.desired = 0

    def refresh(self) -> bool:
        """Look what should count now; True if it is something else than before.

        Raises:
            UnusableError: it can't be used; what counted before goes on.
        """
        self._stream.refresh_from_db()
        row = store(self._stream, payload_of(self._stream, self._base))
        changed = row.pk != self.desired
        if changed:
            # Compile before use: a model that can't be loaded must not reach the log.
            try:
                self.compiled(row.pk)
            except DetectionError as error:
                raise UnusableError(str(error)) from error
            self.desired = row.pk
        return changed

    def attach(self, owned: Owned) -> None:
        """Read a partition's log; begin it where there is none yet."""
        rows = VersionLog.objects.filter(
            incarnation_id=owned.incarnation_id, partition=owned.partition
        ).order_by("from_offset")
        entries = list(rows.values_list("from_offset", "scoring_version_id"))
        self._entries[owned.partition] = entries
        if not entries:
            self.append(owned, owned.next_offset)

    def detach(self, partition: int) -> None:
        """Forget a partition's log."""
        self._entries.pop(partition, None)

    def outdated(self) -> bool:
        """Whether the log of some partition ends with another version than the desired one."""
        return any(log and log[-1][1] != self.desired for log in self._entries.values())

    def append(self, owned: Owned, from_offset: int) -> None:
        """Let the desired version count from ``from_offset`` on, if another one does.

        A version scheduled for a later offset stays as it is.

        Raises:
            FencedError: the partition has another owner.
        """
        entries = self._entries[owned.partition]
        if entries and entries[-1][1] == self.desired:
            return
        if entries and entries[-1][0] > from_offset:
            return
        with transaction.atomic():
            hold(owned)
            VersionLog.objects.update_or_create(
                incarnation_id=owned.incarnation_id,
                partition=owned.partition,
                from_offset=from_offset,
                defaults={"scoring_version_id": self.desired},
            )
        if entries and entries[-1][0] == from_offset:
            entries.pop()
        entries.append((from_offset, self.desired))

    def split(self, batch: EventBatch) -> list[tuple[CompiledVersion, EventBatch]]:
        """The batch in parts that one version scores each, in order for every partition."""
        single = self._single(batch)
        if single is not None:
            return [(self.compiled(single), batch)]
        rank = np.zeros(len(batch), dtype=np.int64)
        version = np.zeros(len(batch), dtype=np.int64)
        for partition, entries in self._entries.items():
            mine = batch.partition == partition
            if not mine.any():
                continue
            starts = np.array([start for start, _ in entries], dtype=np.int64)
            at = np.searchsorted(starts, batch.offset[mine], side="right") - 1
            at = np.maximum(at, 0)
            rank[mine] = at - at.min()
            version[mine] = np.array([v for _, v in entries], dtype=np.int64)[at]
        parts: list[list[int]] = np.unique(np.stack([rank, version], axis=1), axis=0).tolist()
        if len(parts) == 1:
            return [(self.compiled(int(parts[0][1])), batch)]
        return [(self.compiled(int(v)), batch.take((rank == r) & (version == v))) for r, v in parts]

    def _single(self, batch: EventBatch) -> int | None:
        """The one version that scores the whole batch, if there is but one."""
        found: set[int] = set()
        for partition in batch.committable:
            entries = self._entries[partition]
            if len(entries) > 1:
                offsets = batch.offset[batch.partition == partition]
            if len(entries) == 1 or not len(offsets) or offsets[0] >= entries[-1][0]:
                found.add(entries[-1][1])
            else:
                return None
        return found.pop() if len(found) == 1 else None

    def compiled(self, identity: int) -> CompiledVersion:
        """A stored version, compiled once."""
        known = self._compiled.get(identity)
        if known is None:
            row = ScoringVersion.objects.get(pk=identity)
            known = compile_version(identity, row.payload, self._model)
            self._compiled[identity] = known
        return known

    def newest(self, partition: int) -> CompiledVersion:
        """What the log of an owned partition ends with."""
        return self.compiled(self._entries[partition][-1][1])

    def _model(self, identity: int) -> LoadedModel:
        if identity not in self._models:
            self._models[identity] = self._load_model(identity)
        return self._models[identity]
