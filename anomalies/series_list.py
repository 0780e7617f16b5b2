"""The list of series: filters and order from the address, pages by key, what each row shows."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.http import QueryDict

from anomalies.models import Severity
from streams.models import Series, Stream
from streams.silence import GAPS, LEAST_S, silent_for_s

PAGE = 50
COUNT_LIMIT = 100_000
DAY = timedelta(hours=24)
WARM_UP = 30
"""Events after which the first detectors score."""

STATES = [
    ("", "any"), ("receiving", "receiving"), ("silent", "silent"), ("warming", "warming up"),
    ("alarming", "alarming"), ("budget", "over budget"), ("split", "in two partitions"),
]  # fmt: skip
RANGES = [("", "any"), ("1h", "last hour"), ("24h", "last 24 hours"), ("7d", "last 7 days"),
          ("30d", "last 30 days")]  # fmt: skip
_RANGE_S = {"1h": 3_600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000}
SORTS = {
    "": "by name", "anomalies": "most anomalies in 24 h", "newest": "newest event first",
    "oldest": "longest without an event", "events": "most events",
}  # fmt: skip

_GAP = "extract(epoch FROM s.last_event_at - s.first_event_at) / nullif(s.events - 1, 0)"
_SILENT = (f"extract(epoch FROM %(now)s - s.last_event_at)"
           f" > coalesce(s.silence_after_s, greatest({LEAST_S}, {GAPS} * coalesce({_GAP}, 0)))"
           )  # fmt: skip
_ALARMING = "EXISTS (SELECT FROM anomalies_anomaly o WHERE o.series_id = s.id AND o.state = 'open')"
_WHERE = {
    "receiving": f"NOT ({_SILENT})", "silent": _SILENT,
    "warming": f"s.events < {WARM_UP}", "alarming": _ALARMING,
    "budget": "s.raised_threshold IS NOT NULL", "split": "s.other_partition IS NOT NULL",
}  # fmt: skip
# What rows are ordered by, and whether the greatest comes first; the id settles equal ones.
_ORDER = {
    "": ("(s.source, s.metric)", False),
    "anomalies": ("coalesce(d.n, 0)", True),
    "newest": ("coalesce(s.last_event_at, '-infinity')", True),
    "oldest": ("coalesce(s.last_event_at, '-infinity')", False),
    "events": ("s.events", True),
}
_CAST = {"anomalies": "bigint", "newest": "timestamptz", "oldest": "timestamptz",
         "events": "bigint"}  # fmt: skip
_DAY_COUNTS = """LEFT JOIN (
    SELECT series_id, count(*) AS n FROM anomalies_anomaly
     WHERE onset_at >= %(day)s AND onset_at <= %(now)s
     GROUP BY series_id) AS d ON d.series_id = s.id"""


@dataclass(frozen=True, slots=True)
class Question:
    """What the address asks for; what can't be read in it is left out."""

    search: str = ""
    source: str = ""
    metric: str = ""
    stream: str = ""
    state: str = ""
    odd: str = ""
    sort: str = ""
    after: str = ""

    @classmethod
    def of(cls, query: QueryDict) -> Question:
        def one_of(name: str, choices: Any, default: str = "") -> str:
            given = query.get(name, "")
            return given if given in choices else default

        return cls(
            search=_printable(query.get("q", "")), source=_printable(query.get("source", "")),
            metric=_printable(query.get("metric", "")), stream=_printable(query.get("stream", "")),
            state=one_of("state", dict(STATES)), odd=one_of("anomalies", dict(RANGES)),
            sort=one_of("sort", SORTS), after=query.get("after", ""),
        )  # fmt: skip

    @property
    def narrowed(self) -> bool:
        return bool(self.search or self.source or self.metric or self.stream or self.state
                    or self.odd)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One series with what its line shows; ``counts`` are [severity, anomalies] of 24 h."""

    series: Series
    counts: list[tuple[int, int]]
    open: bool
    silent_s: float | None

    @property
    def anomalies(self) -> int:
        return sum(n for _, n in self.counts)

    @property
    def worst(self) -> int:
        return max((severity for severity, _ in self.counts), default=0)

    @property
    def warming(self) -> bool:
        return self.series.events < WARM_UP

    @property
    def said(self) -> str:
        """ "3 in 24 h: 1 critical, 2 low"."""
        if not self.counts:
            return "no anomaly in 24 h"
        parts = ", ".join(f"{n} {Severity(level).label}" for level, n in self.counts)
        return f"{self.anomalies} in 24 h: {parts}"


@dataclass(frozen=True, slots=True)
class Page:
    """Series in order; ``next`` is the cursor after the last one."""

    rows: list[Row]
    next: str
    total: int


def page_of(question: Question, now: datetime, size: int = PAGE) -> Page:
    """Those that match, ``size`` from the cursor on; three queries whatever the number of rows."""
    where, values = _where(question, now)
    key, falling = _ORDER[question.sort]
    join = _DAY_COUNTS if question.sort == "anomalies" else ""
    place = _read(question.after, question.sort)
    order = f"ORDER BY {key} {'DESC' if falling else ''}, s.id {'DESC' if falling else ''}"
    if not question.sort:
        order = "ORDER BY s.source, s.metric, s.id"
    beyond = ""
    if place is not None:
        values["key"], values["id"] = place
        sign = "<" if falling else ">"
        cast = _CAST.get(question.sort)
        beyond = f" AND ({key}, s.id) {sign} (%(key)s::{cast}, %(id)s)"
        if not question.sort:
            values["source_at"], values["metric_at"] = place[0]
            beyond = " AND (s.source, s.metric, s.id) > (%(source_at)s, %(metric_at)s, %(id)s)"
            values.pop("key")
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*) FROM (SELECT FROM streams_series s WHERE {where}"  # noqa: S608
            f" LIMIT {COUNT_LIMIT}) AS found", values,
        )  # fmt: skip
        total = cursor.fetchone()[0]
        shown = "coalesce(d.n, 0)" if join else "0"
        cursor.execute(
            f"SELECT s.id, {shown} FROM streams_series s {join}"  # noqa: S608  (parts are ours)
            f" WHERE {where}{beyond} {order} LIMIT {size + 1}", values,
        )  # fmt: skip
        found = cursor.fetchall()
    rows = _rows([pk for pk, _ in found[:size]], now)
    following = ""
    if len(found) > size and rows:
        following = _cursor(rows[-1].series, found[size - 1][1], question.sort)
    return Page(rows, following, total)


def streams() -> list[tuple[str, str]]:
    names = Stream.objects.order_by("name").values_list("name", flat=True)[:200]
    return [("", "all"), *((name, name) for name in names)]


def _where(question: Question, now: datetime) -> tuple[str, dict[str, Any]]:
    parts = ["true"]
    values: dict[str, Any] = {"now": now, "day": now - DAY}
    for name in ("source", "metric"):
        if text := getattr(question, name):
            parts.append(f"s.{name} ILIKE %({name})s")
            values[name] = _holding(text)
    for i, word in enumerate(question.search.split()[:8]):
        parts.append(f"(s.source || ' ' || s.metric) ILIKE %(word{i})s")
        values[f"word{i}"] = _holding(word)
    if question.stream:
        parts.append("s.stream_id = (SELECT id FROM streams_stream WHERE name = %(stream)s)")
        values["stream"] = question.stream
    if question.state:
        parts.append(_WHERE[question.state])
    if question.odd:
        parts.append("EXISTS (SELECT FROM anomalies_anomaly a WHERE a.series_id = s.id"
                     " AND a.onset_at >= %(since)s AND a.onset_at <= %(now)s)")  # fmt: skip
        values["since"] = now - timedelta(seconds=_RANGE_S[question.odd])
    return " AND ".join(parts), values


def _rows(keys: list[int], now: datetime) -> list[Row]:
    found = Series.objects.select_related("stream").in_bulk(keys)
    counts: dict[int, list[tuple[int, int]]] = {}
    opened: set[int] = set()
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT k.id, a.severity, count(a.severity), bool_or(a.still)
                 FROM unnest(%(keys)s::bigint[]) AS k (id)
                CROSS JOIN LATERAL (
                    SELECT severity, state = 'open' AS still FROM anomalies_anomaly
                     WHERE series_id = k.id AND onset_at >= %(day)s AND onset_at <= %(now)s) AS a
                GROUP BY k.id, a.severity ORDER BY k.id, a.severity DESC""",
            {"keys": keys, "day": now - DAY, "now": now},
        )
        for pk, severity, n, still in cursor.fetchall():
            counts.setdefault(pk, []).append((severity, n))
            if still:
                opened.add(pk)
    return [Row(found[pk], counts.get(pk, []), pk in opened, silent_for_s(found[pk], now))
            for pk in keys if pk in found]  # fmt: skip


def _cursor(series: Series, anomalies: int, sort: str) -> str:
    last = series.last_event_at
    key: Any = {
        "": [series.source, series.metric], "anomalies": anomalies, "events": series.events,
    }.get(sort, last.isoformat() if last else "-infinity")  # fmt: skip
    text = json.dumps([sort, key, series.pk], ensure_ascii=False)
    return urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def _read(text: str, sort: str) -> tuple[Any, int] | None:
    """The place a cursor of this order names; None for what is none of ours."""
    if not text.isascii() or len(text) > 2_000:
        return None
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        of, key, pk = json.loads(raw.decode("utf-8"))
        if of != sort or type(pk) is not int or not 0 <= pk < 2**62:
            return None
        if not sort:
            source, metric = key
            usable = all(isinstance(k, str) and "\x00" not in k for k in (source, metric))
            return ((source, metric), pk) if usable else None
        if sort in ("anomalies", "events"):
            return (key, pk) if type(key) is int and 0 <= key < 2**62 else None
        if key != "-infinity" and datetime.fromisoformat(key).tzinfo is None:
            return None
        return key, pk
    except (ValueError, TypeError, RecursionError):
        return None


def _holding(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _printable(text: str) -> str:
    # PostgreSQL refuses a NUL in text, and what is no Unicode.
    return text.replace("\x00", "").encode("utf-8", "ignore").decode()[:255]
