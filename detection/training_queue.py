"""Whose turn it is to train: runs that wait, one lease for all, and what dead workers left.

Only one training runs at a time in the whole installation: a lease in PostgreSQL that dies with
its holder's connection. Whoever holds it knows that every other run marked as running is dead.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from django.db import connection, transaction

from detection import study_queue
from detection.errors import DetectionError, TransitionRefused
from detection.models import Study, TrainingRun
from detection.training_run import Order, Outcome, Promote, Status, order_of, run

log = logging.getLogger(__name__)

LEASE = 724_102  # of PostgreSQL's advisory locks; rollups use 724101
ATTEMPTS = 2
SILENT = dt.timedelta(seconds=120)  # a run without a heartbeat for so long holds no lease
DIED = "the worker ended before the training did"


class TrainingBusyError(DetectionError):
    """Retry later: another training holds the lease."""


@contextmanager
def lease() -> Iterator[None]:
    """Hold the one right to train; runs and studies whose holder died are failed and queued once
    more.

    Raises:
        TrainingBusyError: another process trains.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [LEASE])
        (got,) = cursor.fetchone()
    if not got:
        raise TrainingBusyError("another training is running; wait for it to end")
    try:
        bury_the_dead()
        study_queue.bury_the_dead()
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LEASE])


def queue(
    order: Order, *, trigger: str, requested_by: int | None = None, at_once: bool = True
) -> TrainingRun:
    """The run that will train this; the same one while an equal order waits.

    ``at_once`` sends word to a worker after the commit; else the next look finds it.
    """
    said = order.as_json()
    with transaction.atomic():
        waiting = TrainingRun.objects.select_for_update().filter(
            stream=order.stream, metric=order.metric, algorithm=order.algorithm,
            status=Status.QUEUED, order=said,
        )  # fmt: skip
        record = waiting.first() or TrainingRun.objects.create(
            stream=order.stream, metric=order.metric, algorithm=order.algorithm,
            status=Status.QUEUED, order=said, trigger=trigger, requested_by_id=requested_by,
        )  # fmt: skip
        if at_once:
            transaction.on_commit(wake)
    return record


def changed(order: Order, promote: Promote, since: dt.timedelta | None) -> Order:
    """The order with another way of promotion, or of another time."""
    return replace(order, promote=promote, since=order.since if since is None else since)


def wake() -> None:
    """Tell a worker that somebody waits; without a broker the scheduler's next look does it."""
    from celery import current_app

    try:
        # A word that nobody takes within the time between two looks is said again by the next.
        current_app.send_task("detection.tasks.train_queued", queue="training", expires=30,
                              retry=False, ignore_result=True)  # fmt: skip
    except Exception as error:  # the broker's clients raise errors of many kinds
        log.warning("training.not_sent", extra={"error": str(error)})


def work_off(client: Mapping[str, Any]) -> list[Outcome]:
    """Train what waits, the oldest first, until nothing does; call it with the lease held."""
    done: list[Outcome] = []
    while (record := _claim()) is not None:
        try:
            order = order_of(record)
        except ValueError as error:
            _end(record, Status.FAILED, str(error))
            continue
        done.append(run(order, client, record=record))
    return done


def cancel(identity: int, by: str) -> TrainingRun:
    """End a run: at once while it waits, within seconds while it runs, whatever its stage.

    Raises:
        TrainingRun.DoesNotExist: no such run.
        TransitionRefused: it has ended already.
    """
    with transaction.atomic():
        record = TrainingRun.objects.select_for_update().get(pk=identity)
        if record.status == Status.QUEUED:
            _end(record, Status.CANCELLED, f"cancelled by {by} before it began")
        elif record.status == Status.RUNNING:
            if not record.cancel_requested:
                record.cancel_requested, record.reason = True, f"cancelled by {by}"
                record.save(update_fields=["cancel_requested", "reason"])
        else:
            raise TransitionRefused(
                f"training run {record.pk} is {record.status} already: nothing to cancel"
            )
    return record


def look_after() -> list[TrainingRun]:
    """What the scheduler does often: ends the sleepers' lease, buries the dead, wakes a worker.

    Returns the runs that wait for one. Studies that wait are woken up as well, one at a time.
    """
    runs = TrainingRun.objects.filter(status__in=(Status.QUEUED, Status.RUNNING))
    studies = Study.objects.filter(status__in=study_queue.ACTIVE)
    if not runs.exists() and not studies.exists():
        return []
    end_sleepers()
    try:
        with lease():
            waiting = list(TrainingRun.objects.filter(status=Status.QUEUED).order_by("pk"))
            study = Study.objects.filter(status=Study.Status.QUEUED).order_by("pk").first()
    except TrainingBusyError:
        return []
    if waiting:
        wake()
    if study is not None:
        study_queue.wake(study.pk)
    return waiting


def bury_the_dead() -> list[TrainingRun]:
    """Fail every run that nobody runs, and queue each once more; call it with the lease held."""
    retries = []
    with transaction.atomic():
        running = TrainingRun.objects.select_for_update().filter(status=Status.RUNNING)
        searched = Study.objects.filter(status=Study.Status.RUNNING).exists()
        for record in running.order_by("pk"):
            if record.cancel_requested:
                _end(record, Status.CANCELLED, record.reason or "cancelled")
                continue
            stage = f" while {record.stage}" if record.stage else ""
            _end(record, Status.FAILED, f"{DIED}{stage}")
            # A study that died with its training is searched again as a whole.
            died_with_study = record.trigger == TrainingRun.Trigger.TUNING and searched
            if record.attempt < ATTEMPTS and not died_with_study:
                retries.append(_again(record))
    return retries


def end_sleepers(now: dt.datetime | None = None) -> bool:
    """Take the lease from a process that holds it and does nothing: frozen, or cut off.

    Its session ends, so it can store nothing when it wakes up. True if there was one.
    """
    now = now or dt.datetime.now(dt.UTC)
    runs = TrainingRun.objects.filter(status=Status.RUNNING)
    studies = Study.objects.filter(status=Study.Status.RUNNING)
    if not runs.exists() and not studies.exists():
        return False
    if any(rows.filter(heartbeat_at__gt=now - SILENT).exists() for rows in (runs, studies)):
        return False
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            " AND classid = 0 AND objid = %s AND objsubid = 1 AND granted AND pid <>"
            " pg_backend_pid() AND database = (SELECT oid FROM pg_database WHERE datname ="
            " current_database())",
            [LEASE],
        )
        return bool(cursor.fetchall())


def _claim() -> TrainingRun | None:
    now = dt.datetime.now(dt.UTC)
    with transaction.atomic():
        waiting = TrainingRun.objects.select_for_update(skip_locked=True, of=("self",))
        record = (
            waiting.select_related("stream").filter(status=Status.QUEUED).order_by("pk").first()
        )
        if record is not None:
            record.status, record.started_at, record.heartbeat_at = Status.RUNNING, now, now
            record.save(update_fields=["status", "started_at", "heartbeat_at"])
    return record


def _again(record: TrainingRun) -> TrainingRun:
    return TrainingRun.objects.create(
        stream=record.stream, metric=record.metric, algorithm=record.algorithm,
        status=Status.QUEUED, order=record.order, trigger=TrainingRun.Trigger.RETRY,
        requested_by=record.requested_by, attempt=record.attempt + 1, retry_of=record,
    )  # fmt: skip


def _end(record: TrainingRun, status: Status, reason: str) -> None:
    record.status, record.reason = status, reason
    record.finished_at = dt.datetime.now(dt.UTC)
    record.save(update_fields=["status", "reason", "finished_at"])
