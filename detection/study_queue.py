"""Studies that wait, end early, or whose worker died; what runs one is ``detection.tuning_run``.

They hold training's lease: whoever has it knows that every other study marked as running is dead.
"""

from __future__ import annotations

import datetime as dt
import logging

from django.db import transaction

from detection.errors import TransitionRefused
from detection.models import Study

log = logging.getLogger(__name__)

Status = Study.Status
ACTIVE = (Status.QUEUED, Status.RUNNING)
ATTEMPTS = 2
DIED = "the worker ended before the search did"


def bury_the_dead() -> list[Study]:
    """Fail every study that nobody runs, and queue each once more; call it with the lease held.

    Returns those that wait in their place.
    """
    retries = []
    with transaction.atomic():
        running = Study.objects.select_for_update(of=("self",)).filter(status=Status.RUNNING)
        for study in running.order_by("pk"):
            if study.cancel_requested:
                _end(study, Status.CANCELLED, f"cancelled {_after(study)}")
                continue
            _end(study, Status.FAILED, f"{DIED}, {_after(study)}")
            if study.attempt < ATTEMPTS:
                retries.append(_again(study))
    return retries


def cancel(identity: int) -> Study:
    """End a study: at once while it waits, within seconds while it runs, in a trial too.

    Raises:
        Study.DoesNotExist: no such study.
        TransitionRefused: it has ended already.
    """
    with transaction.atomic():
        row = Study.objects.select_for_update().get(pk=identity)
        if row.status not in ACTIVE:
            raise TransitionRefused(f"study {row.pk} is {row.status} already: nothing to cancel")
        row.cancel_requested = True
        if row.status == Status.QUEUED:
            row.status, row.reason = Status.CANCELLED, "cancelled before it began"
            row.finished_at = dt.datetime.now(dt.UTC)
        row.save(update_fields=["cancel_requested", "status", "reason", "finished_at"])
    return row


def wake(identity: int) -> bool:
    """Send word to a worker; False where the broker takes none."""
    from celery import current_app

    try:
        # A word that nobody takes until the scheduler's next look is said again by that.
        current_app.send_task("detection.tasks.tune", (identity,), queue="training", expires=30,
                              retry=False, ignore_result=True)  # fmt: skip
    except Exception as error:  # the broker's clients raise errors of many kinds
        log.warning("tuning.not_sent", extra={"error": str(error)})
        return False
    return True


def _after(study: Study) -> str:
    done = len(study.trials)
    return f"after {done} trial{'s' * (done != 1)}"


def _again(study: Study) -> Study:
    return Study.objects.create(
        stream=study.stream, metric=study.metric, seed=study.seed, search=study.search,
        max_trials=study.max_trials, max_seconds=study.max_seconds, status=Status.QUEUED,
        requested_by=study.requested_by, attempt=study.attempt + 1, retry_of=study,
    )  # fmt: skip


def _end(study: Study, status: Status, reason: str) -> None:
    study.status, study.reason = status, reason
    study.finished_at = dt.datetime.now(dt.UTC)
    study.save(update_fields=["status", "reason", "finished_at"])
