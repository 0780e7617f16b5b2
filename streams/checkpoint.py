"""Who owns a partition and how far it is stored: the fenced offsets of promise 1.

An owner holds an epoch. Offsets move only where the stored epoch and next offset are the expected
ones, inside the transaction that stores what the events caused; a consumer that was paused while
its partition moved on matches nothing and writes nothing.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from django.db import OperationalError, connection, transaction

from streams.errors import StreamsError
from streams.models import PartitionOffset, StateSnapshot, Stream, TopicIncarnation

log = logging.getLogger(__name__)


_ADVANCE = """
UPDATE streams_partitionoffset AS p SET
    next_offset = m.next_offset, events = m.events, rejects = m.rejects,
    watermark = GREATEST(p.watermark, m.watermark), updated_at = now()
FROM unnest(%s::bigint[], %s::int[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
    %s::bigint[], %s::timestamptz[])
    AS m (life, partition, epoch, stands_at, next_offset, events, rejects, watermark)
WHERE p.incarnation_id = m.life AND p.partition = m.partition AND p.owner_epoch = m.epoch
  AND p.next_offset = m.stands_at
RETURNING p.partition
"""


class FencedError(StreamsError):
    """Reject: the partition has another owner by now; what is in memory of it is worthless."""


@dataclass(slots=True)
class Owned:
    """A partition this process may move; ``next_offset`` and the counts are what is stored."""

    incarnation_id: int
    topic_id: str
    partition: int
    epoch: int
    next_offset: int
    snapshot_offset: int
    events: int
    rejects: int


@dataclass(frozen=True, slots=True)
class Move:
    """One partition's step: to ``next_offset``, after so many more events and rejects."""

    owned: Owned
    next_offset: int
    events: int
    rejects: int
    watermark: dt.datetime | None


def incarnation(stream: Stream, topic_id: str) -> TopicIncarnation:
    """The row of this life of the stream's topic."""
    row, _ = TopicIncarnation.objects.get_or_create(topic_id=topic_id, defaults={"stream": stream})
    return row


def acquire(life: TopicIncarnation, partition: int, owner: str) -> Owned:
    """Become the owner: any earlier one is fenced off from here on.

    An owner that was stopped inside its transaction holds the row for as long as it sleeps; its
    database session is ended then, which undoes what it had begun. The server's own time-out for
    idle transactions doesn't see one whose statement was sent by half.
    """
    PartitionOffset.objects.get_or_create(incarnation=life, partition=partition)
    for last in (False, True):
        try:
            row = _take(life, partition, owner)
            break
        except OperationalError as error:
            if last or not isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
                raise
            end_stuck_sessions("streams_partitionoffset")
    return Owned(
        life.pk,
        life.topic_id,
        partition,
        row.owner_epoch,
        row.next_offset,
        row.snapshot_offset,
        row.events,
        row.rejects,
    )


def _take(life: TopicIncarnation, partition: int, owner: str) -> PartitionOffset:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '2s'")
        row = PartitionOffset.objects.select_for_update().get(incarnation=life, partition=partition)
        row.owner_epoch += 1
        row.owner = owner
        row.save(update_fields=["owner_epoch", "owner", "updated_at"])
    return row


def end_stuck_sessions(table: str, seconds: float = 2.0) -> int:
    """End sessions that hold rows of a table and wait for their client in a transaction open for
    seconds: it takes milliseconds. Returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l"
            " JOIN pg_stat_activity a ON a.pid = l.pid"
            " WHERE l.relation = %s::regclass AND l.granted"
            " AND l.mode IN ('RowShareLock', 'RowExclusiveLock') AND l.pid <> pg_backend_pid()"
            " AND a.wait_event_type = 'Client'"
            " AND a.xact_start < now() - make_interval(secs => %s)",
            [table, seconds],
        )
        found = cursor.fetchone()
    ended = int(found[0]) if found else 0
    log.warning("sessions.ended table=%s count=%s", table, ended)
    return ended


def hold(owned: Owned) -> None:
    """Inside a transaction: keep the epoch from moving until it ends.

    Raises:
        FencedError: it has moved already.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM streams_partitionoffset WHERE incarnation_id = %s AND partition = %s"
            " AND owner_epoch = %s FOR KEY SHARE",
            [owned.incarnation_id, owned.partition, owned.epoch],
        )
        if cursor.fetchone() is None:
            raise FencedError(f"partition {owned.partition} has another owner")


def is_owner(owned: Owned) -> bool:
    """Whether nobody has taken the partition over: for looking only, a fence it is not."""
    return PartitionOffset.objects.filter(
        incarnation_id=owned.incarnation_id, partition=owned.partition, owner_epoch=owned.epoch
    ).exists()


def advance(moves: Sequence[Move]) -> None:
    """Inside a transaction: move the offsets on.

    Raises:
        FencedError: one of the partitions has another owner or stands elsewhere.
    """
    if not moves:
        return
    rows = [
        (
            m.owned.incarnation_id, m.owned.partition, m.owned.epoch, m.owned.next_offset,
            m.next_offset, m.owned.events + m.events, m.owned.rejects + m.rejects, m.watermark,
        )
        for m in moves
    ]  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(_ADVANCE, [list(column) for column in zip(*rows, strict=True)])
        moved = {partition for (partition,) in cursor.fetchall()}
    for move in moves:
        owned = move.owned
        if owned.partition not in moved:
            raise FencedError(
                f"partition {owned.partition} has another owner or does not stand at"
                f" {owned.next_offset}"
            )


def stored(moves: Sequence[Move]) -> bool:
    """Whether a transaction whose answer was lost did commit these moves."""
    for move in moves:
        row = PartitionOffset.objects.filter(
            incarnation_id=move.owned.incarnation_id,
            partition=move.owned.partition,
            owner_epoch=move.owned.epoch,
            next_offset=move.next_offset,
        )
        if not row.exists():
            return False
    return True


def committed(moves: Sequence[Move]) -> None:
    """Note in memory what is stored now."""
    for move in moves:
        move.owned.next_offset = move.next_offset
        move.owned.events += move.events
        move.owned.rejects += move.rejects


def jump(owned: Owned, next_offset: int) -> None:
    """Start further on in the log, as an operator asked; what lies between is never scored."""
    with transaction.atomic():
        hold(owned)
        PartitionOffset.objects.filter(
            incarnation_id=owned.incarnation_id, partition=owned.partition
        ).update(next_offset=next_offset, snapshot_offset=next_offset)
        StateSnapshot.objects.filter(
            incarnation_id=owned.incarnation_id, partition=owned.partition
        ).delete()
    owned.next_offset = owned.snapshot_offset = next_offset


def forget_snapshots(owned: Owned) -> None:
    """Stored states of another layout are of no use: the next ones start from here."""
    with transaction.atomic():
        hold(owned)
        StateSnapshot.objects.filter(
            incarnation_id=owned.incarnation_id, partition=owned.partition
        ).delete()
        PartitionOffset.objects.filter(
            incarnation_id=owned.incarnation_id, partition=owned.partition
        ).update(snapshot_offset=owned.next_offset)
    owned.snapshot_offset = owned.next_offset
