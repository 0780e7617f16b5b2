"""Ages out anomalies, near misses and the published outbox; what a person labelled stays."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from uuid import UUID

from django.db import connection
from django.db.models import ProtectedError, Q

from anomalies.models import Anomaly, Outbox

CHUNK = 5_000

# The age counts from the series' newest event: recorded data read in later is not old at once.
_OLD_CANDIDATES = """
DELETE FROM anomalies_candidate WHERE ctid = ANY (ARRAY(
    SELECT c.ctid FROM anomalies_candidate c JOIN streams_series s ON s.id = c.series_id
     WHERE c.event_at < LEAST(%(now)s, COALESCE(s.last_event_at, %(now)s))
                        - make_interval(secs => %(age_s)s)
     LIMIT %(chunk)s))
"""


@dataclass(slots=True)
class Dropped:
    """How many rows retention took away, and how many anomalies others still need."""

    anomalies: int = 0
    needed: int = 0
    candidates: int = 0
    outbox: int = 0


def apply(
    now: dt.datetime, *, anomalies_days: float, candidates_days: float, outbox_days: float
) -> Dropped:
    """Drop what is older than so many days; anomalies by when they were stored."""
    dropped = Dropped()
    _drop_anomalies(now - dt.timedelta(days=anomalies_days), dropped)
    dropped.candidates = _drop_candidates(now, dt.timedelta(days=candidates_days))
    dropped.outbox = _drop_outbox(now - dt.timedelta(days=outbox_days))
    return dropped


def _drop_anomalies(before: dt.datetime, dropped: Dropped) -> None:
    old = Anomaly.objects.filter(
        stored_at__lt=before, state=Anomaly.State.CLOSED, label=Anomaly.Label.NONE
    ).order_by("stored_at", "pk")
    kept: list[UUID] = []
    while True:
        keys = list(old.exclude(pk__in=kept).values_list("pk", flat=True)[:CHUNK])
        if not keys:
            return
        try:
            Anomaly.objects.filter(pk__in=keys).delete()
            dropped.anomalies += len(keys)
        except ProtectedError:
            for key in keys:
                try:
                    Anomaly.objects.filter(pk=key).delete()
                    dropped.anomalies += 1
                except ProtectedError:
                    kept.append(key)
                    dropped.needed += 1


def _drop_candidates(now: dt.datetime, age: dt.timedelta) -> int:
    total = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(
                _OLD_CANDIDATES, {"now": now, "age_s": age.total_seconds(), "chunk": CHUNK}
            )
            gone = int(cursor.rowcount)
        total += gone
        if gone < CHUNK:
            return total


def _drop_outbox(before: dt.datetime) -> int:
    """Published and judged long ago; what never was stays, however old. Reports by hand are not
    published."""
    done = Q(published_at__lt=before) | Q(kind=Outbox.Kind.MANUAL)
    total = 0
    while True:
        keys = list(
            Outbox.objects.filter(done, evaluated_at__lt=before)
            .order_by("pk")
            .values_list("pk", flat=True)[:CHUNK]
        )
        if not keys:
            return total
        total += Outbox.objects.filter(pk__in=keys).delete()[0]
