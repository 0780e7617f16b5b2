"""What people say of anomalies: labels, what they teach, and how often detectors were right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection, transaction
from django.db.models import Count, Sum
from django.utils import timezone

from anomalies import missing
from anomalies.kept import kept
from anomalies.models import Anomaly, AnomalyType
from detection.models import QuarantineRelease
from streams.models import Rollup

VOTES_FROM = 0.8
"""A detector counts as having said so from its own alarm level on."""
_RELEASES = 724_103
"""Of PostgreSQL's advisory locks, with the series: releases of one series commit in their order."""

_BY_DETECTOR = """
SELECT v.key, a.label, count(*)
  FROM anomalies_anomaly a CROSS JOIN LATERAL jsonb_each(a.detectors) v
 WHERE a.label <> '' AND a.origin = 'detector' AND jsonb_typeof(v.value) = 'number'
   AND (v.value)::float8 >= %(from)s
 GROUP BY v.key, a.label
"""
_BY_SERIES = """
SELECT a.series_id, a.source, a.metric, count(*) FILTER (WHERE a.label = 'real'),
       count(*) FILTER (WHERE a.label = 'false_alarm'),
       count(*) FILTER (WHERE a.label = 'expected')
  FROM anomalies_anomaly a
 WHERE a.label <> '' AND a.origin = 'detector' AND a.series_id IS NOT NULL
 GROUP BY a.series_id, a.source, a.metric
 ORDER BY count(*) DESC, a.source COLLATE "C", a.metric COLLATE "C"
 LIMIT %(most)s
"""


@dataclass(slots=True)
class Counted:
    """Labels of one detector or series; ``precision`` leaves what was *expected* aside."""

    name: str
    real: int = 0
    false_alarm: int = 0
    expected: int = 0
    series: int | None = None
    metric: str = ""

    @property
    def total(self) -> int:
        return self.real + self.false_alarm + self.expected

    @property
    def precision(self) -> float | None:
        """The real ones' share of real ones and false alarms; None without either."""
        judged = self.real + self.false_alarm
        return self.real / judged if judged else None

    def as_dict(self) -> dict[str, Any]:
        return {"real": self.real, "false_alarm": self.false_alarm, "expected": self.expected,
                "precision": self.precision}  # fmt: skip


def set_label(
    pk: UUID, label: str, user: AbstractBaseUser | None = None, now: datetime | None = None
) -> Anomaly:
    """Store a label, or take it back with the empty one.

    *expected* asks the consumers to release the episode from quarantine; to take that label back
    withdraws the request, but what a consumer has learnt by then it keeps.

    Raises:
        Anomaly.DoesNotExist: there is none of this id.
    """
    with transaction.atomic():
        anomaly = (
            Anomaly.objects.select_for_update(of=("self",))
            .select_related("stream", "labelled_by").get(pk=pk)
        )  # fmt: skip
        anomaly.label = label
        anomaly.labelled_by_id = user.pk if label and user is not None else None
        anomaly.labelled_at = (now or timezone.now()) if label else None
        anomaly.save(update_fields=["label", "labelled_by", "labelled_at", "updated_at"])
        ask_to_release([anomaly], label, user)
    return anomaly


def ask_to_release(
    anomalies: Sequence[Anomaly], label: str, user: AbstractBaseUser | None = None
) -> None:
    """Inside the transaction that labels them all alike: ask for their release from quarantine,
    or withdraw what was asked."""
    asked = QuarantineRelease.objects.filter(anomaly_id__in=[a.pk for a in anomalies])
    if label != Anomaly.Label.EXPECTED:
        asked.delete()
        return
    known = set(asked.values_list("anomaly_id", flat=True))
    # One order for all, so that two who label at once never wait for each other in a ring.
    for anomaly in sorted(anomalies, key=lambda a: (a.series_id or 0, a.pk)):
        # Only the online detector of a series keeps a quarantine.
        if anomaly.series_id is None or anomaly.anomaly_type == AnomalyType.MULTIVARIATE:
            continue
        if anomaly.pk not in known:
            _release(anomaly, anomaly.series_id, user.get_username() if user else "api")


def _release(anomaly: Anomaly, series: int, by: str) -> None:
    with connection.cursor() as cursor:
        # A series takes up what is newer than the newest it has: none may become visible late.
        cursor.execute(
            "SELECT pg_advisory_xact_lock(%s, (%s %% 2147483647)::int)", [_RELEASES, series]
        )
    pause_s = missing.lasted_s(anomaly, timezone.now()) if anomaly.kind == "missing" else 0.0
    first = (anomaly.evidence or {}).get("event")
    flat = anomaly.anomaly_type == AnomalyType.FLATLINE
    values = [v for v in (anomaly.value, anomaly.peak_value) if v is not None]
    QuarantineRelease.objects.create(
        series_id=series,
        onset_at=anomaly.onset_at,
        end_at=anomaly.end_at,
        partition=anomaly.partition,
        first_event=first,
        last_event=None if first is None else first + _length(anomaly, flat) - 1,
        values=sorted(set(values)),
        flat=flat,
        pause_s=pause_s,
        anomaly_id=anomaly.pk,
        requested_by=by,
    )


def _length(anomaly: Anomaly, flat: bool) -> int:
    """Events from the onset to the end, up to a minute's more: what rollups can tell."""
    if flat or anomaly.end_at == anomaly.onset_at:
        return anomaly.count  # every event of a flat line is over the threshold
    between = Rollup.objects.filter(
        series=anomaly.series_id, incarnation=anomaly.incarnation_id,
        minute__gte=anomaly.onset_at - timedelta(minutes=1), minute__lte=anomaly.end_at,
    )  # fmt: skip
    return max(anomaly.count, between.aggregate(n=Sum("count"))["n"] or 0)


def by_detector() -> list[Counted]:
    """Detectors by how much was labelled of what they voted for; some seconds old at most."""

    def made() -> str:
        with connection.cursor() as cursor:
            cursor.execute(_BY_DETECTOR, {"from": VOTES_FROM})
            return json.dumps(cursor.fetchall())

    found: dict[str, Counted] = {}
    for name, label, n in json.loads(kept("votes", settings.VIGIL.dashboard.keep_s, made)):
        setattr(found.setdefault(name, Counted(name)), label, n)
    return _most(found.values())


def by_series(most: int = 100) -> list[Counted]:
    """Series by how many of their anomalies are labelled."""
    with connection.cursor() as cursor:
        cursor.execute(_BY_SERIES, {"most": most})
        return [
            Counted(source, real, false_alarm, expected, series, metric)
            for series, source, metric, real, false_alarm, expected in cursor.fetchall()
        ]


def total() -> Counted:
    """All labels of what detectors found."""
    rows = (
        Anomaly.objects.filter(origin=Anomaly.Origin.DETECTOR).exclude(label="").order_by()
        .values_list("label").annotate(n=Count("id"))
    )  # fmt: skip
    counted = Counted("all")
    for label, n in rows:
        setattr(counted, label, n)
    return counted


def latest(most: int = 20) -> list[Anomaly]:
    """The newest labels: what, by whom and when."""
    labelled = Anomaly.objects.exclude(label="").select_related("labelled_by")
    labelled = labelled.defer("context", "features", "evidence")
    newest = list(
        labelled.filter(labelled_at__isnull=False).order_by("-labelled_at", "-onset_at")[:most]
    )
    # Those whose time is not known come last, and only where there is room.
    if len(newest) < most:
        untimed = labelled.filter(labelled_at=None).order_by("-onset_at")
        newest += untimed[: most - len(newest)]
    return newest


def _most(rows: Any) -> list[Counted]:
    return sorted(rows, key=lambda row: (-row.total, row.name, row.metric))


def as_json(detectors: Sequence[Counted], series: Sequence[Counted]) -> dict[str, Any]:
    """For `GET /api/feedback`."""
    return {
        "all": total().as_dict(),
        "by_detector": [{"detector": c.name, **c.as_dict()} for c in detectors],
        "by_series": [{"source": c.name, "metric": c.metric, **c.as_dict()} for c in series],
    }  # fmt: skip
