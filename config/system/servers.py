"""Kafka, PostgreSQL and Valkey: versions and sizes, asked side by side with short time-outs."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from threading import Lock

import confluent_kafka
import redis
from confluent_kafka.admin import AdminClient
from django.conf import settings
from django.db import connection, connections

KEEP_S = 15.0
DEADLINE_S = 2.0
LIBRARIES = ("django", "channels", "celery", "confluent-kafka", "numpy", "numba", "scikit-learn",
             "psycopg", "redis")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Server:
    """One of the three; `facts` are words and figures, `wrong` says why there are none."""

    name: str
    version: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    wrong: str = ""


class _Kept:
    lock = Lock()
    at = 0.0
    servers: tuple[Server, ...] = ()


def servers() -> tuple[Server, ...]:
    """At most some seconds old."""
    with _Kept.lock:
        if not _Kept.servers or time.monotonic() - _Kept.at > KEEP_S:
            _Kept.servers, _Kept.at = _ask(), time.monotonic()
        return _Kept.servers


def forget() -> None:
    _Kept.servers = ()


def libraries() -> list[tuple[str, str]]:
    found = [("python", platform.python_version())]
    for name in LIBRARIES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return [*found, ("librdkafka", confluent_kafka.libversion()[0])]


def _ask() -> tuple[Server, ...]:
    asked: dict[str, Callable[[], Server]] = {
        "Kafka": _kafka, "PostgreSQL": _postgresql, "Valkey": _valkey,
    }  # fmt: skip
    pool = ThreadPoolExecutor(len(asked), thread_name_prefix="servers")
    running = {name: pool.submit(_guarded, name, ask) for name, ask in asked.items()}
    deadline = time.monotonic() + DEADLINE_S
    found = []
    for name, answer in running.items():
        try:
            found.append(answer.result(max(0.01, deadline - time.monotonic())))
        except FutureTimeout:
            found.append(Server(name, wrong=f"no answer within {DEADLINE_S:.0f} s"))
    pool.shutdown(wait=False, cancel_futures=True)
    return tuple(found)


def _guarded(name: str, ask: Callable[[], Server]) -> Server:
    try:
        return ask()
    except Exception as error:
        return Server(name, wrong=f"not reached: {type(error).__name__}")
    finally:
        # The thread ends here, and its connection with it.
        connections.close_all()


def _kafka() -> Server:
    client = settings.VIGIL.kafka.client_config() | {"log_level": 0}
    # Without a name of a topic nothing can be made by asking.
    admin = AdminClient(client)
    cluster = admin.describe_cluster(request_timeout=1.5).result()
    brokers = len(cluster.nodes)
    found = admin.list_topics(timeout=1.5)
    parts = sum(len(topic.partitions) for topic in found.topics.values())
    return Server("Kafka", "", (
        ("brokers", str(brokers)), ("topics", str(len(found.topics))),
        ("partitions", f"{parts:,}"), ("cluster", str(cluster.cluster_id)),
        ("address", settings.VIGIL.kafka.bootstrap_servers),
    ))  # fmt: skip


def _postgresql() -> Server:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version'), pg_database_size(current_database()),"
            " (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()),"
            " current_setting('max_connections'),"
            " now() - pg_postmaster_start_time()"
        )
        number, size, used, most, up = cursor.fetchone()
    return Server("PostgreSQL", str(number).split()[0], (
        ("database", f"{size / 1e6:,.0f} MB"), ("connections", f"{used} of {most}"),
        ("up", _lasting(up.total_seconds())),
    ))  # fmt: skip


def _valkey() -> Server:
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1)
    with client:
        said = client.info()
    number = said.get("valkey_version") or said.get("redis_version", "")
    return Server("Valkey" if "valkey_version" in said else "Redis", str(number), (
        ("memory", f"{said['used_memory'] / 1e6:,.1f} MB"),
        ("clients", str(said.get("connected_clients", ""))),
        ("up", _lasting(float(said.get("uptime_in_seconds", 0)))),
    ))  # fmt: skip


def _lasting(seconds: float) -> str:
    if seconds < 3_600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"
