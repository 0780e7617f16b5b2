"""The audit as its page lists it: filters, keyset pages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection
from django.db.models import Q, QuerySet
from django.http import QueryDict
from django.utils import timezone

from alerts.audit_words import DOORS, KINDS
from streams.models import AuditEntry

PAGE = 50
RANGES = [("", "any time"), ("1", "last 24 hours"), ("7", "last 7 days"), ("30", "last 30 days"),
          ("365", "last year")]  # fmt: skip
# A loose index scan: one look for each name, however many entries there are.
_PEOPLE = """
WITH RECURSIVE names AS (
  (SELECT actor_name FROM streams_auditentry ORDER BY actor_name LIMIT 1)
  UNION ALL
  SELECT (SELECT a.actor_name FROM streams_auditentry a WHERE a.actor_name > n.actor_name
          ORDER BY a.actor_name LIMIT 1)
    FROM names n WHERE n.actor_name IS NOT NULL
)
SELECT actor_name FROM names WHERE actor_name IS NOT NULL LIMIT 200
"""
Rows = QuerySet[AuditEntry, AuditEntry]


@dataclass(frozen=True, slots=True)
class Filter:
    """What the URL narrows the list to; what can't be read narrows nothing."""

    kind: str = ""
    who: str = ""
    object: str = ""
    text: str = ""
    via: str = ""
    days: str = ""
    at: datetime | None = None

    @classmethod
    def of(cls, query: QueryDict) -> Filter:
        """As it stands in the URL."""

        def text(name: str, longest: int) -> str:
            return str(query.get(name, "")).replace("\x00", "").strip()[:longest]

        return cls(
            kind=text("kind", 60) if text("kind", 60) in KINDS else "",
            who=text("who", 150), object=text("object", 60), text=text("q", 100),
            via=text("via", 20) if text("via", 20) in DOORS else "",
            days=text("days", 4) if text("days", 4) in dict(RANGES) else "",
        )  # fmt: skip

    @property
    def narrowed(self) -> bool:
        return any((self.kind, self.who, self.object, self.text, self.via, self.days))

    def apply(self, rows: Rows) -> Rows:
        """Only what fits."""
        if self.kind:
            rows = rows.filter(kind=self.kind)
        if self.who:
            rows = rows.filter(actor_name=self.who)
        if self.object:
            rows = rows.filter(object_id=self.object)
        if self.text:
            rows = rows.filter(Q(object_name__icontains=self.text))
        if self.via:
            rows = rows.filter(via=self.via)
        if self.days:
            rows = rows.filter(at__gte=timezone.now() - timedelta(days=int(self.days)))
        return rows


@dataclass(frozen=True, slots=True)
class Page:
    """One page, newest first; the keys lead to the pages beside it."""

    rows: list[AuditEntry]
    older: int | None
    newer: int | None


def page_of(given: Filter, before: str = "", after: str = "") -> Page:
    """So many entries before or after one of them."""
    rows = given.apply(AuditEntry.objects.select_related("reverts"))
    older, newer = _key(before), _key(after)
    if newer is not None:
        found = list(rows.filter(pk__gt=newer).order_by("pk")[: PAGE + 1])
        more = len(found) > PAGE
        found = found[:PAGE][::-1]
        return Page(found, found[-1].pk if found else None, found[0].pk if more else None)
    if older is not None:
        rows = rows.filter(pk__lt=older)
    found = list(rows.order_by("-pk")[: PAGE + 1])
    more, found = len(found) > PAGE, found[:PAGE]
    return Page(found, found[-1].pk if more else None,
                found[0].pk if older is not None and found else None)  # fmt: skip


def people() -> list[str]:
    """Everybody who changed something; at most 200 names."""
    with connection.cursor() as cursor:
        cursor.execute(_PEOPLE)
        return [row[0] for row in cursor.fetchall()]


def later(entry: AuditEntry) -> Rows:
    """What happened to the same thing since, the newest first."""
    same = AuditEntry.objects.filter(kind=entry.kind, object_id=entry.object_id, pk__gt=entry.pk)
    return same.order_by("-pk")


def _key(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
