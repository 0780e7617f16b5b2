"""Django system checks with ids: mistakes in the configuration and in the deployment."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register


@register(Tags.compatibility)
def configuration(**_: Any) -> list[CheckMessage]:
    """config.E001: each mistake in config.yaml or the environment, as the start would tell it."""
    return [Error(problem.text(), id="config.E001") for problem in settings.VIGIL_ERRORS]


@register(Tags.security, deploy=True)
def deployment(**_: Any) -> list[CheckMessage]:
    """What works on one machine and would surprise in production."""
    found: list[CheckMessage] = []
    if not (os.environ.get("SECRET_KEY") or os.environ.get("SECRET_KEY_FILE")):
        found.append(
            Warning(
                "SECRET_KEY is not set, so the one in the data folder is used.",
                hint="Set SECRET_KEY or SECRET_KEY_FILE to the same value for every web replica.",
                id="config.W001",
            )
        )
    if settings.VIGIL.api.open:
        found.append(
            Warning(
                "api.open is on: anyone who reaches the port reads anomalies and posts alerts.",
                hint="Set VIGIL_API__OPEN=false.",
                id="config.W002",
            )
        )
    for name in ("DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"):
        if name not in settings.VIGIL_NAMED:
            found.append(
                Warning(
                    f"{name} is not set, so the embedded server's address is used.",
                    hint="Name a server of your own: the embedded one is for one machine.",
                    id="config.W003",
                )
            )
    return found
