"""Logs for people: a time, a level, an event's name, its fields (`batch.committed events=500`)."""

from __future__ import annotations

import logging
import os
import re
from typing import Any

from config import request_ids
from config.addresses import without_password

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# What frameworks attach to their records, of no use in a line.
_DIGITS = re.compile(r"\d+")
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
        asked = [f"request={name}"] if (name := request_ids.current()) else []
        return " ".join([line, *_fields(record), *asked])

    def format(self, record: logging.LogRecord) -> str:
        return without_password(super().format(record))


class RepeatFilter(logging.Filter):
    """Lets a warning or error through once in `window_s`, then says how often it came meanwhile.

    A broker that is away makes its clients say so thirty times a second.
    """

    def __init__(self, window_s: float = 10.0) -> None:
        super().__init__()
        self._window_s = window_s
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        text = " ".join([record.getMessage(), *_fields(record)])
        key = (record.name, _DIGITS.sub("#", text)[:200])
        began, hidden = self._seen.get(key, (float("-inf"), 0))
        if record.created - began < self._window_s:
            self._seen[key] = (began, hidden + 1)
            return False
        if len(self._seen) > 1_000:
            self._seen.clear()
        self._seen[key] = (record.created, 0)
        if hidden:
            record.repeated = hidden
        return True


def logging_config(level: str | None = None) -> dict[str, Any]:
    """Django's LOGGING: everything on stderr, ours from VIGIL_LOG_LEVEL (INFO) on."""
    ours = (level or os.environ.get("VIGIL_LOG_LEVEL") or "INFO").upper()
    if ours not in logging.getLevelNamesMapping():
        ours = "INFO"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"event": {"()": EventFormatter}},
        "filters": {"repeat": {"()": RepeatFilter}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "event",
                "filters": ["repeat"],
            }
        },
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


def _fields(record: logging.LogRecord) -> list[str]:
    return [
        f"{key}={_shown(value)}"
        for key, value in vars(record).items()
        if key not in _STANDARD and key not in _NOISE
    ]


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return repr(text) if not text or any(mark in text for mark in ' "=\n') else text
