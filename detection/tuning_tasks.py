"""Background search for settings, on training's queue and under its lease."""

from __future__ import annotations

import logging

from celery import shared_task
from django.conf import settings

from detection import training_queue, tuning, tuning_run
from detection.models import Study
from detection.training_queue import TrainingBusyError

log = logging.getLogger(__name__)

NAME = "detection.tasks.tune"  # routed to the queue of all of detection's tasks
# A study ends itself in its time; this is for one that hangs.
LIMIT_S = int(tuning.MOST_SECONDS) + 3_600


@shared_task(name=NAME, ignore_result=True, time_limit=LIMIT_S, soft_time_limit=LIMIT_S - 300)
def tune(study: int) -> str:
    """Run the study if it still waits: a task that is delivered twice runs once.

    While another training runs it goes on waiting, and the scheduler's next look sends word again.
    """
    client = settings.VIGIL.kafka.quiet_client_config()
    try:
        with training_queue.lease():
            row = tuning_run.run(study, client)
    except TrainingBusyError:
        return f"study {study} waits for another training"
    except Study.DoesNotExist:
        return f"study {study} is gone"
    said = f"study {study}: {row.status}{f', {row.reason}' if row.reason else ''}"
    log.info("tuning: %s", said)
    return said
