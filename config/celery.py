"""The Celery app: three queues on Redis, schedule in the database, tasks acknowledged when done."""

from __future__ import annotations

import os

from celery import Celery
from kombu import Exchange, Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from config.loading import refuse_if_invalid

refuse_if_invalid()

from django.conf import settings

from config.queues import QUEUES

TASK_TIME_LIMIT_S = 3_600

app = Celery("vigil")
app.conf.update(
    broker_url=settings.CELERY_BROKER_URL,
    broker_connection_retry_on_startup=True,
    # Redis gives a task that is unacknowledged for so long to another worker as well: longer
    # than any task may take, and tasks that must not run twice hold a lease besides.
    broker_transport_options={"visibility_timeout": 2 * TASK_TIME_LIMIT_S},
    task_time_limit=TASK_TIME_LIMIT_S,
    task_soft_time_limit=TASK_TIME_LIMIT_S - 300,
    task_acks_late=True,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    task_queues=[Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
    task_default_queue="default",
    task_routes={"detection.tasks.*": {"queue": "training"}, "alerts.tasks.*": {"queue": "alerts"}},
    worker_prefetch_multiplier=1,
    worker_max_tasks_per_child=100,
    worker_hijack_root_logger=False,
    worker_cancel_long_running_tasks_on_connection_loss=True,
    beat_scheduler="django_celery_beat.schedulers:DatabaseScheduler",
    # By default beat writes three minutes late when it last sent a task: pages took it for idle,
    # and one that was restarted more often forgot what it had sent.
    beat_sync_every=1,
    timezone="UTC",
    enable_utc=True,
)
app.autodiscover_tasks()

from config import signs  # noqa: F401  (workers and beat give signs of life)
