"""Background training: looks often, trains only what is due, and never two at once."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast, get_args

from celery import shared_task
from django.conf import settings
from django.db.models import Sum

from detection import drift, model_store, succession, training_queue, watch
from detection.forecast import MAX_AGE_HOURS
from detection.models import ModelVersion, TrainingRun
from detection.registry import MODEL_DETECTORS
from detection.training_orders import new_order
from detection.training_queue import TrainingBusyError
from detection.training_run import MIN_ROWS, Order, Outcome, Promote, run
from detection.tuning_tasks import tune as tune  # workers find tasks in this module
from streams.connectors.topic import event_counts
from streams.errors import BrokerError
from streams.models import Series, Stream
from streams.vectors import PREFIX

log = logging.getLogger(__name__)

MOST_SCHEMAS = 10  # of a stream's wide events that get models of their own by themselves
GROWTH = 4  # times the events of the newest: one from the first minutes soon gets a successor


@shared_task(name="detection.tasks.train_models", ignore_result=True)
def train_models(
    stream: str | None = None,
    metric: str = "",
    algorithm: str | None = None,
    since_hours: float | None = None,
    max_age_hours: float = MAX_AGE_HOURS,
    promote: str = "first",
    seed: int = 0,
    force: bool = False,
) -> list[str]:
    """Train what is due: no model yet, the newest too old, or history grown fourfold since.

    The first model of a line scores at once (with ``promote`` "never" not even that), and one after
    a champion that can't be loaded. All others have to pass the gate. ``force`` trains whatever
    the newest version's age. Returns a line for each model looked at.
    """
    client = settings.VIGIL.kafka.quiet_client_config()
    said: list[str] = []
    if promote not in get_args(Promote):
        said.append(f"promote is {promote!r}: first or never; the gate decides of later models")
        promote = "first"
    try:
        with training_queue.lease():
            said += [_line(outcome) for outcome in training_queue.work_off(client)]
            for order in _orders(stream, metric, algorithm, seed):
                since = None if since_hours is None else dt.timedelta(hours=since_hours)
                order = replace(order, since=since, promote=cast(Promote, promote))
                if force or _due(order, client, max_age_hours):
                    outcome = run(order, client, trigger=TrainingRun.Trigger.SCHEDULE)
                    said.append(_line(outcome))
    except TrainingBusyError as error:
        said.append(str(error))
    for line in said:
        log.info("training: %s", line)
    return said


@shared_task(name="detection.tasks.measure_drift", ignore_result=True)
def measure_drift() -> list[str]:
    """A report of each champion and metric; returns a line for each that has drifted."""
    rules = drift.settings_of(settings.VIGIL)
    said = []
    for stream in Stream.objects.order_by("pk"):
        for report in drift.measure(stream, rules):
            if drift.state_of(report.worst_psi, rules) == "drifted":
                if settings.VIGIL.anomaly_detection.drift.retrain:
                    succession.retrain(report)
                said.append(
                    f"{model_store.describe(report.model)}: {drift.worst_of(report)} of"
                    f" {report.metric or 'all metrics'} has drifted, PSI {report.worst_psi:.2f}"
                )
    drift.prune(rules, dt.datetime.now(dt.UTC))
    for line in said:
        log.warning("drift: %s", line)
    return said


@shared_task(name="detection.tasks.train_queued", ignore_result=True)
def train_queued() -> list[str]:
    """Train what people and programs asked for, one after the other; nothing while others do."""
    try:
        with training_queue.lease():
            said = [
                _line(outcome)
                for outcome in training_queue.work_off(settings.VIGIL.kafka.quiet_client_config())
            ]
    except TrainingBusyError:
        return []
    for line in said:
        log.info("training: %s", line)
    return said


@shared_task(name="detection.tasks.look_after_training", ignore_result=True)
def look_after_training() -> int:
    """Fail runs whose worker died, queue them once more, and wake a worker for what waits."""
    return len(training_queue.look_after())


@shared_task(name="detection.tasks.judge_challengers", ignore_result=True)
def judge_challengers() -> list[str]:
    """Let newly trained versions challenge, and ask the gate about all that do."""
    if settings.VIGIL.anomaly_detection.registry.auto_challenge:
        succession.challenge_newest()
    said = succession.judge_all(settings.VIGIL.kafka.quiet_client_config())
    for line in said:
        log.info("gate: %s", line)
    return said


@shared_task(name="detection.tasks.watch_champions", ignore_result=True)
def watch_champions() -> list[str]:
    """Roll back a new champion that alarms out of proportion within its first hour."""
    return watch.look()


def _orders(stream: str | None, metric: str, algorithm: str | None, seed: int) -> Iterator[Order]:
    """One for each model that serves all metrics, and for each metric that has its own champion."""
    detectors = settings.VIGIL.anomaly_detection.detectors
    names = [algorithm] if algorithm else [n for n in detectors.enabled if n in MODEL_DETECTORS]
    rows = Stream.objects.order_by("pk")
    for row in rows.filter(name=stream) if stream else rows:
        wanted = [metric] if metric else ["", *schemas_of(row)]
        lines = {(name, of) for name in names for of in wanted}
        if not metric:
            lines |= {
                (m.algorithm, m.metric) for m in model_store.champions(row) if m.algorithm in names
            }
        for name, of in sorted(lines):
            yield new_order(settings.VIGIL, row, name, of, seed=seed)


def schemas_of(stream: Stream) -> list[str]:
    """Labels of a stream's wide events, those with the most events first: each needs models of its
    own, since their columns differ."""
    found = Series.objects.filter(stream=stream, metric__startswith=PREFIX)
    seen = found.values("metric").annotate(events=Sum("events")).filter(events__gte=MIN_ROWS)
    return list(seen.order_by("-events", "metric").values_list("metric", flat=True)[:MOST_SCHEMAS])


def _due(order: Order, client: dict[str, Any], max_age_hours: float) -> bool:
    try:
        events = sum(event_counts(client, order.stream.topic).values())
    except BrokerError as error:
        log.warning("training: %s", error)
        return False
    if events == 0:
        return False
    newest = _newest(order)
    first = not model_store.was_live(order.stream, order.metric, order.algorithm)
    if newest is None or (first and order.promote == "first"):
        return _worth_another_try(order, events)
    learnt = sum(end - start for start, end in newest.manifest.get("offsets", {}).values())
    if learnt and GROWTH * learnt <= min(events, order.max_events):
        return True
    return dt.datetime.now(dt.UTC) - newest.created_at >= dt.timedelta(hours=max_age_hours)


def _newest(order: Order) -> ModelVersion | None:
    return model_store.line_of(order.stream, order.metric, order.algorithm).first()


def _worth_another_try(order: Order, events: int) -> bool:
    """After an attempt in vain only with a fifth more events, or an hour after a failure."""
    last = (
        TrainingRun.objects.filter(
            stream=order.stream, metric=order.metric, algorithm=order.algorithm
        )
        .order_by("-pk")
        .first()
    )
    if last is None or last.status in (TrainingRun.Status.DONE, TrainingRun.Status.QUEUED):
        return True
    if last.status == TrainingRun.Status.SKIPPED:
        return events >= 1.2 * int(last.params.get("events", 0))
    return _older(last, hours=1)


def _older(run: TrainingRun, hours: float) -> bool:
    return dt.datetime.now(dt.UTC) - run.started_at >= dt.timedelta(hours=hours)


def _line(outcome: Outcome) -> str:
    record = outcome.run
    if outcome.model is None:
        of = record.stream.name if record.stream else "?"
        return f"{record.algorithm} of {of}: {record.reason}"
    state = "champion" if outcome.promoted else "candidate"
    return (
        f"{model_store.describe(outcome.model)}: {state}, {len(outcome.rows or ()):,} rows "
        f"in {outcome.took_s:.1f} s"
    )
