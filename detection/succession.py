"""The next in line: newly trained versions become challengers, and those that pass, champions."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from django.conf import settings

from detection import gate, gate_faults, model_store, training_queue
from detection.errors import DetectionError
from detection.models import DriftReport, ModelVersion, TrainingRun
from detection.training_orders import order_again
from streams.errors import StreamsError

log = logging.getLogger(__name__)

State = ModelVersion.State
BY_ITSELF = (TrainingRun.Trigger.SCHEDULE, TrainingRun.Trigger.DRIFT, TrainingRun.Trigger.RETRY)


def retrain(report: DriftReport, now: dt.datetime | None = None) -> TrainingRun | None:
    """Ask for the next version of a line that has drifted; once a day, and while none waits."""
    now = now or dt.datetime.now(dt.UTC)
    model = report.model
    line = {"stream": model.stream_id, "metric": model.metric, "algorithm": model.algorithm}
    if ModelVersion.objects.filter(
        **line, version__gt=model.version, state__in=(State.CANDIDATE, State.CHALLENGER)
    ).exists():
        return None
    if TrainingRun.objects.filter(
        **line, trigger=TrainingRun.Trigger.DRIFT, started_at__gte=now - dt.timedelta(days=1)
    ).exists():
        return None
    order = replace(order_again(model), promote="never")
    record = training_queue.queue(order, trigger=TrainingRun.Trigger.DRIFT)
    report.retraining = record
    report.save(update_fields=["retraining"])
    return record


def challenge_newest() -> list[ModelVersion]:
    """Let the newest version of each line that training made by itself challenge its champion.

    A challenger that is still being watched keeps its turn; one that was judged after its full
    time and did not pass makes room.
    """
    made = []
    for champion in ModelVersion.objects.filter(state=State.CHAMPION).defer("artefact"):
        line = ModelVersion.objects.filter(
            stream=champion.stream_id, metric=champion.metric, algorithm=champion.algorithm
        ).defer("artefact")
        newest = line.filter(version__gt=champion.version).order_by("-version").first()
        if newest is None or newest.state != State.CANDIDATE:
            continue
        if newest.run is None or newest.run.trigger not in BY_ITSELF:
            continue
        present = line.filter(state=State.CHALLENGER).first()
        if present is not None and not (gate.long_enough(present) and _refused(present)):
            continue
        try:
            made.append(model_store.challenge(newest.pk, reason=f"trained by run {newest.run_id}"))
        except DetectionError as error:
            log.warning("challenger.refused model=%s reason=%s", newest.pk, error)
    return made


def judge_all(client: Mapping[str, Any]) -> list[str]:
    """Ask the gate about every challenger, and promote those that pass where the settings say so.

    Returns a line for each challenger.
    """
    said = []
    challengers = ModelVersion.objects.filter(state=State.CHALLENGER).select_related("stream")
    for model in challengers.defer("artefact").order_by("pk"):
        name = model_store.describe(model)
        try:
            if gate.long_enough(model) and not _measured(model):
                gate_faults.measure(model, client)
            said.append(f"{name} {_decided(model, gate.judge(model))}")
        except (DetectionError, StreamsError) as error:
            said.append(f"{name} could not be judged: {error}")
    return said


def _decided(model: ModelVersion, verdict: gate.GateResult) -> str:
    """Promote it where it passed and the settings say so; what became of it."""
    if not verdict.passed:
        return f"stays challenger: {' '.join(verdict.reasons)}"
    if not settings.VIGIL.anomaly_detection.registry.auto_promote:
        return "passed the gate and waits to be promoted"
    model_store.promote(model.pk, reason="passed the gate")
    return "passed the gate and is champion"


def _measured(model: ModelVersion) -> bool:
    champion = model_store.champion(model.stream, model.metric, model.algorithm)
    return gate_faults.of_model(model, champion) is not None


def _refused(model: ModelVersion) -> bool:
    """Judged in full, and not for lack of the test that a worker still owes."""
    if not model.gate or model.gate["passed"]:
        return False
    return bool(model.gate["figures"]["injected"])
