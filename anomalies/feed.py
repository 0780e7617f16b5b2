"""The live feed: the newest stored anomalies, and what was stored since a resume token.

A token is a vector of offsets: for each partition the first one that was not stored when the page
was made. What a partition stores, it stores in the order of offsets, so whatever commits later lies
at or after the token, and nothing is missed. What has no place in the order (reports by hand,
silence) goes by the time it was stored, with an overlap: a page leaves out what it knows by id.
"""

from __future__ import annotations

import binascii
import json
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone

from anomalies.filters import Filters
from anomalies.models import Anomaly
from anomalies.results import result_of
from streams.models import PartitionOffset

OVERLAP = timedelta(seconds=30)
LIMIT = 200
MOST_COUNTED = 10_000
LONGEST_TOKEN, LONGEST_VECTOR = 20_000, 200_000
ORDERED = "episode"  # the kind of anomaly whose offset is the event that made it


@dataclass(frozen=True, slots=True)
class Token:
    """Where a page stands: ``offsets`` by (incarnation, partition), and the time of writing."""

    at: datetime
    offsets: dict[tuple[int, int], int] = field(default_factory=dict)

    def text(self) -> str:
        flat = [n for place, offset in sorted(self.offsets.items()) for n in (*place, offset)]
        body = json.dumps([self.at.timestamp(), *flat]).encode()
        return urlsafe_b64encode(zlib.compress(body)).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Missed:
    """What came since, oldest first; ``count`` of them in all, of which the newest are given."""

    anomalies: list[dict[str, Any]]
    token: str
    count: int

    @property
    def truncated(self) -> bool:
        return self.count > len(self.anomalies)


def newest(filters: Filters, size: int = 8) -> list[Anomaly]:
    found = filters.apply(Anomaly.objects.select_related("stream"))
    found = found.defer("context", "features", "detectors", "models_used", "evidence")
    # Rows of one batch are stored at the same moment: among them the newest event comes first.
    return list(found.order_by("-stored_at", "-onset_at")[:size])


def token_now() -> Token:
    """The place before all that is not stored yet: read it before the rows that are shown."""
    now = timezone.now()
    rows = PartitionOffset.objects.values_list("incarnation_id", "partition", "next_offset")
    return Token(now, {(life, partition): offset for life, partition, offset in rows})


def read_token(text: str) -> Token | None:
    """The place a token names, or None where it is not one of ours."""
    if not 0 < len(text) <= LONGEST_TOKEN or not text.isascii():
        return None
    try:
        packed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        flat = json.loads(zlib.decompressobj().decompress(packed, LONGEST_VECTOR))
        stamp, numbers = flat[0], flat[1:]
        if len(numbers) % 3 or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            return None
        places = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
        at = datetime.fromtimestamp(stamp, UTC)
        if not datetime(2000, 1, 1, tzinfo=UTC) < at < datetime(9000, 1, 1, tzinfo=UTC):
            return None
        token = Token(at, {(life, partition): offset for life, partition, offset in places})
        # Cut off before its checksum, or with more behind it, it reads the same: damaged.
        return token if token.text() == text else None
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, OSError, zlib.error,
            binascii.Error):  # fmt: skip
        return None


def since(text: str, filters: Filters) -> Missed | None:
    """What was stored after a token, or None where it is no token."""
    token = read_token(text)
    if token is None:
        return None
    now = token_now()
    later = Q(stored_at__gt=token.at - OVERLAP) & (Q(incarnation=None) | ~Q(kind=ORDERED))
    for (life, partition), offset in now.offsets.items():
        first = token.offsets.get((life, partition), 0)
        if offset > first:
            later |= Q(incarnation=life, partition=partition, offset__gte=first, kind=ORDERED)
    found = filters.apply(Anomaly.objects.select_related("stream")).filter(later)
    rows = list(found.defer("context", "features", "evidence").order_by("-stored_at")[: LIMIT + 1])
    count = len(rows)
    if count > LIMIT:
        count = found.order_by()[:MOST_COUNTED].count()
    shown = rows[:LIMIT][::-1]
    return Missed([result_of(row) | {"change": "onset"} for row in shown], now.text(), count)
