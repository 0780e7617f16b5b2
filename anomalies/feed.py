"""The live feed: the newest stored anomalies, and what was stored since a cursor.

Stored times are taken before the commit, so a page asks a little further back than its cursor
and leaves out what it knows by id: nothing that commits late is missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from anomalies.filters import Filters
from anomalies.models import Anomaly
from anomalies.results import result_of

OVERLAP = timedelta(seconds=30)
LIMIT = 200


@dataclass(frozen=True, slots=True)
class Missed:
    """What came since; `truncated` says that there was more than a page wants to add."""

    anomalies: list[dict[str, Any]]
    cursor: str
    truncated: bool


def newest(filters: Filters, size: int = 8) -> list[Anomaly]:
    found = filters.apply(Anomaly.objects.select_related("stream"))
    # Rows of one batch are stored at the same moment: among them the newest event comes first.
    return list(found.order_by("-stored_at", "-onset_at")[:size])


def cursor_at(rows: list[Anomaly], now: datetime) -> str:
    """The place a page stands at that shows `rows`."""
    newest_stored = max((row.stored_at for row in rows), default=now)
    return newest_stored.isoformat()


def known(cursor: str, filters: Filters) -> list[str]:
    """The ids a page that stands at `cursor` has seen of those it will be told again."""
    at = datetime.fromisoformat(cursor) - OVERLAP
    found = filters.apply(Anomaly.objects.all()).filter(stored_at__gt=at)
    return [str(pk) for pk in found.order_by("-stored_at").values_list("pk", flat=True)[:LIMIT]]


def since(cursor: str, filters: Filters) -> Missed | None:
    """What was stored after `cursor`, oldest first, or None where it is no cursor."""
    try:
        at = datetime.fromisoformat(cursor.replace(" ", "+"))
    except ValueError:
        return None
    if at.tzinfo is None:
        return None
    try:
        at = at - OVERLAP
    except OverflowError:
        return None
    found = filters.apply(Anomaly.objects.select_related("stream")).filter(stored_at__gt=at)
    rows = list(found.order_by("-stored_at")[: LIMIT + 1])
    shown = rows[:LIMIT][::-1]
    newest_at = max((row.stored_at for row in shown), default=at + OVERLAP)
    results = [result_of(row) | {"change": "onset"} for row in shown]
    return Missed(results, max(newest_at, at + OVERLAP).isoformat(), len(rows) > LIMIT)
