"""The read side: pages of series, and the pipeline's figures."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Count, Max, Min, Q, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest

from anomalies import quiet
from anomalies.models import Anomaly, Severity
from detection.models import ModelVersion
from streams.models import ConsumerStatus, DeadLetter, PartitionOffset, PipelineStat, Series

CONSUMER_ALIVE_S = 15


# ---- The pipeline's figures ---------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Pulse:
    """What the consumers say of themselves now; dead ones don't count."""

    alive: int
    known: int
    events_per_s: float
    lag: int
    latency_p95_ms: float | None
    partitions: int
    memory_mb: float


def pulse(now: datetime) -> Pulse:
    rows = list(ConsumerStatus.objects.filter(beat_at__gte=now - timedelta(minutes=10)))
    alive = [r for r in rows if r.beat_at >= now - timedelta(seconds=CONSUMER_ALIVE_S)]
    alive = [r for r in alive if r.state != "stopped"]
    known = [r for r in rows if r.state != "stopped"]
    latencies = [r.latency_p95_ms for r in alive if r.latency_p95_ms is not None]
    return Pulse(
        len(alive), len(known), sum(r.events_per_s for r in alive), sum(r.lag for r in alive),
        max(latencies, default=None), sum(len(r.partitions or []) for r in alive),
        sum(r.rss_mb for r in alive),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ShellCounts:
    """The sidebar's figures, read with each page."""

    urgent: int
    dead_letters: int
    consumers: Pulse


COUNT_LIMIT = 1_000


def shell_counts(request: HttpRequest, now: datetime) -> ShellCounts:
    """Read once a request: a page may show them besides."""
    known: ShellCounts | None = getattr(request, "shell_counts", None)
    if known is None:
        known = _shell_counts(now)
        vars(request)["shell_counts"] = known
    return known


# Counted up to a bound: the sidebar says "999+", and a million rows are not its business.
_WAITING = """
SELECT (SELECT count(*) FROM (SELECT 1 FROM anomalies_anomaly
                               WHERE label = '' AND severity >= %(high)s LIMIT %(most)s) AS a),
       (SELECT count(*) FROM (SELECT 1 FROM streams_deadletter
                               WHERE state = %(waiting)s LIMIT %(most)s) AS d)
"""


def _shell_counts(now: datetime) -> ShellCounts:
    asked: dict[str, int | str] = {
        "high": int(Severity.HIGH), "waiting": str(DeadLetter.State.WAITING), "most": COUNT_LIMIT,
    }  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, asked)
        urgent, dead_letters = cursor.fetchone()
    return ShellCounts(urgent, dead_letters, pulse(now))


def whole_span() -> tuple[datetime, datetime] | None:
    found = Series.objects.aggregate(first=Min("first_event_at"), last=Max("last_event_at"))
    return (found["first"], found["last"]) if found["first"] and found["last"] else None


def events_seen() -> int:
    return PartitionOffset.objects.aggregate(n=Sum("events"))["n"] or 0


def statistics(now: datetime) -> dict[str, Any]:
    """Totals, rates, latency, anomaly rate, per source and metric, and the models' metrics."""
    offsets = PartitionOffset.objects.aggregate(events=Sum("events"), rejects=Sum("rejects"))
    events, rejects = offsets["events"] or 0, offsets["rejects"] or 0
    recent = PipelineStat.objects.filter(minute__gte=now - timedelta(hours=24)).aggregate(
        events=Sum("events"), anomalies=Sum("anomalies"), rejects=Sum("rejects")
    )
    last_day = {name: recent[name] or 0 for name in ("events", "anomalies", "rejects")}
    anomalies = Anomaly.objects.aggregate(
        total=Count("id"), open=Count("id", filter=Q(state=Anomaly.State.OPEN)),
        manual=Count("id", filter=Q(origin=Anomaly.Origin.MANUAL)),
        detected=Count("id", filter=Q(origin=Anomaly.Origin.DETECTOR)),
    )  # fmt: skip
    detected = anomalies["detected"]
    now_is = pulse(now)
    return {
        "at": now.isoformat().replace("+00:00", "Z"),
        "totals": {
            "events": events, "rejects": rejects, "anomalies": anomalies["total"],
            "open_anomalies": anomalies["open"], "manual_reports": anomalies["manual"],
            "series": Series.objects.count(),
            "dead_letters_waiting": DeadLetter.objects.filter(
                state=DeadLetter.State.WAITING
            ).count(),
        },
        "rates": {
            "events_per_s": now_is.events_per_s,
            "anomaly_rate": detected / events if events else None,
            "error_rate": rejects / (events + rejects) if events + rejects else None,
            "last_24_h": last_day,
        },
        "quiet": quiet.totals(),
        "latency_p95_ms": now_is.latency_p95_ms,
        "lag": now_is.lag,
        "consumers": {"alive": now_is.alive, "partitions": now_is.partitions,
                      "memory_mb": round(now_is.memory_mb, 1)},
        "by_source": _groups("source"),
        "by_metric": _groups("metric"),
        "by_severity": _by_severity(),
        "by_type": _by("anomaly_type"),
        "labels": _by("label", empty="none"),
        "models": _models(),
    }  # fmt: skip


def _groups(column: str) -> list[dict[str, Any]]:
    """The hundred groups with most anomalies, then those with most events."""
    odd = (
        Anomaly.objects.order_by().values(column)
        .annotate(n=Count("id"), worst=Max(Coalesce("peak_score", "score")), last=Max("onset_at"))
        .order_by("-n")[:100]
    )  # fmt: skip
    found = {row[column]: row for row in odd}
    events = {
        row[column]: row
        for row in Series.objects.order_by().values(column)
        .annotate(n=Sum("events"), series=Count("id")).order_by("-n")[:1_000]
    }  # fmt: skip
    names = [*found, *(name for name in events if name not in found)][:100]
    groups = []
    for name in names:
        row, counted = found.get(name), events.get(name)
        n = (counted or {}).get("n") or 0
        groups.append({
            column: name, "events": n, "series": (counted or {}).get("series", 0),
            "anomalies": row["n"] if row else 0,
            "anomaly_rate": row["n"] / n if row and n else (None if row else 0.0),
            "max_score": row["worst"] if row else None,
            "last_anomaly": row["last"].isoformat() if row and row["last"] else None,
        })  # fmt: skip
    return groups


def _by_severity() -> dict[str, int]:
    rows = Anomaly.objects.order_by().values_list("severity").annotate(n=Count("id"))
    counted = dict(rows)
    return {str(level.label): counted.get(level.value, 0) for level in Severity}


def _by(column: str, empty: str = "") -> dict[str, int]:
    rows = Anomaly.objects.order_by().values_list(column).annotate(n=Count("id")).order_by("-n")
    return {(name or empty): n for name, n in rows[:50]}


def _models() -> list[dict[str, Any]]:
    serving = ModelVersion.objects.filter(
        state__in=[ModelVersion.State.CHAMPION, ModelVersion.State.CHALLENGER]
    ).select_related("stream").defer("artefact")  # fmt: skip
    serving = serving.order_by("stream__name", "metric", "algorithm")
    return [
        {
            "algorithm": model.algorithm, "version": model.version, "state": model.state,
            "stream": model.stream.name, "metric": model.metric or None, "sha256": model.sha256,
            "trained_at": model.created_at.isoformat(),
            "metrics": model.manifest.get("metrics", {}),
        }
        for model in serving[:100]
    ]  # fmt: skip
