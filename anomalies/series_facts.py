"""What else is known of a series: place in Kafka, what scores it and why, late events, drift."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from django.conf import settings
from django.db import connection

from anomalies import own_policy, quiet
from detection import drift
from detection.models import DriftReport, ModelVersion, ScoringVersion, VersionLog
from detection.thresholds import Policy
from streams.models import Series, StateSnapshot
from streams.vectors import is_vector

LATE_OF = timedelta(days=7)

# Segments that begin after one of a later minute hold events that came late.
_LATE = """
SELECT coalesce(sum(count) FILTER (WHERE minute < newest), 0), max(minute)
           FILTER (WHERE minute < newest)
  FROM (SELECT minute, count, max(minute) OVER (PARTITION BY incarnation_id, partition
               ORDER BY first_offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS newest
          FROM streams_rollup WHERE series_id = %(series)s AND minute >= %(start)s) AS segments
"""
_PLACE = """
SELECT partition, first_offset FROM streams_rollup
 WHERE series_id = %(series)s AND minute >= %(start)s
 ORDER BY minute DESC, first_offset DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything below the charts."""

    policy: Policy
    why: str
    others: list[Policy]
    quiet: quiet.Quiet | None
    version: ScoringVersion | None
    since: datetime | None
    models: list[dict[str, Any]]
    late: int
    late_at: datetime | None
    partition: int | None
    offset: int | None
    drifted: list[tuple[DriftReport, str, str]]
    state_at: datetime | None
    api: str
    kafka: str


def facts(series: Series, base: str) -> Facts:
    """Look it up; ``base`` is the address of this site, for a call that runs as pasted."""
    policies = own_policy.matching(series)
    entry = (
        VersionLog.objects.filter(incarnation__stream=series.stream_id)
        .select_related("scoring_version").order_by("-created_at", "-pk").first()
    )  # fmt: skip
    version = entry.scoring_version if entry else None
    late, late_at = _late(series)
    partition, offset = _place(series)
    saved = (
        StateSnapshot.objects.filter(series=series).order_by("-saved_at")
        .values_list("saved_at", flat=True).first()
    )  # fmt: skip
    return Facts(
        policy=policies[0], why=why(policies[0], series), others=policies[1:],
        quiet=quiet.of_series(series), version=version,
        since=entry.created_at if entry else None, models=_models(series, version), late=late,
        late_at=late_at, partition=partition, offset=offset, drifted=_drift(series), state_at=saved,
        api=_api(series, base), kafka=_kafka(series, partition, offset),
    )  # fmt: skip


def why(policy: Policy, series: Series) -> str:
    """Why this policy and no other counts."""
    if policy.version == 0:
        return "no policy speaks of this series, so the configuration counts"
    own = (own_policy.pattern_of(series.source), own_policy.pattern_of(series.metric))
    if (policy.source_pattern, policy.metric_pattern) == own:
        return "it names this series alone"
    if policy.source_pattern or policy.metric_pattern:
        return (f"its pattern {policy.source_pattern or '*'} / {policy.metric_pattern or '*'} "
                "is narrower than a whole stream")  # fmt: skip
    return "it is for the whole stream or for all, and none is narrower"


def _models(series: Series, version: ScoringVersion | None) -> list[dict[str, Any]]:
    """The stored models that score it: one of its metric comes before one of all metrics."""
    if version is None:
        return []
    found: dict[str, dict[str, Any]] = {}
    for model in version.payload.get("models", ()):
        mine = model["metric"] == series.metric
        if mine or (not model["metric"] and not is_vector(series.metric)):
            known = found.get(model["algorithm"])
            if known is None or mine:
                found[model["algorithm"]] = model
    return list(found.values())


def _late(series: Series) -> tuple[int, datetime | None]:
    if series.last_event_at is None:
        return 0, None
    with connection.cursor() as cursor:
        cursor.execute(_LATE, {"series": series.pk, "start": series.last_event_at - LATE_OF})
        n, at = cursor.fetchone()
    return int(n), at


def _place(series: Series) -> tuple[int | None, int | None]:
    """Partition and offset of the first event of the newest minute."""
    if series.last_event_at is None:
        return None, None
    with connection.cursor() as cursor:
        cursor.execute(_PLACE, {"series": series.pk, "start": series.last_event_at - LATE_OF})
        found = cursor.fetchone()
    return (int(found[0]), int(found[1])) if found else (series.last_partition, None)


def _drift(series: Series) -> list[tuple[DriftReport, str, str]]:
    """(report, its state, the feature that moved most) of the models of this metric."""
    rules = drift.settings_of(settings.VIGIL)
    reports = drift.latest().filter(model__stream=series.stream_id, metric=series.metric,
                                    model__state=ModelVersion.State.CHAMPION)  # fmt: skip
    return [(r, drift.state_of(r.worst_psi, rules), drift.shown(drift.worst_of(r)))
            for r in reports]  # fmt: skip


def _api(series: Series, base: str) -> str:
    query = urlencode({"source": series.source, "metric": series.metric,
                       "stream": series.stream.name, "limit": 20}, quote_via=quote)  # fmt: skip
    auth = "" if settings.VIGIL.api.open else ' -H "Authorization: Bearer $VIGIL_API__TOKEN"'
    return f"curl{auth} '{base}/api/anomalies?{query}'"


def _kafka(series: Series, partition: int | None, offset: int | None) -> str:
    if partition is None or offset is None:
        return ""
    servers = settings.VIGIL.kafka.bootstrap_servers
    return (f"kafka-console-consumer.sh --bootstrap-server {servers} --topic {series.stream.topic}"
            f" --partition {partition} --offset {offset} --max-messages 10")  # fmt: skip
