"""Logs for people: a time, a level, an event's name, its fields (`batch.committed events=500`)."""

from __future__ import annotations

import logging
import os
from typing import Any

from config.addresses import without_password

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# What frameworks attach to their records, of no use in a line.
_NOISE = frozenset({"request", "status_code", "server_time", "data", "stack"})


class EventFormatter(logging.Formatter):
    """Adds what was passed as `extra=` to the line as `key=value`, and hides passwords.

    `log.info("batch.committed", extra={"events": 500, "partition": 2})`
    becomes `12:00:01 INFO  batch.committed events=500 partition=2`.
    """

    default_time_format = "%H:%M:%S"
    default_msec_format = ""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-5s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        line = super().formatMessage(record)
        fields = [
            f"{key}={_shown(value)}"
            for key, value in vars(record).items()
            if key not in _STANDARD and key not in _NOISE
        ]
        return " ".join([line, *fields])

    def format(self, record: logging.LogRecord) -> str:
        return without_password(super().format(record))


def logging_config(level: str | None = None) -> dict[str, Any]:
    """Django's LOGGING: everything on stderr, ours from VIGIL_LOG_LEVEL (INFO) on."""
    ours = (level or os.environ.get("VIGIL_LOG_LEVEL") or "INFO").upper()
    if ours not in logging.getLevelNamesMapping():
        ours = "INFO"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"event": {"()": EventFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "event"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            name: {"level": ours} for name in ("config", "streams", "detection", "anomalies",
                                               "alerts", "celery")
        } | {
            "django": {"handlers": [], "level": "WARNING", "propagate": True},
            "django.server": {"handlers": [], "level": "WARNING", "propagate": True},
            # A line for each message sent would drown what people look for.
            "celery.app.trace": {"level": "WARNING"},
            "celery.worker.strategy": {"level": "WARNING"},
        },
    }  # fmt: skip


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return repr(text) if not text or any(mark in text for mark in ' "=\n') else text
