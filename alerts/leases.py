"""Who may do what only one may do at a time, with an epoch that fences off the one before.

A holder works in transactions that begin with :func:`hold`: the lease's row stays locked until they
end, so nobody takes over amid one, and who was frozen and comes back finds another epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from django.db import OperationalError, connection, transaction

from alerts.errors import FencedError
from alerts.models import Lease
from streams.checkpoint import end_stuck_sessions


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that was ours when we last looked."""

    name: str
    owner: str
    epoch: int
    for_s: float


_TAKE = """
INSERT INTO alerts_lease AS l (name, owner, epoch, until, data)
VALUES (%(name)s, %(owner)s, 1, now() + make_interval(secs => %(for_s)s), '{}')
ON CONFLICT (name) DO UPDATE SET owner = EXCLUDED.owner, epoch = l.epoch + 1, until = EXCLUDED.until
WHERE l.until IS NULL OR l.until <= now()
RETURNING epoch
"""
_HOLD = """
UPDATE alerts_lease SET until = now() + make_interval(secs => %s)
WHERE name = %s AND owner = %s AND epoch = %s
"""


def take(name: str, owner: str, for_s: float) -> Held | None:
    """Become the holder; None while somebody else is. The database's clock counts.

    A holder that was stopped inside its transaction keeps the row locked: its session is ended,
    which undoes what it had begun.
    """
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '2s'")
            cursor.execute(_TAKE, {"name": name, "owner": owner, "for_s": for_s})
            row = cursor.fetchone()
    except OperationalError as error:
        if not isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
            raise
        end_stuck_sessions(Lease._meta.db_table, max(2.0, for_s))
        return None
    return None if row is None else Held(name, owner, int(row[0]), for_s)


def hold(held: Held) -> None:
    """Inside a transaction: keep the lease, and keep others from taking it until the end.

    Raises:
        FencedError: somebody else has taken it.
    """
    with connection.cursor() as cursor:
        # A process that is frozen here is not to keep its successor waiting.
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '5s'")
        cursor.execute(_HOLD, [held.for_s, held.name, held.owner, held.epoch])
        if cursor.rowcount != 1:
            raise FencedError(f"{held.name} has another holder than {held.owner}")


def release(held: Held) -> None:
    """Let others take it at once."""
    Lease.objects.filter(name=held.name, owner=held.owner, epoch=held.epoch).update(until=None)
