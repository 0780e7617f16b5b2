"""How far live features and scores have moved from those that a model was trained on.

Training's counts stand in the model's manifest, live ones in `FeatureHour`; the bins are those of
`detection.bins`. Both distances are of the binned distributions.

PSI = Σ (a − e) · ln(a / e) over the bins' shares (Siddiqi, Credit Risk Scorecards, 2006): below 0.1
nothing to speak of, over 0.25 another distribution. Half an event is added to each bin, so that an
empty one is no infinity. KS is the largest distance of the two cumulative shares.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.conf import settings as django_settings
from django.db import connection
from django.db.models import Max, QuerySet
from numpy.typing import NDArray

from detection import bins
from detection.bins import SCORE, VALUE
from detection.models import DriftReport, FeatureHour, ModelVersion
from streams.models import Stream
from streams.vectors import is_vector

Counts = NDArray[np.int64]

WORST_LENGTH = 40  # of the column: a value's name may be longer


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """``hours`` of events are compared with training's; fewer than ``min_events`` say nothing."""

    hours: int = 24
    warn_psi: float = 0.1
    alarm_psi: float = 0.25
    min_events: int = 300
    keep_days: float = 30.0


def settings_of(config: Any) -> DriftSettings:
    """The configuration's part."""
    given = config.anomaly_detection.drift
    return DriftSettings(
        given.hours, given.warn_psi, given.alarm_psi, given.min_events, given.keep_days
    )


def psi(expected: Counts, actual: Counts) -> float:
    """The population stability index of two counts [bins]."""
    e = (expected + 0.5) / (expected.sum() + 0.5 * len(expected))
    a = (actual + 0.5) / (actual.sum() + 0.5 * len(actual))
    return float(np.sum((a - e) * np.log(a / e)))


def ks(expected: Counts, actual: Counts) -> float:
    """The Kolmogorov-Smirnov distance of two counts [bins], neither of them empty."""
    e, a = np.cumsum(expected) / expected.sum(), np.cumsum(actual) / actual.sum()
    return float(np.abs(a - e).max())


def reference(manifest: Mapping[str, Any], model_metric: str) -> dict[str, dict[str, Counts]]:
    """Training's counts by metric and feature; "" is all of them. Empty for an older model.

    A value of wide events is named as such: ``value:flow``.
    """
    given = manifest.get("distributions") or {}
    if given.get("bins") != bins.BINS_VERSION:
        return {}
    called = _names_of(manifest)
    found = {
        metric: {called.get(n, n): np.array(row, dtype=np.int64) for n, row in rows.items()}
        for metric, rows in given["metrics"].items()
    }
    if model_metric:
        found = {model_metric: found.get(model_metric, found[""])}
    seen = manifest.get("feature_names")
    if seen and not called:  # what a model does not look at is no drift to it
        found = {m: {n: r for n, r in rows.items() if n in seen} for m, rows in found.items()}
    if scores := manifest.get("score_counts"):
        # Of all metrics together: no single one's scores were counted.
        found[model_metric][SCORE] = np.array(scores, dtype=np.int64)
    return found


def _names_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Of a model of wide events: under which name each of its values is told."""
    if manifest.get("space") != "vector":
        return {}
    names = manifest["feature_names"]
    return dict(zip(bins.value_keys(len(names)), (f"{VALUE}:{n}" for n in names), strict=True))


_LIVE = """
SELECT metric, feature, bin, sum(n)::bigint
FROM detection_featurehour, unnest(counts) WITH ORDINALITY AS c (n, bin)
WHERE stream_id = %s AND hour > %s AND hour <= %s
GROUP BY metric, feature, bin
"""


def live(
    stream: Stream, from_hour: dt.datetime, to_hour: dt.datetime
) -> dict[str, dict[str, Counts]]:
    """Counts of the hours after ``from_hour`` to ``to_hour``, by metric and feature; "" is all.

    Wide events are not among all metrics: their values are no features of a series.
    """
    found: dict[str, dict[str, Counts]] = {"": {}}
    with connection.cursor() as cursor:
        cursor.execute(_LIVE, [stream.pk, from_hour, to_hour])
        for metric, feature, number, count in cursor.fetchall():
            for of in {metric} if is_vector(metric) else {"", metric}:
                rows = found.setdefault(of, {})
                row = rows.setdefault(feature, np.zeros(bins.BINS, dtype=np.int64))
                row[number - 1] += count
    return found


_SCORES_LIVE = """
SELECT bin, sum(n)::bigint
FROM detection_featurehour, unnest(counts) WITH ORDINALITY AS c (n, bin)
WHERE stream_id = %s AND feature = %s AND hour > %s AND (%s = '' OR metric = %s)
GROUP BY bin
"""


def live_scores(model: ModelVersion, since: dt.datetime) -> Counts:
    """How a champion scored sampled events of the hours after ``since``, [bins]."""
    row = np.zeros(bins.BINS, dtype=np.int64)
    with connection.cursor() as cursor:
        feature, metric = f"{SCORE}:{model.pk}", model.metric
        cursor.execute(_SCORES_LIVE, [model.stream_id, feature, since, metric, metric])
        for number, count in cursor.fetchall():
            row[number - 1] = count
    return row


def compare(
    expected: Mapping[str, Counts], actual: Mapping[str, Counts]
) -> tuple[dict[str, float], dict[str, float]]:
    """(PSI, KS) of every feature that both have counted."""
    both = [n for n, row in expected.items() if n in actual and row.sum() and actual[n].sum()]
    return (
        {name: round(psi(expected[name], actual[name]), 4) for name in both},
        {name: round(ks(expected[name], actual[name]), 4) for name in both},
    )


def measure(stream: Stream, settings: DriftSettings) -> list[DriftReport]:
    """Store a report for each champion of the stream and each metric that has enough events.

    The last hours are those before the newest event, so recorded data is judged like live data.
    """
    to_hour = FeatureHour.objects.filter(stream=stream).aggregate(newest=Max("hour"))["newest"]
    if to_hour is None:
        return []
    from_hour = to_hour - dt.timedelta(hours=settings.hours)
    now_live = live(stream, from_hour, to_hour)
    reports = []
    champions = ModelVersion.objects.filter(stream=stream, state=ModelVersion.State.CHAMPION)
    for model in champions.order_by("algorithm", "metric").defer("artefact"):
        for metric, expected in reference(model.manifest, model.metric).items():
            report = _report(model, metric, expected, now_live.get(metric, {}), settings)
            if report is not None:
                report.from_hour, report.to_hour = from_hour, to_hour
                reports.append(report)
    return DriftReport.objects.bulk_create(reports)


def _report(
    model: ModelVersion,
    metric: str,
    expected: Mapping[str, Counts],
    counted: Mapping[str, Counts],
    settings: DriftSettings,
) -> DriftReport | None:
    called = _names_of(model.manifest)
    actual = {called.get(n, n): row for n, row in counted.items() if not n.startswith(SCORE)}
    scores = counted.get(f"{SCORE}:{model.pk}")
    events = max((int(row.sum()) for row in actual.values()), default=0)
    if events < settings.min_events:
        return None
    if scores is not None:
        actual[SCORE] = scores
    found_psi, found_ks = compare(expected, actual)
    worst = max(found_psi, key=lambda name: found_psi[name], default="")
    return DriftReport(
        model=model,
        metric=metric,
        events=events,
        psi=found_psi,
        ks=found_ks,
        worst_feature=worst[:WORST_LENGTH],
        worst_psi=found_psi.get(worst, 0.0),
    )


def prune(settings: DriftSettings, now: dt.datetime) -> int:
    """Drop what is older than ``keep_days``: reports by now, counts by their stream's newest."""
    age = dt.timedelta(days=settings.keep_days)
    gone, _ = DriftReport.objects.filter(created_at__lt=now - age).delete()
    for row in FeatureHour.objects.values("stream").annotate(newest=Max("hour")):
        old = FeatureHour.objects.filter(stream=row["stream"], hour__lt=row["newest"] - age)
        gone += old.delete()[0]
    return gone


def latest() -> QuerySet[DriftReport]:
    """The newest report of each champion and metric."""
    return (
        DriftReport.objects.filter(model__state=ModelVersion.State.CHAMPION)
        .order_by("model", "metric", "-created_at", "-pk")
        .distinct("model", "metric")
        .select_related("model__stream")
        .defer("model__artefact", "model__manifest")
    )


def as_json(report: DriftReport, settings: DriftSettings) -> dict[str, Any]:
    """A report for the API."""
    model = report.model
    return {
        "stream": model.stream.name,
        "metric": report.metric or None,
        "algorithm": model.algorithm,
        "model_version": model.version,
        "from": (report.from_hour + dt.timedelta(hours=1)).isoformat(),
        "until": (report.to_hour + dt.timedelta(hours=1)).isoformat(),
        "sampled_events": report.events,
        "state": state_of(report.worst_psi, settings),
        "worst_feature": worst_of(report),
        "worst_psi": report.worst_psi,
        "psi": report.psi,
        "ks": report.ks,
        "measured_at": report.created_at.isoformat(),
    }


def worst_of(report: DriftReport) -> str:
    """The whole name of what moved most."""
    return max(report.psi, key=lambda name: report.psi[name], default="")


def shown(feature: str) -> str:
    """A feature's name as people read it: of a value its own."""
    return feature.removeprefix(f"{VALUE}:")


def state_of(value: float, settings: DriftSettings) -> str:
    """``steady``, ``moved`` or ``drifted``."""
    if value >= settings.alarm_psi:
        return "drifted"
    return "moved" if value >= settings.warn_psi else "steady"


HISTORY_SHOWN = dt.timedelta(days=30)


def drift_context(model: ModelVersion) -> dict[str, Any]:
    """For `detection/_drift.html`: the newest report of each metric, features worst first."""
    settings = settings_of(django_settings.VIGIL)
    newest = (
        DriftReport.objects.filter(model=model)
        .order_by("metric", "-created_at", "-pk")
        .distinct("metric")
    )
    since = dt.datetime.now(dt.UTC) - HISTORY_SHOWN
    past: dict[str, list[float]] = {}
    rows = DriftReport.objects.filter(model=model, created_at__gte=since).order_by("created_at")
    for metric, worst in rows.values_list("metric", "worst_psi"):
        past.setdefault(metric, []).append(worst)
    scale = 2 * settings.alarm_psi
    reports: list[dict[str, Any]] = []
    for report in newest.select_related("retraining"):
        order = sorted(report.psi, key=lambda name: -report.psi[name])
        reports.append(
            {
                "report": report,
                "wide": is_vector(report.metric),
                "worst": shown(worst_of(report)),
                "state": state_of(report.worst_psi, settings),
                "hours": round((report.to_hour - report.from_hour).total_seconds() / 3_600),
                "past": past.get(report.metric, []),
                "features": [
                    {
                        "name": shown(name),
                        "value": name.startswith(f"{VALUE}:"),
                        "psi": report.psi[name],
                        "ks": report.ks[name],
                        "share": report.psi[name] / scale,
                        "state": state_of(report.psi[name], settings),
                    }
                    for name in order
                ],
            }
        )
    reports.sort(key=lambda r: (-r["report"].worst_psi, r["report"].metric))
    return {
        "model": model,
        "reports": reports,
        "settings": settings,
        "warn_share": settings.warn_psi / scale,
        "alarm_share": settings.alarm_psi / scale,
        "comparable": bool(reference(model.manifest, model.metric)),
    }
