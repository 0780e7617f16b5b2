"""Performance in figures: rates, latency, CPU per event, queues, tables and what is kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import redis
from django.conf import settings
from django.db import connection
from django.db.models import Count, Q

from alerts.models import Notification
from anomalies.models import Outbox
from config.queues import QUEUES
from config.schema import Retention
from streams.heartbeat import GONE_AFTER
from streams.history import Throughput, throughput
from streams.models import ConsumerStatus, DeadLetter, Process
from streams.partitions import ALIVE
from streams.ranges import named_range

# What the larger tables hold, and the key of their days.
TABLES = {
    "anomalies_anomaly": ("Anomalies", "anomalies_days"),
    "anomalies_candidate": ("Near misses", "candidates_days"),
    "streams_rollup": ("Minutes of series", "rollups_days"),
    "anomalies_outbox": ("Outbox", "outbox_days"),
    "streams_deadletter": ("Dead letters", "dead_letters_days"),
    "streams_statesnapshot": ("Detectors’ state", ""),
    "streams_series": ("Series", ""),
    "streams_pipelinestat": ("Minutes of consumers", "rollups_days"),
    "detection_modelversion": ("Models", ""),
    "alerts_notification": ("Notifications", ""),
    "alerts_attempt": ("Delivery attempts", ""),
}
_SIZES = """
SELECT COALESCE(p.relname, c.relname) AS name, sum(pg_total_relation_size(c.oid)),
       sum(GREATEST(c.reltuples, 0))::bigint
  FROM pg_class c
  LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
  LEFT JOIN pg_class p ON p.oid = i.inhparent
 WHERE c.relkind = 'r' AND pg_table_is_visible(c.oid) AND c.relname NOT LIKE 'pg\\_%%'
   AND c.relname NOT LIKE 'sql\\_%%'
 GROUP BY 1 ORDER BY 2 DESC LIMIT 12
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """The last hour, and now."""

    work: Throughput
    events_per_s: float
    latency_p95_ms: float | None
    lag: int
    cpu_us_per_event: float | None
    cores: float | None
    memory_mb: float


def figures(now: datetime) -> Figures:
    work = throughput(named_range("1h", now))
    alive = list(ConsumerStatus.objects.filter(beat_at__gte=now - ALIVE).exclude(state="stopped"))
    running = list(Process.objects.filter(beat_at__gte=now - GONE_AFTER))
    rate = sum(row.events_per_s for row in alive)
    shares = [p.cpu_share for p in running if p.kind == Process.Kind.CONSUMER]
    known = [share for share in shares if share is not None]
    every = [p.cpu_share for p in running if p.cpu_share is not None]
    latencies = [row.latency_p95_ms for row in alive if row.latency_p95_ms is not None]
    return Figures(
        work=work,
        events_per_s=rate,
        latency_p95_ms=max(latencies, default=None),
        lag=sum(row.lag for row in alive),
        cpu_us_per_event=1e6 * sum(known) / rate if known and rate >= 1 else None,
        cores=sum(every) if every else None,
        memory_mb=sum(p.rss_mb for p in running),
    )


def queues() -> list[tuple[str, str, int | None]]:
    """What waits: name, what it waits for, and how many; None where it can't be asked."""
    outbox = Outbox.objects.filter(Q(published_at=None) | Q(evaluated_at=None)).aggregate(
        results=Count("pk", Q(published_at=None) & ~Q(kind=Outbox.Kind.MANUAL)),
        judged=Count("pk", Q(evaluated_at=None)),
    )
    states = Notification.State
    sending = Notification.objects.filter(state__in=(states.WAITING, states.SENDING)).count()
    letters = DeadLetter.objects.filter(state=DeadLetter.State.WAITING).count()
    return [
        *_tasks(),
        ("Results", f"to go on {settings.VIGIL.kafka.output_topic}", outbox["results"]),
        ("Changes", "to be judged by the alert rules", outbox["judged"]),
        ("Notifications", "to be sent", sending),
        ("Dead letters", "to be looked at", letters),
    ]


def _tasks() -> list[tuple[str, str, int | None]]:
    lengths: dict[str, int | None] = dict.fromkeys(QUEUES)
    try:
        with redis.Redis.from_url(
            settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1
        ) as client:
            for name in QUEUES:
                lengths[name] = int(client.llen(name))
    except redis.RedisError:
        pass
    return [(f"Tasks, {name}", "for a worker", n) for name, n in lengths.items()]


def tables(retention: Retention) -> list[dict[str, Any]]:
    """The largest, with an estimate of their rows and how many days are kept."""
    with connection.cursor() as cursor:
        cursor.execute(_SIZES)
        found = cursor.fetchall()
    listed = []
    for name, size, rows in found:
        words, days = TABLES.get(name, (name, ""))
        listed.append({
            "name": name, "words": words, "bytes": int(size), "rows": int(rows),
            "days": getattr(retention, days) if days else None,
        })  # fmt: skip
    return listed
