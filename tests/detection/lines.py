"""A line at work: three versions that were live, a challenger, its run, drift and scores."""

from __future__ import annotations

import datetime as dt
import math
from functools import cache
from typing import Any

import numpy as np
from django.utils import timezone

from detection import bins, model_store
from detection.features import FEATURE_NAMES
from detection.models import (
    Disagreement,
    DriftReport,
    FeatureHour,
    ModelTransition,
    ModelVersion,
    ShadowHour,
    TrainingRun,
)
from detection.training import Trained, train
from streams.models import Series, Stream
from tests import builders

METRIC = "payment_latency_ms"
HOURS, EVENTS = 18, 21_600  # beside the champion


@cache
def trained(seed: int, events: int, estimators: int, count: int) -> Trained:
    """Of rows with somewhat heavy tails, as features have them."""
    rows = np.random.default_rng(seed).standard_t(8, (count, len(FEATURE_NAMES)))
    metric = np.zeros(len(rows), dtype=np.int32)
    now = timezone.now()
    given = {
        "events": events, "series": 38, "events_in_anomalies": 1_204,
        "first_event": (now - dt.timedelta(days=7)).isoformat(), "last_event": now.isoformat(),
        "offsets": {"0": [0, events // 2], "1": [0, events - events // 2]},
        "distributions": bins.distributions(rows, metric, (METRIC,)),
    }  # fmt: skip
    params = {"n_estimators": estimators}
    return train("isolation_forest", rows, seed=seed, params=params, provenance=given)


def figures(champion: int) -> dict[str, Any]:
    """As the gate stores them: better on labels, as good on injected faults."""
    sides = {
        side: {"faults": 1_008, "found": found, "recall": found / 1_008, "precision": precision}
        for side, found, precision in (("champion", 921, 0.9012), ("challenger", 931, 0.9126))
    }
    quiet = {"events": 86_000, "champion": 21, "challenger": 20, "only_champion": 5,
             "only_challenger": 4, "tolerated": 12.8, "chance": 0.9}  # fmt: skip
    pair = {"only_champion": 11, "only_challenger": 21, "lost": -0.01, "least_lost": -0.017}
    return {
        "champion": champion,
        "shadow": {"hours": HOURS, "events": EVENTS},
        "injected": {**sides, "paired": pair, "quiet": quiet, "series": 20, "rounds": 3},
        "labels": {"real": 33, "false_alarms": 6, "champion_found": 29, "challenger_found": 30,
                   "champion_false": 3, "challenger_false": 2},
    }  # fmt: skip


def versions(stream: Stream, metric: str = METRIC, rows: int = 3_000) -> list[ModelVersion]:
    """Four: two that were replaced, the champion, and one that challenges."""
    now, of = timezone.now(), {"stream": stream, "algorithm": "isolation_forest", "metric": metric}
    plan = [(42, 259_200, 40), (28, 604_800, 60), (13, 604_800, 60), (1, 604_800, 80)]
    saved = []
    for number, (days, events, estimators) in enumerate(plan, 1):
        row = model_store.save(trained(number, events, estimators, rows), **of)
        at = now - dt.timedelta(days=days)
        ModelVersion.objects.filter(pk=row.pk).update(created_at=at - dt.timedelta(minutes=4))
        if number < 4:
            reason = "" if number > 1 else "the first model"
            model_store.promote(row.pk, at, actor="anna", reason=reason)
        else:
            model_store.challenge(row.pk, now - dt.timedelta(hours=HOURS))
        saved.append(ModelVersion.objects.get(pk=row.pk))
    for row, champion in zip(saved[1:3], saved, strict=False):
        gate = {"passed": True, "reasons": [], "figures": figures(champion.version),
                "at": row.created_at.isoformat()}  # fmt: skip
        labels = gate["figures"]["labels"]
        labels |= {"champion_found": 22 + 2 * champion.version, "challenger_found": 29,
                   "champion_false": 6 - champion.version, "challenger_false": 3}  # fmt: skip
        ModelVersion.objects.filter(pk=row.pk).update(gate=gate)
    ModelVersion.objects.filter(version__lt=4).update(watch_until=None)
    ModelTransition.objects.filter(to_state="retired").update(at=now - dt.timedelta(days=13))
    return saved


def shadowed(challenger: ModelVersion, champion: ModelVersion, of: Series) -> None:
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    each = EVENTS // HOURS // 2
    for i in range(HOURS):
        for partition in range(2):
            ShadowHour.objects.create(
                challenger=challenger, hour=hour - dt.timedelta(hours=i), partition=partition,
                events=each, both=3, only_champion=int(i % 2 == 0),
                only_challenger=int(i % 3 == partition), champion_onsets=int(i % 12 == 1),
                challenger_onsets=int(i % 12 == 1 and partition == 0),
                champion_us=21.3 * each, challenger_us=24.1 * each,
            )  # fmt: skip
    for offset in range(5):
        Disagreement.objects.create(
            challenger=challenger, series=of, incarnation=builders.incarnation(of.stream),
            partition=0, offset=offset, event_at=hour, value=312.0 + offset,
            champion_score=0.74, challenger_score=0.86,
        )  # fmt: skip
    gate = {"passed": False, "at": (timezone.now() - dt.timedelta(minutes=4)).isoformat(),
            "reasons": [f"It has scored {HOURS} of 24 hours of events beside the champion."],
            "figures": figures(champion.version)}  # fmt: skip
    ModelVersion.objects.filter(pk=challenger.pk).update(gate=gate)


def drifted(champions: list[ModelVersion], every_h: int = 1) -> None:
    """A report each so many hours for 30 days; the residual moves, and falls back with a new
    champion."""
    dice, now = np.random.default_rng(5), timezone.now()
    rows, walk = [], np.abs(dice.normal(0.03, 0.008, len(FEATURE_NAMES)))
    for ago in range(720, -1, -every_h):
        at = now - dt.timedelta(hours=ago)
        model = champions[-1] if ago < 13 * 24 else champions[-2]
        since = 30 * 24 - ago if ago >= 13 * 24 else 13 * 24 - ago
        walk = np.clip(walk + dice.normal(0, 0.0022, len(walk)) + 0.03 * (0.032 - walk), 0.006, 1)
        moved = 0.00026 * since + 0.05 * (max(0, since - 200) / 150) ** 2
        found = dict(zip(FEATURE_NAMES, walk.round(4).tolist(), strict=True))
        found["residual"] = round(found["residual"] + moved, 4)
        found["level"] = round(found["level"] + 0.4 * moved, 4)
        found["score"] = 0.011
        far = {name: round(0.3 * value**0.5, 4) for name, value in found.items()}
        rows.append(DriftReport(
            model=model, metric=model.metric, from_hour=at - dt.timedelta(hours=24), to_hour=at,
            events=5_400, psi=found, ks=far, worst_feature="residual",
            worst_psi=found["residual"], created_at=at,
        ))  # fmt: skip
    moments = [row.created_at for row in rows]
    rows = DriftReport.objects.bulk_create(rows)
    for row, at in zip(rows, moments, strict=True):
        row.created_at = at
    DriftReport.objects.bulk_update(rows, ["created_at"], batch_size=500)


def scored(champion: ModelVersion, hours: int = 168) -> None:
    """Live scores of a week: as training's, with a somewhat longer tail."""
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    base = np.array(champion.manifest["score_counts"], dtype=np.float64)
    base = 250 * base / base.sum()
    longer = base * np.array([1 + 0.06 * math.exp(i / 6) for i in range(bins.BINS)])
    dice = np.random.default_rng(3)
    FeatureHour.objects.bulk_create(
        FeatureHour(stream=champion.stream, metric=champion.metric or METRIC,
                    hour=hour - dt.timedelta(hours=i), feature=f"score:{champion.pk}",
                    counts=dice.poisson(longer).tolist())
        for i in range(hours)
    )  # fmt: skip


def run(of: ModelVersion, **more: Any) -> TrainingRun:
    now = timezone.now()
    given: dict[str, Any] = {
        "status": "running", "stage": "fitting", "progress": 0.81, "heartbeat_at": now,
        "order": {"seed": 20_261_123}, "trigger": "schedule",
    }  # fmt: skip
    row = TrainingRun.objects.create(
        stream=of.stream, metric=of.metric, algorithm=of.algorithm, **given | more
    )
    TrainingRun.objects.filter(pk=row.pk).update(started_at=now - dt.timedelta(seconds=79))
    return row


def world(every_h: int = 1, rows: int = 3_000) -> list[ModelVersion]:
    """All of it in the stream `webshop`; a series of the metric is there."""
    series = Series.objects.filter(stream__name="webshop", metric=METRIC).first()
    series = series or builders.series("checkout-eu", METRIC, stream=builders.stream("webshop"))
    saved = versions(series.stream, rows=rows)
    shadowed(saved[3], saved[2], series)
    drifted(saved[1:3], every_h)
    scored(saved[2])
    run(saved[2])
    return saved
