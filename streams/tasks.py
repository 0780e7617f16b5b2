"""Background work of streams: hours of series out of their minutes."""

from __future__ import annotations

import datetime as dt

from celery import shared_task

from streams import hours


@shared_task(name="streams.tasks.roll_up_hours", ignore_result=True)
def roll_up_hours() -> int:
    """Make the hours whose minutes have come to rest; returns how many."""
    return hours.roll_up(dt.datetime.now(dt.UTC))
