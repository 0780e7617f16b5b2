"""Answers that many ask for and that cost something, kept in Valkey for some seconds for all.

One thread makes an answer anew; who asks gets the last one meanwhile, or waits where there is none:
a hundred pages ask PostgreSQL once. Without Valkey each caller makes its own.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from functools import lru_cache

import redis
from django.conf import settings
from django.db import connection
from django.utils import timezone

STALE_S = 30.0  # how much older an answer may be while somebody makes the next
MAKING_S = 15.0
LOOK_S = 0.02
PREFIX = "vigil:kept"
log = logging.getLogger(__name__)
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('del', KEYS[1]) end"


def kept(name: str, seconds: float, make: Callable[[], str]) -> str:
    """What `make` gave for `name` so many seconds ago or a little more; 0 asks it each time."""
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
    mine = uuid.uuid4().hex
    until = time.monotonic() + MAKING_S
    while True:
        found = client.get(key)
        if isinstance(found, bytes):
            age, text = _opened(found)
            if age >= seconds and _taken(client, key, mine):
                if age < seconds + STALE_S / 2:
                    _later(lambda: _made(client, key, seconds, make, mine))
                else:
                    return _made(client, key, seconds, make, mine)
            return text
        if _taken(client, key, mine):
            # Somebody may have made it between our look and our lock.
            again = client.get(key)
            if isinstance(again, bytes):
                _release(client, key, mine)
                return _opened(again)[1]
            return _made(client, key, seconds, make, mine)
        if time.monotonic() > until:
            return make()
        time.sleep(LOOK_S)


def _taken(client: redis.Redis, key: str, mine: str) -> bool:
    return bool(client.set(f"{key}:making", mine, nx=True, px=int(MAKING_S * 1000)))


def _release(client: redis.Redis, key: str, mine: str) -> None:
    client.eval(_RELEASE, 1, f"{key}:making", mine)


def _made(client: redis.Redis, key: str, seconds: float, make: Callable[[], str], mine: str) -> str:
    try:
        made = make()
        client.set(key, f"{time.time()}\n{made}".encode(), px=int((seconds + STALE_S) * 1000))
        return made
    finally:
        _release(client, key, mine)


def _later(task: Callable[[], object]) -> None:
    """In a thread of its own, with the zone of who asks: nobody waits for it."""
    zone = timezone.get_current_timezone()

    def run() -> None:
        try:
            with timezone.override(zone):
                task()
        except Exception as error:
            log.warning("kept.not_made error=%s", error)
        finally:
            connection.close()

    threading.Thread(target=run, name="kept", daemon=True).start()


def _opened(found: bytes) -> tuple[float, str]:
    stamp, _, text = found.decode().partition("\n")
    return time.time() - float(stamp), text


@lru_cache(maxsize=1)
def _client() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=1)
