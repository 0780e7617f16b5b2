"""Background search for settings, on training's queue and under its lease."""

from __future__ import annotations

import logging

from celery import shared_task
from django.conf import settings

from detection import training_queue, tuning_run
from detection.models import Study
from detection.training_queue import TrainingBusyError

log = logging.getLogger(__name__)

NAME = "detection.tasks.tune"  # routed to the queue of all of detection's tasks
RETRY_S = 60


@shared_task(name=NAME, ignore_result=True)
def tune(study: int) -> str:
    """Run the waiting study; while another training runs, it is asked again a minute later.

    A study that had begun when its worker died is marked failed here and not begun again: a task
    that is delivered twice runs once.
    """
    client = settings.VIGIL.kafka.quiet_client_config()
    try:
        with training_queue.lease():
            tuning_run.bury_the_dead()
            row = tuning_run.run(study, client)
    except TrainingBusyError:
        if Study.objects.filter(pk=study, status=Study.Status.QUEUED).exists():
            tune.apply_async((study,), countdown=RETRY_S)
        return f"study {study} waits for another training"
    except Study.DoesNotExist:
        return f"study {study} is gone"
    said = f"study {study}: {row.status}{f', {row.reason}' if row.reason else ''}"
    log.info("tuning: %s", said)
    return said


def wake(study: int) -> bool:
    """Send word to a worker; False where the broker takes none."""
    try:
        tune.apply_async((study,), queue="training", retry=False)
    except Exception as error:  # the broker's clients raise errors of many kinds
        log.warning("tuning.not_sent", extra={"error": str(error)})
        return False
    return True
