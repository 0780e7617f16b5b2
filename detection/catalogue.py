"""Reads what pages and programs show of models and training runs; artefacts are never loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import QuerySet
from django.utils.dateparse import parse_datetime

from detection.models import ModelVersion, TrainingRun

MOST_LINES = 200
MOST_TESTS = 20
MOST_FIGURES = 40
ACTIVE = (TrainingRun.Status.QUEUED, TrainingRun.Status.RUNNING)
STAGE_NAMES = (
    ("reading", "Read events, compute features"), ("features", "Put rows in order"),
    ("fitting", "Fit"), ("testing", "Test on held-out rows"), ("storing", "Store"),
)  # fmt: skip
State = ModelVersion.State


@dataclass(slots=True)
class Line:
    """The versions that stand for one another: what scores, what challenges, what waits."""

    stream: str
    metric: str
    algorithm: str
    champion: ModelVersion | None = None
    challenger: ModelVersion | None = None
    newest: ModelVersion | None = None
    shown: list[ModelVersion] = field(default_factory=list)


def versions() -> QuerySet[ModelVersion]:
    """Every version with its stream and run, without the artefacts, the newest first."""
    rows = ModelVersion.objects.select_related("stream", "run").defer("artefact")
    return rows.order_by("-pk")


def lines() -> list[Line]:
    """Each line with its champion, challenger and newest version, by stream, metric, algorithm."""
    key = ("stream__name", "metric", "algorithm")
    serving = versions().filter(state__in=(State.CHAMPION, State.CHALLENGER)).order_by(*key)
    newest = versions().order_by(*key, "-version").distinct(*key)
    found: dict[tuple[str, str, str], Line] = {}
    for row in newest[:MOST_LINES]:
        name = (row.stream.name, row.metric, row.algorithm)
        found[name] = Line(*name, newest=row)
    for row in serving:
        line = found.get((row.stream.name, row.metric, row.algorithm))
        if line is not None and row.state == State.CHAMPION:
            line.champion = row
        elif line is not None:
            line.challenger = row
    for line in found.values():
        rows = (line.champion, line.challenger, line.newest)
        line.shown = list({row.pk: row for row in rows if row is not None}.values())
    return list(found.values())


def runs() -> QuerySet[TrainingRun]:
    """Every training run, the newest first."""
    return TrainingRun.objects.select_related("stream", "requested_by").order_by("-pk")


TOLD = (
    "faults", "found", "recall", "precision", "f1", "pr_auc", "vus_pr", "delay_events",
    "false_alarms_a_day", "false_onsets_per_10000",
)  # fmt: skip
"""Of a group of a test's figures, those that a list has room for."""


def tests(row: ModelVersion, without: str) -> list[tuple[str, datetime, list[tuple[str, Any]]]]:
    """(kind, when, its figures) of a version's newest evaluations, but for those of one kind.

    Of groups such as `all` or `challenger` the main figures are told, with the group's name.
    """
    found = []
    for evaluation in row.evaluations.exclude(kind=without).order_by("-pk")[:MOST_TESTS]:
        told: list[tuple[str, Any]] = []
        for name, value in evaluation.metrics.items():
            if not isinstance(value, Mapping):
                told.append((name, value))
                continue
            told += [
                (f"{name}: {inner}", figure)
                for inner, figure in value.items()
                if not isinstance(figure, Mapping) and (inner in TOLD or TOLD[0] not in value)
            ]
        found.append((evaluation.kind, evaluation.created_at, told[:MOST_FIGURES]))
    return found


@dataclass(frozen=True, slots=True)
class Figures:
    """What a list tells of a version, out of its manifest; None where it says nothing."""

    rows: int | None
    alarms_per_10000: float | None
    first_event: datetime | None
    last_event: datetime | None


def figures(manifest: Mapping[str, Any]) -> Figures:
    """The key figures of a manifest, whatever wrote it."""
    metrics = manifest.get("metrics") or {}
    rows, alarms = manifest.get("rows_used"), metrics.get("held_out_alarms_per_10000")
    return Figures(
        rows if isinstance(rows, int) else None,
        float(alarms) if isinstance(alarms, int | float) else None,
        _moment(manifest.get("first_event")),
        _moment(manifest.get("last_event")),
    )


def model_json(row: ModelVersion, *, whole: bool = False) -> dict[str, Any]:
    """A version for the API; ``whole`` adds manifest and transitions."""
    said: dict[str, Any] = {
        "id": row.pk,
        "stream": row.stream.name,
        "metric": row.metric,
        "algorithm": row.algorithm,
        "version": row.version,
        "state": row.state,
        "sha256": row.sha256,
        "parent": row.parent_id,
        "run": row.run_id,
        "rows": figures(row.manifest).rows,
        "metrics": row.manifest.get("metrics") or {},
        "gate": row.gate or None,
        "created_at": _text(row.created_at),
        "challenged_at": _text(row.challenged_at),
        "promoted_at": _text(row.promoted_at),
        "retired_at": _text(row.retired_at),
    }
    if whole:
        said["manifest"] = row.manifest
        said["transitions"] = [
            {"from": t.from_state or None, "to": t.to_state, "actor": t.actor,
             "reason": t.reason, "at": _text(t.at)}
            for t in row.transitions.order_by("pk")
        ]  # fmt: skip
        said["evaluations"] = [
            {"kind": e.kind, "settings": e.settings, "metrics": e.metrics,
             "at": _text(e.created_at)}
            for e in row.evaluations.order_by("-pk")[:100]
        ]  # fmt: skip
    return said


def run_json(row: TrainingRun) -> dict[str, Any]:
    """A training run for the API."""
    return {
        "id": row.pk,
        "stream": row.stream.name if row.stream else None,
        "metric": row.metric,
        "algorithm": row.algorithm,
        "status": row.status,
        "stage": row.stage,
        "progress": round(row.progress, 4),
        "reason": row.reason,
        "rows": row.rows,
        "trigger": row.trigger,
        "requested_by": row.requested_by.get_username() if row.requested_by else None,
        "attempt": row.attempt,
        "retry_of": row.retry_of_id,
        "cancel_requested": row.cancel_requested,
        "order": row.order,
        "heartbeat_at": _text(row.heartbeat_at),
        "started_at": _text(row.started_at),
        "finished_at": _text(row.finished_at),
    }


def _moment(text: Any) -> datetime | None:
    try:
        return parse_datetime(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")
