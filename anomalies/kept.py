"""Answers that many ask for and that cost something, kept in Valkey for some seconds for all.

One caller makes an answer anew; the others get the last one meanwhile, or wait where there is none:
a hundred pages ask PostgreSQL once. Without Valkey each caller makes its own.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from functools import lru_cache

import redis
from django.conf import settings
from django.db import connection

STALE_S = 30.0  # how much older an answer may be while somebody makes the next
MAKING_S = 15.0
LOOK_S = 0.02
PREFIX = "vigil:kept"
log = logging.getLogger(__name__)
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('del', KEYS[1]) end"


def kept(name: str, seconds: float, make: Callable[[], str]) -> str:
    """What `make` gave for `name` at most so many seconds ago; 0 asks it each time."""
    if seconds <= 0:
        return make()
    # Two databases behind one Valkey would give each other's answers.
    key = f"{PREFIX}:{connection.settings_dict['NAME']}:{name}"
    try:
        return _shared(_client(), key, seconds, make)
    except redis.RedisError as error:
        log.warning("kept.unavailable error=%s", error)
        return make()


def _shared(client: redis.Redis, key: str, seconds: float, make: Callable[[], str]) -> str:
    lock, mine = f"{key}:making", uuid.uuid4().hex
    until = time.monotonic() + MAKING_S
    while True:
        found = client.get(key)
        age, text = _opened(found) if isinstance(found, bytes) else (None, "")
        if age is not None and age < seconds:
            return text
        if client.set(lock, mine, nx=True, px=int(MAKING_S * 1000)):
            try:
                # Somebody may have made it between our look and our lock.
                again = client.get(key)
                if isinstance(again, bytes) and again != found:
                    return _opened(again)[1]
                made = make()
                stamped = f"{time.time()}\n{made}".encode()
                client.set(key, stamped, px=int((seconds + STALE_S) * 1000))
                return made
            finally:
                client.eval(_RELEASE, 1, lock, mine)
        if age is not None:
            return text
        if time.monotonic() > until:
            return make()
        time.sleep(LOOK_S)


def _opened(found: bytes) -> tuple[float, str]:
    stamp, _, text = found.decode().partition("\n")
    return time.time() - float(stamp), text


@lru_cache(maxsize=1)
def _client() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=1)
