"""True checks of each component: short time-outs, side by side, kept for some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from threading import Lock
from typing import Any

import celery
import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import close_old_connections, connection, connections
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from anomalies.queries import pulse
from streams.models import PartitionOffset

KEEP_S = 10.0
DEADLINE_S = 2.5
OK, WARN, DOWN, UNKNOWN = "ok", "warn", "down", "unknown"


@dataclass(frozen=True, slots=True)
class Component:
    """One part's state: `detail` says it in words, `figure` is its delay or count."""

    name: str
    state: str
    detail: str
    figure: str = ""
    latency_ms: float | None = None


class _Kept:
    """The last answers, shared by the process's threads; only one of them asks at a time."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.at = 0.0
        self.components: list[Component] = []


_kept = _Kept()


def known_components() -> list[Component] | None:
    """The kept answers where they are fresh, without asking anybody."""
    fresh = time.monotonic() - _kept.at < KEEP_S
    return _kept.components if fresh and _kept.components else None


def components() -> list[Component]:
    """Every component's state, at most `KEEP_S` old."""
    with _kept.lock:
        known = known_components()
        if known is None:
            known = _kept.components = _ask_all()
            _kept.at = time.monotonic()
        return known


def forget() -> None:
    """Ask anew next time."""
    _kept.at = 0.0


def is_ready(parts: list[Component]) -> bool:
    """Whether events are read, scored and stored: what `GET /api/health` answers 200 for."""
    needed = {"PostgreSQL", "Kafka", "Valkey", "Consumers"}
    return not any(part.state == DOWN and part.name in needed for part in parts)


def as_json(parts: list[Component]) -> dict[str, Any]:
    worst = OK
    if any(part.state in (WARN, DOWN) for part in parts):
        worst = "degraded"
    if not is_ready(parts):
        worst = DOWN
    return {
        "status": worst,
        "components": {part.name.lower(): asdict(part) for part in parts},
    }


def _ask_all() -> list[Component]:
    checks: dict[str, Callable[[], Component]] = {
        "Consumers": _consumers, "Kafka": _kafka, "PostgreSQL": _postgresql,
        "Valkey": _valkey, "Workers": _workers, "Scheduler": _scheduler,
    }  # fmt: skip
    pool = ThreadPoolExecutor(len(checks), thread_name_prefix="health")
    asked = {name: pool.submit(_guarded, name, check) for name, check in checks.items()}
    deadline = time.monotonic() + DEADLINE_S
    found = []
    for name, answer in asked.items():
        try:
            found.append(answer.result(max(0.01, deadline - time.monotonic())))
        except FutureTimeout:
            found.append(Component(name, DOWN, f"no answer within {DEADLINE_S:.1f} s"))
    pool.shutdown(wait=False, cancel_futures=True)
    return found


def _guarded(name: str, check: Callable[[], Component]) -> Component:
    try:
        return check()
    except DatabaseError:
        return Component(name, DOWN, "PostgreSQL does not answer")
    except Exception as error:
        return Component(name, DOWN, f"not reached: {type(error).__name__}")
    finally:
        # The thread ends here, and its connection with it.
        close_old_connections()
        connections.close_all()


def _postgresql() -> Component:
    started = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    ms = (time.perf_counter() - started) * 1000
    last = PartitionOffset.objects.order_by("-updated_at").values_list("updated_at", flat=True)
    newest = last.first()
    detail = f"last commit {_age(newest)} ago" if newest else "no commit yet"
    return Component("PostgreSQL", OK, detail, _ms(ms), ms)


def _valkey() -> Component:
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1)
    with client:
        client.ping()
        started = time.perf_counter()
        client.ping()
        ms = (time.perf_counter() - started) * 1000
    return Component("Valkey", OK, "push and queues", _ms(ms), ms)


@lru_cache(maxsize=1)
def _admin_client() -> AdminClient:
    return AdminClient(settings.VIGIL.kafka.client_config() | {"log_level": 0})


def _kafka() -> Component:
    client = _admin_client()
    topic = settings.VIGIL.kafka.input_topic
    started = time.perf_counter()
    try:
        found = client.list_topics(topic=topic, timeout=1.5)
    except KafkaException:
        return Component("Kafka", DOWN, "no broker answers")
    ms = (time.perf_counter() - started) * 1000
    brokers, partitions = len(found.brokers), len(found.topics[topic].partitions)
    detail = f"{brokers} broker{'s' * (brokers != 1)}, "
    detail += f"{partitions} partition{'s' * (partitions != 1)}" if partitions else f"no {topic}"
    return Component("Kafka", OK if partitions else WARN, detail, _ms(ms), ms)


def _consumers() -> Component:
    now = pulse(timezone.now())
    if not now.alive:
        detail = "none has reported for 15 s" if now.known else "none is running"
        return Component("Consumers", DOWN, detail)
    state = OK if now.alive == now.known else WARN
    detail = f"{now.alive} of {now.known}, {now.events_per_s:,.0f} events/s"
    return Component("Consumers", state, detail, f"{now.lag:,} behind")


def _workers() -> Component:
    answers = celery.current_app.control.ping(timeout=1.0)
    if not answers:
        return Component("Workers", WARN, "no Celery worker answers")
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1)
    with client:
        waiting = sum(int(client.llen(queue)) for queue in ("training", "alerts", "default"))
    return Component("Workers", OK, f"{waiting} tasks wait", f"{len(answers)} up")


def _scheduler() -> Component:
    tasks = list(PeriodicTask.objects.filter(enabled=True).select_related("interval"))
    # The most frequent task tells whether beat is alive; twice its interval and a minute is grace
    # enough. It is when a task was sent: whether a worker took it is said beside.
    periods = [t.interval.schedule.run_every.total_seconds() for t in tasks if t.interval]
    limit = timedelta(seconds=2 * min(periods, default=86_400) + 60)
    ran = [task for task in tasks if task.last_run_at is not None]
    newest = max(ran, key=lambda task: task.last_run_at, default=None)
    if newest is None:
        made = max((task.date_changed for task in tasks), default=timezone.now() - limit * 2)
        fresh = timezone.now() - made < limit
        return Component("Scheduler", UNKNOWN if fresh else WARN, "no scheduled task was sent yet")
    late = timezone.now() - newest.last_run_at > limit
    detail = f"{newest.name} was sent {_age(newest.last_run_at)} ago"
    return Component("Scheduler", WARN if late else OK, detail)


def _ms(ms: float) -> str:
    return f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"


def _age(at: datetime) -> str:
    seconds = max(0.0, (timezone.now() - at).total_seconds())
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 3_600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"
