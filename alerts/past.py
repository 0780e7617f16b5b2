"""Signals of the past, read in columns from what is stored: for previews and budgets.

The outbox says when an anomaly was found, grew worse and ended. Where its rows were dropped by
retention, the anomaly itself stands in: found with the severity that it reached in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Min

from alerts.machine import RANKS, Choice, Signal, fits
from alerts.models import Incident, IncidentAnomaly, Tag
from alerts.quieting import Quiet
from anomalies.models import Anomaly
from detection.thresholds import LEVELS
from streams.clock import to_us
from streams.models import Series

MOST_SIGNALS = 400_000
TROUBLE = ("opened", "worse", "again", "still_firing")
"""Reasons that speak of trouble, in contrast to reminders, escalations and good news."""

# One row for each change; anomalies without any left have one row with an empty kind. As of each
# change, as `alerts.waiting` reads it.
_CHANGES = """
SELECT o.kind, a.id::text, coalesce(t.name, 'alertmanager:' || i.source_name, ''), a.source, a.metric, a.anomaly_type,
    coalesce(o.payload->>'severity', ''), a.severity,
    coalesce((o.payload->>'anomaly_score')::float8, a.score), a.direction,
    (extract(epoch FROM a.onset_at) * 1e6)::int8,
    (extract(epoch FROM coalesce((o.payload->>'end_timestamp')::timestamptz, a.end_at)) * 1e6)::int8,
    (extract(epoch FROM coalesce((coalesce(o.payload->>'at', o.payload->>'timestamp',
        o.payload->>'end_timestamp'))::timestamptz, a.onset_at)) * 1e6)::int8,
    a.state, a.label
FROM anomalies_anomaly a
LEFT JOIN anomalies_outbox o ON o.anomaly_id = a.id
LEFT JOIN streams_stream t ON t.id = a.stream_id
LEFT JOIN alerts_inboundalert i ON i.anomaly_id = a.id
WHERE a.onset_at >= %s AND a.onset_at < %s
ORDER BY a.onset_at DESC, a.id, o.sequence
LIMIT %s
"""  # noqa: E501


@dataclass(frozen=True, slots=True)
class Past:
    """What happened in ``[start, end)``.

    ``rough`` counts anomalies whose changes are gone: their first severity isn't known any more.
    ``cut`` says that there was more than could be read; then the oldest are missing.
    """

    start: datetime
    end: datetime
    signals: tuple[Signal, ...]
    labels: dict[str, str] = field(default_factory=dict)
    rough: int = 0
    cut: bool = False


def read(start: datetime, end: datetime) -> Past:
    """All signals of anomalies with an onset in the stretch, in order of time."""
    with connection.cursor() as cursor:
        cursor.execute(_CHANGES, [start, end, MOST_SIGNALS + 1])
        rows = cursor.fetchall()
    describe = Describe()
    end_us = to_us(end)
    signals: list[Signal] = []
    labels: dict[str, str] = {}
    rough: set[str] = set()
    for row in rows[:MOST_SIGNALS]:
        if row[14]:
            labels[row[1]] = row[14]
        if row[0] is None:
            rough.add(row[1])
        signals += [s for s in _signals(row, describe) if s.at_us < end_us]
    signals.sort(key=lambda s: s.order)
    return Past(start, end, tuple(signals), labels, len(rough), len(rows) > MOST_SIGNALS)


def _signals(row: Sequence[Any], describe: Describe) -> list[Signal]:
    (change, anomaly, stream, source, metric, kind, said, rank, score, direction, onset_us, end_us,
     at_us, state, _) = row  # fmt: skip
    tags, siblings = describe(stream, source, metric)
    what: Any = change if change in ("onset", "update", "closed") else "onset"
    found = [Signal(
        at_us, what, anomaly, stream, source, metric, kind, RANKS.get(said, rank), score,
        direction, tags, onset_us=onset_us, end_us=max(end_us, onset_us) if change else onset_us,
        siblings=siblings,
    )]  # fmt: skip
    # By hand, or without any changes left: found and over.
    if change == "manual" or (change is None and state == "closed"):
        found.append(replace(found[0], at_us=max(end_us, at_us), change="closed", end_us=end_us))
    return found


class Describe:
    """What is known of a series now: its tags, and how many its source has."""

    def __init__(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT t.name, s.source, count(*) FROM streams_series s"
                " JOIN streams_stream t ON t.id = s.stream_id GROUP BY 1, 2"
            )
            self._siblings = {(stream, source): n for stream, source, n in cursor.fetchall()}
        self._tags = [
            (t.key, t.value, t.stream, t.source, t.metric)
            for t in sorted(Tag.objects.all(), key=lambda t: (_literal(t), t.value))
        ]
        self._known: dict[tuple[str, str, str], tuple[dict[str, str], int]] = {}

    def __call__(self, stream: str, source: str, metric: str) -> tuple[dict[str, str], int]:
        key = (stream, source, metric)
        found = self._known.get(key)
        if found is None:
            tags = {
                name: value for name, value, *patterns in self._tags
                if all(fits(p, text) for p, text in zip(patterns, key, strict=True))
            }  # fmt: skip
            found = self._known[key] = (tags, self._siblings.get((stream, source), 1))
        return found


def _literal(tag: Tag) -> int:
    return sum(len(p.replace("*", "")) for p in (tag.stream, tag.source, tag.metric))


def near_misses(start: datetime, end: datetime, least: float) -> tuple[float, int] | None:
    """Onsets that there would have been at a lower threshold, counted from stored near misses.

    Returns:
        (the level at or below ``least`` at which they are counted, how many); None where nothing so
        low is stored.
    """
    fitting = [i for i, level in enumerate(LEVELS) if level <= least + 1e-9 and i >= 2]
    if not fitting:
        return None
    bit = fitting[-1]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM anomalies_candidate WHERE event_at >= %s AND event_at < %s"
            " AND levels & %s <> 0",
            [start, end, 1 << bit],
        )
        found = cursor.fetchone()
    return float(LEVELS[bit]), int(found[0]) if found else 0


# ---- What people said of the past ---------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Labelled:
    """An incident or a single anomaly with a label, and the anomalies that it is made of."""

    name: str
    at: datetime
    label: str
    anomalies: frozenset[str]
    incident: int | None = None
    anomaly: str | None = None


def labelled(start: datetime, end: datetime, most: int = 2_000) -> list[Labelled]:
    """Labelled incidents of the stretch, and labelled anomalies that are in none of those."""
    found: list[Labelled] = []
    taken: set[str] = set()
    rows = (
        Incident.objects.filter(first_at__gte=start, first_at__lt=end)
        .exclude(label="").order_by("first_at", "pk")[:most]
    )  # fmt: skip
    members: dict[int, set[str]] = {}
    pairs = IncidentAnomaly.objects.filter(incident__in=[row.pk for row in rows])
    for incident, anomaly in pairs.values_list("incident_id", "anomaly_id"):
        members.setdefault(incident, set()).add(str(anomaly))
    for row in rows:
        ids = frozenset(members.get(row.pk, ()))
        taken |= ids
        found.append(Labelled(f"{row}, {row.title}", row.first_at, row.label, ids, row.pk))
    alone = (
        Anomaly.objects.filter(onset_at__gte=start, onset_at__lt=end).exclude(label="")
        .order_by("onset_at", "id").values_list("id", "source", "metric", "onset_at", "label")
    )  # fmt: skip
    for pk, source, metric, at, label in alone[:most]:
        if str(pk) not in taken:
            found.append(Labelled(f"{metric} on {source}", at, label, frozenset([str(pk)]),
                                  anomaly=str(pk)))  # fmt: skip
    return sorted(found, key=lambda one: one.at)


def really_sent(rule: int, start: datetime, end: datetime) -> int:
    """Words of trouble that a rule did send or is sending, whoever heard them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM (SELECT DISTINCT n.incident_id, n.reason, n.event_at"
            " FROM alerts_notification n JOIN alerts_ruleversion v ON v.id = n.rule_version_id"
            " WHERE v.rule_id = %s AND n.event_at >= %s AND n.event_at < %s"
            " AND n.state <> 'cancelled' AND n.reason = ANY(%s)) AS words",
            [rule, start, end, list(TROUBLE)],
        )
        found = cursor.fetchone()
    return int(found[0]) if found else 0


def sent_by_rule(start: datetime, end: datetime) -> dict[int, int]:
    """The same of all rules at once."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT rule_id, count(*) FROM (SELECT DISTINCT v.rule_id, n.incident_id, n.reason,"
            " n.event_at FROM alerts_notification n"
            " JOIN alerts_ruleversion v ON v.id = n.rule_version_id"
            " WHERE n.event_at >= %s AND n.event_at < %s AND n.state <> 'cancelled'"
            " AND n.reason = ANY(%s)) AS words GROUP BY 1",
            [start, end, list(TROUBLE)],
        )
        return {rule: int(count) for rule, count in cursor.fetchall()}


def lowest_threshold(start: datetime, end: datetime) -> float | None:
    """The lowest score that was enough for an anomaly in the stretch."""
    found = Anomaly.objects.filter(onset_at__gte=start, onset_at__lt=end)
    least: float | None = found.aggregate(least=Min("threshold"))["least"]
    return least


def series_meant(silence: Quiet) -> int:
    """How many series a silence speaks of, whatever type and severity an anomaly of them has."""
    describe, most = Describe(), silence.matcher
    found = 0
    for stream, source, metric in Series.objects.values_list("stream__name", "source", "metric"):
        tags, _ = describe(stream or "", source, metric)
        found += (
            _one_of(most.streams, stream or "") and _one_of(most.sources, source)
            and _one_of(most.metrics, metric)
            and all(key in tags and fits(text, tags[key]) for key, text in most.tags.items())
        )  # fmt: skip
    return found


def open_meant(silence: Quiet, most: int = 1_000) -> list[tuple[str, str]]:
    """(source, metric) of open anomalies that a silence means, by whatever rule."""
    rows = (
        Anomaly.objects.filter(state=Anomaly.State.OPEN).order_by("-onset_at", "-id")
        .values_list("id", "stream__name", "source", "metric", "anomaly_type", "severity")[:most]
    )  # fmt: skip
    describe, choice = Describe(), Choice(silence.matcher)
    found = []
    for pk, stream, source, metric, kind, severity in rows:
        tags, _ = describe(stream or "", source, metric)
        if choice.holds(
            Signal(0, "onset", str(pk), stream or "", source, metric, kind, severity, tags=tags)
        ):
            found.append((source, metric))
    return found


def _one_of(patterns: Sequence[str], text: str) -> bool:
    return not patterns or any(fits(p, text) for p in patterns)
