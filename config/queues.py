"""The names of Celery's queues: for the app, and for the pages that say what waits in them."""

from __future__ import annotations

QUEUES = ("training", "alerts", "default")
