"""How far event time has come in each stream, by what consumers have committed.

A stream's clock is the watermark of its slowest active partition, so that a backlog is judged in
the order in which it happened. A stream at rest moves on with the wall clock, or nothing would ever
resolve; while no consumer runs, or one is behind, it stands still: silence then says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection

from streams.clock import to_us
from streams.models import ConsumerStatus

ACTIVE_S = 5.0
"""A partition that was moved so lately is being read."""
ALIVE_S = 15.0
AHEAD_S = 60.0
"""How far ahead of the wall clock event time is believed."""
_S = 1_000_000

_WATERMARKS = """
SELECT t.name, t.topic, p.partition, p.watermark, p.updated_at
  FROM streams_partitionoffset p
  JOIN streams_topicincarnation i ON i.id = p.incarnation_id
  JOIN streams_stream t ON t.id = i.stream_id
 WHERE p.watermark IS NOT NULL
   AND i.id = (SELECT max(id) FROM streams_topicincarnation WHERE stream_id = t.id)
 ORDER BY t.name, p.partition
"""


@dataclass(frozen=True, slots=True)
class Place:
    """One partition as it is stored."""

    stream: str
    watermark: datetime
    moved_at: datetime
    lag: int


def clock_us(places: Iterable[Place], now: datetime, alive: bool) -> int:
    """The clock of one stream, in µs.

    Args:
        places: its partitions that have seen events; one at least.
        alive: whether a consumer runs.
    """
    rows = list(places)
    now_us = to_us(now)
    ahead = now_us + int(AHEAD_S * _S)
    active = [
        p for p in rows
        if alive and (p.lag > 0 or now - p.moved_at < timedelta(seconds=ACTIVE_S))
    ]  # fmt: skip
    if active:
        return min(*(to_us(p.watermark) for p in active), ahead)
    newest = max(to_us(p.watermark) for p in rows)
    if not alive:
        return min(newest, ahead)
    rest = now_us - to_us(max(p.moved_at for p in rows)) - int(ACTIVE_S * _S)
    return min(newest + max(0, rest), max(now_us, min(newest, ahead)))


def read(now: datetime) -> dict[str, int]:
    """The clock of each stream that has seen events, by its name."""
    statuses = ConsumerStatus.objects.filter(beat_at__gte=now - timedelta(seconds=ALIVE_S)).exclude(
        state="stopped"
    )
    lags: dict[tuple[str, int], int] = {}
    alive = False
    for status in statuses:
        alive = True
        for part in status.partitions or []:
            ends, at = part.get("end_offset"), part.get("next_offset")
            if ends is not None and at is not None:
                lags[part["topic"], int(part["partition"])] = int(ends) - int(at)
    places: dict[str, list[Place]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_WATERMARKS)
        for stream, topic, partition, watermark, moved_at in cursor.fetchall():
            lag = lags.get((topic, partition), 0)
            places.setdefault(stream, []).append(Place(stream, watermark, moved_at, lag))
    return {stream: clock_us(rows, now, alive) for stream, rows in places.items()}
