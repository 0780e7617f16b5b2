"""Ages out what streams stores: rollups by whole day partitions, dead letters, pipeline minutes.

Of minutes that go, hours stay.
State snapshots stay, also of series long gone: a series that comes back goes on where it was.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, field
from typing import Any

from django.db import OperationalError, connection, transaction
from django.db.models import QuerySet

from streams import hours
from streams.models import ConsumerStatus, DeadLetter, PipelineStat, Process

CHUNK = 10_000
LOCK_TIMEOUT_MS = 5_000
STATUS_DAYS = 7
_PARTITION = re.compile(r"streams_rollup_(\d{8})")

_CHILDREN = """
SELECT c.relname FROM pg_inherits i
  JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
 WHERE p.relname = 'streams_rollup' AND pg_table_is_visible(p.oid) ORDER BY c.relname
"""


@dataclass(slots=True)
class Dropped:
    """What retention took away, and the partitions that were in use and are left for next time."""

    partitions: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    rollups: int = 0
    hours: int = 0
    dead_letters: int = 0
    minutes: int = 0
    statuses: int = 0


def apply(
    now: dt.datetime, *, rollups_days: float, hours_days: float, dead_letters_days: float
) -> Dropped:
    """Drop what is older than so many days; each step commits for itself."""
    dropped = Dropped()
    _drop_partitions(now - dt.timedelta(days=rollups_days), dropped)
    dropped.rollups = hours.seal_old(now, dt.timedelta(days=rollups_days))
    # Minutes that are there are found by their hours: those stay at least as long.
    dropped.hours = hours.drop_hours(now, dt.timedelta(days=max(hours_days, rollups_days)))
    dropped.dead_letters = _delete(
        DeadLetter.objects.filter(created_at__lt=now - dt.timedelta(days=dead_letters_days))
    )
    dropped.minutes = _delete(
        PipelineStat.objects.filter(minute__lt=now - dt.timedelta(days=rollups_days))
    )
    dropped.statuses = _delete(
        ConsumerStatus.objects.filter(beat_at__lt=now - dt.timedelta(days=STATUS_DAYS))
    )
    dropped.statuses += _delete(
        Process.objects.filter(beat_at__lt=now - dt.timedelta(days=STATUS_DAYS))
    )
    return dropped


def _drop_partitions(before: dt.datetime, dropped: Dropped) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_CHILDREN)
        names = [name for (name,) in cursor.fetchall()]
    for name in names:
        found = _PARTITION.fullmatch(name)
        if found is None:
            continue
        day = dt.datetime.strptime(found[1], "%Y%m%d").replace(tzinfo=dt.UTC)
        if day + dt.timedelta(days=1) > before:
            continue
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                # Dropping waits for every reader of the table, and all others wait behind it.
                cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS:d}")
                # Nobody adds to it while its hours are made of it for the last time.
                cursor.execute(f"LOCK TABLE {connection.ops.quote_name(name)} IN SHARE MODE")
                hours.seal_day(cursor, day)
                cursor.execute(f"DROP TABLE {connection.ops.quote_name(name)}")
            dropped.partitions.append(name)
        except OperationalError:
            dropped.busy.append(name)


def _delete(rows: QuerySet[Any, Any]) -> int:
    """In chunks, so that no transaction is long."""
    total = 0
    while True:
        keys = list(rows.order_by("pk").values_list("pk", flat=True)[:CHUNK])
        if not keys:
            return total
        total += rows.model._base_manager.filter(pk__in=keys).delete()[0]
