"""What stored rows add to an anomaly's evidence: how rare it is, what was alike, who moved too.

Looked up by a task soon after the onset and again after the end, or by the page that needs it
first; stored with the anomaly. What is not known is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from django.db import connection
from django.db.models import Q
from django.utils import timezone

from anomalies import kinds
from anomalies.models import Anomaly, AnomalyType
from detection import model_store
from detection.errors import ArtefactError
from detection.features import FEATURE_NAMES, row_names
from detection.models import ModelVersion
from detection.thresholds import LEVELS
from streams.models import Series
from streams.vectors import is_vector

RARITY_DAYS = 30
SIMILAR = 4
COMPARED = 300
"""Past anomalies of the series, and of the metric, that are compared."""
LEAST_LIKENESS = 0.3
OTHER_KIND = 0.8
NEIGHBOURS = 5
NEIGHBOUR_LIMIT = 1_000
"""Other series that are looked at, of the source and of the metric each."""
ODD = 0.8
SETTLED = timedelta(seconds=90)
"""After its onset was stored, when the minute's rollups are written, of neighbours too."""

AGAIN = timedelta(seconds=55)
"""Between two readings of the kind of an anomaly that goes on: a minute is one point more."""

_OF_VECTORS = AnomalyType.MULTIVARIATE

# The bounds of detection.features: differences are measured in them.
_BOUNDS = {"residual": 10, "change": 1, "level": 1, "spread": 5, "seasonal": 10, "novelty": 10,
           "pair": 10, "block": 10, "drift": 10, "gap": 5}  # fmt: skip

_RARITY = """
SELECT sum(scored), coalesce(sum(score_counts[%(level)s]), 0), min(minute)
  FROM streams_rollup
 WHERE series_id = %(series)s AND minute >= %(start)s AND minute <= %(onset)s
"""
_NEAREST = """
SELECT minute, min, max, greatest(min - %(value)s, %(value)s - max, 0) AS away
  FROM streams_rollup
 WHERE series_id = %(series)s AND minute >= %(start)s AND minute < %(minute)s
   AND max_score < %(odd)s AND min <= max
 ORDER BY away, minute DESC LIMIT 1
"""
_NEIGHBOURS = """
SELECT r.series_id, max(r.max_score), min(r.min), max(r.max), min(r.expected_low),
       max(r.expected_high),
       bool_or(r.max_score >= %(odd)s OR r.max > r.expected_high OR r.min < r.expected_low)
  FROM streams_rollup r
 WHERE r.series_id = ANY(%(series)s) AND r.minute = %(minute)s AND r.scored > 0
 GROUP BY r.series_id
"""
_COURSE = """
SELECT extract(epoch FROM minute)::bigint, sum(mean * count) / sum(count)
  FROM streams_rollup
 WHERE series_id = %(series)s AND minute >= %(start)s AND minute <= %(end)s
 GROUP BY minute ORDER BY minute
"""


def of(anomaly: Anomaly, now: datetime | None = None) -> dict[str, Any]:
    """The anomaly's whole evidence; what can be stored by now is stored on the way."""
    now = now or timezone.now()
    known: dict[str, Any] = anomaly.evidence or {}
    closed = anomaly.state == Anomaly.State.CLOSED
    around = known.get("around")
    if anomaly.series_id is None or (around and around["closed"]):
        return known
    if around and not closed:  # while it goes on only its kind is read again
        if around.get("read_at", "") > (now - AGAIN).isoformat():
            return known
        read = kind(anomaly)
        around = around | {"read_at": now.isoformat()} | ({"kind": read} if read else {})
    else:
        around = look(anomaly) | {"closed": closed, "read_at": now.isoformat()}
    known = known | {"around": around}
    if now - anomaly.stored_at >= SETTLED:
        _keep(anomaly, around)
    return known


def due(now: datetime, most: int) -> list[Anomaly]:
    """Anomalies of the last hours whose evidence is to be completed, the newest first."""
    fresh = Anomaly.objects.filter(
        origin=Anomaly.Origin.DETECTOR, series__isnull=False,
        stored_at__gte=now - timedelta(hours=26), stored_at__lte=now - SETTLED,
    )  # fmt: skip
    # Of an open one the kind is read again each minute, and all a last time when it has ended.
    ended = Q(state=Anomaly.State.CLOSED, evidence__around__closed=False)
    before = (now - AGAIN).isoformat()
    goes_on = Q(state=Anomaly.State.OPEN, evidence__around__read_at__lt=before)
    new = Q(evidence__around__isnull=True)
    waiting = fresh.filter(new | ended | goes_on).order_by("-stored_at")
    return list(waiting.select_related("stream", "series")[:most])


def look(anomaly: Anomaly) -> dict[str, Any]:
    """Everything that stored rows say of an anomaly of a series."""
    found: dict[str, Any] = {}
    if anomaly.kind == "missing":  # no event: nothing of it to compare
        return {"silent": silent_too(anomaly)}
    parts = {
        "rarity": rarity(anomaly), "nearest": nearest_value(anomaly), "models": models(anomaly),
        "similar": similar(anomaly), "neighbours": neighbours(anomaly), "kind": kind(anomaly),
    }  # fmt: skip
    found |= {name: part for name, part in parts.items() if part is not None}
    return found


def rarity(anomaly: Anomaly) -> dict[str, Any] | None:
    """How many of the series' scored events of 30 days reached the level below its score."""
    if anomaly.score is None or anomaly.score < LEVELS[0]:
        return None
    level = int(np.searchsorted(LEVELS, anomaly.score, side="right"))
    row = _one(_RARITY, anomaly, level=level)
    if not row or not row[0]:
        return None
    events, reached, first = row
    days = max(1, math.ceil((anomaly.onset_at - first) / timedelta(days=1)))
    return {
        "events": int(events), "reached": int(reached), "level": float(LEVELS[level - 1]),
        "days": min(RARITY_DAYS, days),
    }  # fmt: skip


def nearest_value(anomaly: Anomaly) -> dict[str, Any] | None:
    """The stored value nearest to it in a minute before that was not odd; of distances none."""
    if anomaly.value is None or is_vector(anomaly.metric):
        return None
    row = _one(_NEAREST, anomaly, value=anomaly.value, odd=ODD)
    if not row:
        return None
    minute, low, high, away = row
    value = anomaly.value if away == 0 else (low if low > anomaly.value else high)
    return {"value": value, "away": away, "at": minute.isoformat()}


def models(anomaly: Anomaly) -> dict[str, Any] | None:
    """Of each stored model that scored it: shares of its features, and the nearest normal row."""
    found = {}
    for algorithm, used in (anomaly.models_used or {}).items():
        version = ModelVersion.objects.filter(
            stream=anomaly.stream_id, algorithm=algorithm, version=used.get("version"),
            metric=used.get("metric", ""), sha256=used.get("sha256", ""),
        ).values_list("pk", flat=True).first()  # fmt: skip
        if version is None:
            continue
        try:
            row, detector = model_store.load(version)
        except ArtefactError:
            continue  # told where models are shown; here it explains nothing
        names = row_names(row.manifest)
        seen = np.array([[anomaly.features.get(name, np.nan) for name in names]], dtype=np.float64)
        if np.isnan(seen).any() or detector.columns != len(names):
            continue
        shares, near = detector.contributions(seen)[0], detector.nearest(seen)[0]
        if shares.any():
            found[algorithm] = {
                "shares": {n: round(float(x), 4) for n, x in zip(names, shares, strict=True) if x},
                "nearest": {
                    n: round(float(x), 4) for n, x in zip(names, near, strict=True) if x == x
                },
            }
    return found or None


def similar(anomaly: Anomaly) -> list[dict[str, Any]] | None:
    """Past anomalies most alike: those of the series first, then of the metric elsewhere."""
    wide = is_vector(anomaly.metric)
    if not (any(anomaly.features.values()) if wide else _vector(anomaly.features).any()):
        return None
    before = (
        Anomaly.objects.filter(
            origin=Anomaly.Origin.DETECTOR, onset_at__lt=anomaly.onset_at, stream=anomaly.stream_id
        )
        .order_by("-onset_at")
        .only("id", "onset_at", "value", "severity", "anomaly_type", "label", "features", "source",
              "metric", "series_id")
    )  # fmt: skip
    own = list(before.filter(series=anomaly.series_id)[:COMPARED])
    others = before.filter(metric=anomaly.metric).exclude(series=anomaly.series_id)
    found = _ranked(anomaly, own)[:SIMILAR]
    found += _ranked(anomaly, list(others[:COMPARED]))[: SIMILAR - len(found)]
    return [
        {"id": str(a.pk), "likeness": round(likeness, 3), "same_series": a.series_id
         == anomaly.series_id} for likeness, a in found
    ]  # fmt: skip


def likeness(one: Anomaly, other: Anomaly) -> float:
    """exp(−3d), d the root mean square of the features' differences in units of their bounds;
    0.8 times that where the kinds differ.

    Of wide events d is the distance of their deviations z over the sum of their lengths: 0 where
    the same values leave alike and equally far, 1 where they leave the opposite way.
    """
    if is_vector(one.metric):
        return math.exp(-3 * _parted(one.features, other.features))
    away = _vector(one.features) - _vector(other.features)
    alike = math.exp(-3 * math.sqrt(float((away * away).mean())))
    return alike if one.anomaly_type == other.anomaly_type else OTHER_KIND * alike


def neighbours(anomaly: Anomaly) -> dict[str, Any] | None:
    """Other series of the source, and of the metric elsewhere, that were odd in that minute."""
    others = Series.objects.filter(stream=anomaly.stream_id).exclude(pk=anomaly.series_id or 0)
    found: dict[str, Any] = {}
    groups = {
        "source": others.filter(source=anomaly.source),
        "metric": others.filter(metric=anomaly.metric).exclude(source=anomaly.source),
    }
    for name, group in groups.items():
        series = {s.pk: s for s in group.order_by("-last_event_at")[:NEIGHBOUR_LIMIT]}
        rows = _all(_NEIGHBOURS, anomaly, series=list(series), odd=ODD) if series else []
        if not rows:
            continue
        moved = sorted((r for r in rows if r[6]), key=_oddness_of, reverse=True)
        found[name] = {
            "looked_at": len(rows), "moved": len(moved),
            "most": [
                {"series": r[0], "source": series[r[0]].source, "metric": series[r[0]].metric,
                 "score": r[1], "low": r[2], "high": r[3], "expected_low": r[4],
                 "expected_high": r[5]}
                for r in moved[:NEIGHBOURS]
            ],
        }  # fmt: skip
    return found or None


def silent_too(anomaly: Anomaly) -> dict[str, Any]:
    """How many other series of its source, and of its metric elsewhere, were silent meanwhile."""
    others = Series.objects.filter(stream=anomaly.stream_id).exclude(pk=anomaly.series_id or 0)
    end = timezone.now() if anomaly.state == Anomaly.State.OPEN else anomaly.end_at
    silences = Anomaly.objects.filter(kind="missing", stream=anomaly.stream_id, onset_at__lte=end)
    silences = silences.filter(Q(end_at__gte=anomaly.onset_at) | Q(state=Anomaly.State.OPEN))
    groups = {
        "source": others.filter(source=anomaly.source),
        "metric": others.filter(metric=anomaly.metric).exclude(source=anomaly.source),
    }
    found = {}
    for name, group in groups.items():
        group = group.filter(silence_after_s__isnull=False)
        if known := group.count():
            silent = silences.filter(series__in=group).values("series").distinct().count()
            found[name] = {"known": known, "silent": silent}
    return found


def kind(anomaly: Anomaly) -> str | None:
    """Another reading of an anomaly's kind, by its minutes before and after the onset.

    While it is open that is how it looks so far; None where there is too little to say more than
    the first reading did.
    """
    if anomaly.anomaly_type == _OF_VECTORS or anomaly.kind == "missing":
        return None
    day, onset = 86_400, anomaly.onset_at.timestamp()
    rows = _all(
        _COURSE, anomaly, start=anomaly.onset_at - timedelta(days=2),
        end=anomaly.onset_at + timedelta(days=1),
    )  # fmt: skip
    if len(rows) < kinds.LEAST + kinds.LEAD:
        return None
    t = np.array([row[0] for row in rows], dtype=np.int64)
    v = np.array([row[1] for row in rows], dtype=np.float64)
    at = int(np.searchsorted(t, onset - 60, side="right"))
    first = max(0, at - 120)
    t_part, part = t[first:], v[first:]
    at -= first
    before = part[: max(0, at - kinds.LEAD)]
    if len(before) < kinds.LEAST:
        return None
    usual, known = np.full(len(part), float(np.median(before))), None
    place = np.clip(np.searchsorted(t, t_part - day), 0, len(t) - 1)
    there = np.abs(t[place] - (t_part - day)) <= np.median(np.diff(t_part))
    if there.all():
        lagged, n = v[place], len(before)
        if np.median(np.abs(before - lagged[:n])) < 0.7 * np.median(np.abs(before - usual[:n])):
            day_before = v[(t >= onset - day) & (t < onset - 60 * kinds.LEAD)]
            usual, known = lagged, (float(day_before.min()), float(day_before.max()))
    found = kinds.afterwards(part, usual, at, known=known)
    return None if found is None else str(found.value)


# -- private -------------------------------------------------------------------------------------


def _keep(anomaly: Anomaly, around: Mapping[str, Any]) -> None:
    """Store without touching what the consumer may write meanwhile."""
    read = around.get("kind") or anomaly.anomaly_type
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE anomalies_anomaly SET evidence = evidence || %s::jsonb, anomaly_type = %s"
            " WHERE id = %s",
            [json.dumps({"around": around}), read, anomaly.pk],
        )
    anomaly.anomaly_type = read


def _one(query: str, anomaly: Anomaly, **more: Any) -> Any:
    rows = _all(query, anomaly, **more)
    return rows[0] if rows else None


def _all(query: str, anomaly: Anomaly, **more: Any) -> list[Any]:
    values = {
        "series": anomaly.series_id, "onset": anomaly.onset_at,
        "minute": anomaly.onset_at.replace(second=0, microsecond=0),
        "start": anomaly.onset_at - timedelta(days=RARITY_DAYS),
    }  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(query, values | more)
        return list(cursor.fetchall())


def _vector(features: Mapping[str, Any]) -> Any:
    return np.array([float(features.get(name) or 0.0) / _BOUNDS[name] for name in FEATURE_NAMES])


def _parted(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    if set(one) != set(other):
        return math.inf
    a, b = (np.array([float(of[n] or 0.0) for n in sorted(one)]) for of in (one, other))
    lengths = float(np.linalg.norm(a) + np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / lengths if lengths else math.inf


def _ranked(anomaly: Anomaly, others: Sequence[Anomaly]) -> list[tuple[float, Anomaly]]:
    scored = [(likeness(anomaly, other), other) for other in others]
    alike = [pair for pair in scored if pair[0] >= LEAST_LIKENESS]
    return sorted(alike, key=lambda pair: (-pair[0], -pair[1].onset_at.timestamp()))


def _oddness_of(row: Sequence[Any]) -> float:
    """How odd a neighbour's minute was: its score, else how far it left its band, below that."""
    _, score, low, high, expected_low, expected_high, _ = row
    if score is not None and score >= ODD:
        return 1.0 + float(score)
    if expected_low is None or expected_high is None or expected_high <= expected_low:
        return 0.0
    out = max(expected_low - low, high - expected_high, 0.0)
    return float(1.0 - math.exp(-out / (expected_high - expected_low)))
