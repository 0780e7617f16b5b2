"""Background work of anomalies: ages out what the settings no longer keep."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import asdict

from celery import shared_task
from django.conf import settings

import anomalies.labelled  # noqa: F401  (a worker that trains leaves out what is confirmed)
import streams.retention
from anomalies import retention, surroundings

log = logging.getLogger(__name__)


@shared_task(name="anomalies.tasks.apply_retention", ignore_result=True)
def apply_retention() -> dict[str, object]:
    """Drop what is older than the settings' days; returns how much of each kind."""
    keep = settings.VIGIL.retention
    now = dt.datetime.now(dt.UTC)
    found = retention.apply(
        now,
        anomalies_days=keep.anomalies_days,
        candidates_days=keep.candidates_days,
        outbox_days=keep.outbox_days,
    )
    under = streams.retention.apply(
        now,
        rollups_days=keep.rollups_days,
        hours_days=keep.hours_days,
        dead_letters_days=keep.dead_letters_days,
    )
    dropped = asdict(found) | asdict(under)
    log.info("retention: %s", dropped)
    return dropped


@shared_task(name="anomalies.tasks.complete_evidence", ignore_result=True)
def complete_evidence(most: int = 200) -> int:
    """Look up what surrounds the newest anomalies and store it; returns how many.

    Of more the pages look up what they show.
    """
    now = dt.datetime.now(dt.UTC)
    waiting = surroundings.due(now, most)
    for anomaly in waiting:
        surroundings.of(anomaly, now)
    return len(waiting)
