"""Tells open pages which incidents changed: at most once, after the commit.

A page reads the rest itself, so a message that is lost costs nothing but time. A Valkey that is
away costs the sender half a second, and then nothing for a while.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from functools import lru_cache

import redis
from django.conf import settings
from django.db import transaction

from anomalies.live import CHANNEL

log = logging.getLogger(__name__)
MOST = 200
PATIENCE_S, REST_S = 0.5, 10.0
_away = {"until": 0.0}


def changed(incidents: Iterable[int]) -> None:
    """These numbers, once the present transaction is committed."""
    numbers = sorted(set(incidents))
    if numbers:
        transaction.on_commit(lambda: _send(numbers))


def _send(numbers: list[int]) -> None:
    if time.monotonic() < _away["until"]:
        return
    # Too many to name: a page reads again whatever it shows.
    message = {"type": "incidents", "numbers": numbers if len(numbers) <= MOST else None}
    try:
        _client().publish(CHANNEL, json.dumps(message))
    except redis.RedisError as error:
        _away["until"] = time.monotonic() + REST_S
        log.warning("live.push_failed error=%s", " ".join(str(error).split())[:200])


@lru_cache(maxsize=1)
def _client() -> redis.Redis:
    return redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S
    )
