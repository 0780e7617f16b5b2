"""Anomalies page by page: keyset cursors, so that page 1,000 costs what page 1 does and nothing
that arrives meanwhile shifts a page."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import F, Q, QuerySet

from anomalies.filters import WORST, Filters
from anomalies.models import Anomaly

COUNTED = 10_000
"""A list says how many it holds up to here."""
CHUNK = 500


@dataclass(frozen=True, slots=True)
class Sort:
    """An order of the list; ``keys`` descend, or ascend all where ``ascending``. The id ends it."""

    name: str
    words: str
    keys: tuple[str, ...]
    ascending: bool = False

    def ordered(self, rows: QuerySet[Anomaly], *, backwards: bool = False) -> QuerySet[Anomaly]:
        up = self.ascending != backwards
        named = [F(key).asc() if up else F(key).desc() for key in (*self.keys, "id")]
        return rows.order_by(*named)

    def place(self, anomaly: Anomaly) -> tuple[Any, ...]:
        """Where an anomaly stands in this order."""
        found = (_worst(anomaly) if k == "worst" else getattr(anomaly, k) for k in self.keys)
        return (*found, anomaly.pk)

    def beyond(self, place: tuple[Any, ...], *, backwards: bool = False) -> Q:
        """What comes after a place, or before it."""
        up = self.ascending != backwards
        than, keys = ("gt" if up else "lt"), (*self.keys, "id")
        found = Q(**{f"{keys[-1]}__{than}": place[-1]})
        for key, value in zip(keys[-2::-1], place[-2::-1], strict=True):
            found = Q(**{f"{key}__{than}": value}) | Q(**{key: value}) & found
        # Says again what follows from it, so that the index is entered at the place.
        return Q(**{f"{keys[0]}__{than}e": place[0]}) & found


NEWEST = Sort("", "newest first", ("onset_at",))
SORTS = {
    sort.name: sort
    for sort in (
        NEWEST,
        Sort("oldest", "oldest first", ("onset_at",), ascending=True),
        Sort("score", "highest score first", ("worst", "onset_at")),
        Sort("stored", "as they were stored, the latest first", ("stored_at",)),
    )
}


@dataclass(frozen=True, slots=True)
class Page:
    """One page in its order; the cursors lead to the pages beside it, `newer` up and `older` down
    the list."""

    rows: list[Anomaly]
    older: str | None
    newer: str | None


def cursor_of(anomaly: Anomaly, sort: Sort = NEWEST) -> str:
    parts = [p.isoformat() if isinstance(p, datetime) else str(p) for p in sort.place(anomaly)]
    return urlsafe_b64encode("|".join([sort.name, *parts]).encode()).decode().rstrip("=")


def read_cursor(text: str, sort: Sort = NEWEST) -> tuple[Any, ...] | None:
    """The place a cursor names, or None where it is not one of this order."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        name, *parts = urlsafe_b64decode(padded).decode().split("|")
        if name != sort.name or len(parts) != len(sort.keys) + 1:
            return None
        place = [_read(key, part) for key, part in zip(sort.keys, parts, strict=False)]
        return (*place, UUID(parts[-1]))
    except ValueError:  # UnicodeError and binascii.Error are such
        return None


def page_of(
    filters: Filters, *, sort: Sort = NEWEST, before: str = "", after: str = "", size: int = 50,
    whole: bool = False,
) -> Page:  # fmt: skip
    """The `size` anomalies below or above a cursor.

    `whole` rows carry detectors and models, as results need them; a list's rows don't.
    """
    found = chosen(filters).select_related("stream").defer("context", "features")
    if not whole:
        found = found.defer("context", "features", "detectors", "models_used", "evidence")
    below, above = read_cursor(before, sort), read_cursor(after, sort)
    if above:
        rows = list(
            sort.ordered(found.filter(sort.beyond(above, backwards=True)), backwards=True)
            [: size + 1]
        )  # fmt: skip
        if len(rows) > size:
            rows = rows[:size][::-1]
            return Page(rows, cursor_of(rows[-1], sort), cursor_of(rows[0], sort))
        below = None  # the top is reached: the first page, and a full one
    if below:
        found = found.filter(sort.beyond(below))
    rows = list(sort.ordered(found)[: size + 1])
    more = len(rows) > size
    rows = rows[:size]
    return Page(rows, _cursor(rows, -1, sort, more), _cursor(rows, 0, sort, below is not None))


def chunks(filters: Filters, sort: Sort, size: int = CHUNK) -> Iterator[list[Anomaly]]:
    """All of them, a chunk at a time and each by a query of its own: bounded memory, no cursor
    that keeps a transaction open."""
    found = chosen(filters).select_related("stream", "labelled_by")
    found = found.defer("context", "features", "evidence")
    place: tuple[Any, ...] | None = None
    while True:
        part = found if place is None else found.filter(sort.beyond(place))
        rows = list(sort.ordered(part)[:size])
        if rows:
            yield rows
        if len(rows) < size:
            return
        place = sort.place(rows[-1])


def neighbours(
    anomaly: Anomaly, filters: Filters, sort: Sort = NEWEST
) -> tuple[UUID | None, UUID | None]:
    """The one above and the one below an anomaly in the list."""
    found, place = chosen(filters), sort.place(anomaly)
    above = sort.ordered(found.filter(sort.beyond(place, backwards=True)), backwards=True)
    below = sort.ordered(found.filter(sort.beyond(place)))
    return above.values_list("pk", flat=True).first(), below.values_list("pk", flat=True).first()


def count(filters: Filters, most: int = COUNTED) -> int:
    """How many there are; one more than `most` says that there are more."""
    return chosen(filters).order_by()[: most + 1].count()


def chosen(filters: Filters) -> QuerySet[Anomaly]:
    return filters.apply(Anomaly.objects.alias(worst=WORST))


def _worst(anomaly: Anomaly) -> float:
    found = anomaly.score if anomaly.peak_score is None else anomaly.peak_score
    return 0.0 if found is None else found


def _read(key: str, text: str) -> Any:
    if key == "worst":
        score = float(text)
        if not 0 <= score <= 1:
            raise ValueError
        return score
    moment = datetime.fromisoformat(text)
    if not moment.tzinfo or not 1 < moment.year < 9999:
        raise ValueError
    return moment


def _cursor(rows: list[Anomaly], i: int, sort: Sort, wanted: bool) -> str | None:
    return cursor_of(rows[i], sort) if rows and wanted else None
