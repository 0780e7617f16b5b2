"""Rows for tests: a stream, series with rollups, anomalies, what consumers say of themselves."""

from __future__ import annotations

import math
import random
import uuid
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from anomalies.models import Anomaly, Severity
from detection.models import ModelVersion, TrainingRun
from streams.models import (
    ConsumerStatus,
    DeadLetter,
    HourDue,
    PartitionOffset,
    PipelineStat,
    Rollup,
    Series,
    Stream,
    TopicIncarnation,
)

PASSWORD = "keller-2024"
NAMES = {
    "checkout-eu": ["payment_latency_ms", "orders_per_min"], "payments-gw": ["declined_ratio"],
    "db-primary": ["locks_waiting"], "pump-07": ["vibration"], "boiler-2": ["pressure"],
    "checkout-us": ["orders_per_min"], "web-03": ["cpu_usage"], "cold-store-4": ["door_open_s"],
    "search-api": ["latency_ms"], "edge-fra-1": ["heartbeat"], "sensor_118": ["humidity"],
    "queue-mail": ["length"], "rack-2": ["temperature"],
}  # fmt: skip


def minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)


def user(name: str = "anna", **more: Any) -> User:
    return User.objects.create_user(name, password=PASSWORD, **more)


def stream(name: str = "raw-data") -> Stream:
    return Stream.objects.get_or_create(name=name, defaults={"topic": name})[0]


def incarnation(of: Stream | None = None) -> TopicIncarnation:
    of = of or stream()
    return TopicIncarnation.objects.get_or_create(stream=of, topic_id=f"id-{of.name}")[0]


def series(source: str = "web-03", metric: str = "cpu_usage", **more: Any) -> Series:
    now = timezone.now()
    given = {"events": 5_000, "last_value": 42.0, "last_partition": 0,
             "first_event_at": now - timedelta(days=2), "last_event_at": now}  # fmt: skip
    of = more.pop("stream", None) or stream()
    return Series.objects.create(stream=of, source=source, metric=metric, **given | more)


def rollups(of: Series, minutes: int = 180, *, end: datetime | None = None, level: float = 240,
            seed: int = 1, skip: tuple[int, int] = (0, 0)) -> list[Rollup]:  # fmt: skip
    """Minutes up to `end` with a daily swing and a band; those in `skip` are a gap."""
    dice, life = random.Random(seed), incarnation(of.stream)
    end = minute(end or timezone.now())
    rows = []
    for i in range(minutes):
        if skip[0] <= i < skip[1]:
            continue
        at = end - timedelta(minutes=minutes - 1 - i)
        mid = level * (1 + 0.15 * math.sin(at.timestamp() / 86_400 * 2 * math.pi))
        mean = mid + dice.gauss(0, level * 0.03)
        rows.append(Rollup(
            series=of, minute=at, incarnation=life, partition=0, first_offset=1_000 + i * 6,
            count=6, scored=6, min=mean - level * 0.03, max=mean + level * 0.03, mean=mean,
            last=mean, max_score=0.3, expected_low=mid - level * 0.2, expected_mid=mid,
            expected_high=mid + level * 0.2,
        ))  # fmt: skip
    for hour in {row.minute.replace(minute=0) for row in rows}:
        HourDue.objects.get_or_create(incarnation=life, partition=0, hour=hour,
                                      defaults={"since": end, "touched_at": end})  # fmt: skip
    return Rollup.objects.bulk_create(rows)


def anomaly(of: Series | None = None, *, score: float = 0.92, at: datetime | None = None,
            **more: Any) -> Anomaly:  # fmt: skip
    at = at or timezone.now() - timedelta(minutes=5)
    bands = ((0.95, Severity.CRITICAL), (0.9, Severity.HIGH), (0.85, Severity.MEDIUM))
    level = next((s for least, s in bands if score >= least), Severity.LOW)
    source, metric = (of.source, of.metric) if of else ("web-03", "cpu_usage")
    found = of.stream if of else stream()
    given: dict[str, Any] = {
        "id": uuid.uuid4(), "stream": found, "series": of, "source": source, "metric": metric,
        "anomaly_type": "level_shift", "severity": level, "onset_at": at, "end_at": at,
        "value": 1284.0, "score": score, "peak_score": score, "peak_value": 1284.0, "peak_at": at,
        "direction": 1, "expected_low": 181.0, "expected_mid": 242.0, "expected_high": 312.0,
        "threshold": 0.8, "policy": "default v1",
        "detectors": {"online": min(0.99, score + 0.01), "zscore": score - 0.02,
                      "isolation_forest": 0.62},
        "features": {"residual": 11.8, "change": 9.2, "seasonal": 8.7, "level": 5.1, "spread": 3.0,
                     "gap": 0.1},
        "explanation": f"{metric} on {source} was 1,284, 16 × its usual spread above the 242 "
                       "expected for a Monday at 09:38 (usually 181 to 312).",
        "models_used": {"isolation_forest": {"version": 3, "sha256": "9f2c41d0" + "ab" * 28}},
        "incarnation": incarnation(found), "partition": 3,
    }  # fmt: skip
    if "offset" not in more:
        given["offset"] = _next_offset(found)
    return Anomaly.objects.create(**given | more)


def _next_offset(of: Stream) -> int:
    """Of an event that is stored now: its partition moves past it."""
    place, made = PartitionOffset.objects.get_or_create(
        incarnation=incarnation(of), partition=3, defaults={"next_offset": 48_201_775}
    )
    if not made:
        place.next_offset += 1
        place.save(update_fields=["next_offset"])
    return place.next_offset - 1


def consumer(instance: str = "consumer-1", **more: Any) -> ConsumerStatus:
    now = timezone.now()
    given: dict[str, Any] = {
        "started_at": now - timedelta(hours=3), "beat_at": now, "events_per_s": 412.0, "lag": 37,
        "latency_p95_ms": 184.0, "rss_mb": 310.0, "series": 14,
        "partitions": [
            {"topic": "raw-data", "partition": i, "next_offset": 30_240_000 + i,
             "end_offset": 30_240_000 + i + n, "events_per_s": 100.0 + i}
            for i, n in enumerate((2, 0, 21, 14))
        ],
    }  # fmt: skip
    return ConsumerStatus.objects.create(instance=instance, **given | more)


def offsets(partitions: int = 4) -> list[PartitionOffset]:
    now, life = timezone.now(), incarnation()
    return PartitionOffset.objects.bulk_create(
        (PartitionOffset(incarnation=life, partition=i, next_offset=30_240_000 + i,
                         events=8_900_000, rejects=3, owner="consumer-1", watermark=now,
                         updated_at=now)
         for i in range(partitions)),
        update_conflicts=True, unique_fields=["incarnation", "partition"],
        update_fields=["events", "rejects", "owner", "watermark", "updated_at"],
    )  # fmt: skip


def stats(minutes: int = 1_440, instance: str = "consumer-1") -> list[PipelineStat]:
    dice, now = random.Random(4), minute(timezone.now())
    return PipelineStat.objects.bulk_create(
        PipelineStat(instance=instance, minute=now - timedelta(minutes=i),
                     rejects=dice.random() < 0.02,
                     events=int(24_000 * (1 + 0.2 * math.sin(i / 200)) + dice.gauss(0, 900)),
                     anomalies=int(dice.expovariate(0.8)), latency_p95_ms=dice.uniform(120, 260),
                     lag=int(dice.expovariate(0.03)), places=_places(i))
        for i in range(minutes)
    )  # fmt: skip


def _places(ago: int) -> dict[str, list[int]]:
    """Offsets of four partitions as they stood so many minutes ago."""
    dice, found = random.Random(ago), {}
    for i in range(4):
        at = 30_240_000 + i - 2_000 * ago - 400 * i * ago + dice.randrange(150)
        found[f"raw-data/{i}"] = [at, at + int(dice.expovariate(0.1)) + 280 * (ago == 21)]
    return found


def dead_letter(offset: int = 48_214_402, **more: Any) -> DeadLetter:
    raw = more.pop("raw", b'{"source": "sensor_1", "metric": "cpu", "value": ')
    given: dict[str, Any] = {"partition": 3, "reason": "json", "raw": raw,
                             "detail": "Unexpected end of input at byte 49",
                             "size": len(raw or b"")}  # fmt: skip
    return DeadLetter.objects.create(incarnation=incarnation(), offset=offset, **given | more)


def model() -> ModelVersion:
    run = TrainingRun.objects.create(stream=stream(), algorithm="isolation_forest", status="done",
                                     rows=604_800, finished_at=timezone.now())  # fmt: skip
    return ModelVersion.objects.create(
        stream=stream(), algorithm="isolation_forest", version=3, state="champion", run=run,
        sha256="9f2c41d0" + "ab" * 28, artefact=b"", manifest={"metrics": {"onsets_per_10k": 2.1}},
        promoted_at=timezone.now(),
    )  # fmt: skip


def world() -> Series:
    """A system at work, as the pictures in the documents show it; returns its first series."""
    dice, now = random.Random(11), timezone.now()
    every: list[Series] = []
    for i, (source, metrics) in enumerate(NAMES.items()):
        for metric in metrics:
            one = series(source, metric, stream=stream(("webshop", "servers", "sensors")[i % 3]))
            rollups(one, 1_440 if i == 0 else 240, seed=i, skip=(300, 320))
            every.append(one)
    types = ["spike", "dip", "level_shift", "variance_change", "contextual", "flatline"]
    for one in every:
        for _ in range(dice.randint(2, 9)):
            score = 0.8 + 0.16 * dice.random() ** 2
            at = now - timedelta(hours=24 * dice.random())
            anomaly(one, score=score, at=at, anomaly_type=dice.choice(types),
                    value=312.0 + 90 * score, state="closed",
                    label=dice.choice(["", "", "real", "false_alarm"]))  # fmt: skip
    first, onset = every[0], now - timedelta(minutes=5)
    context = [[(onset - timedelta(seconds=10 * i)).timestamp() * 1000, 240 + 18 * math.sin(i)]
               for i in range(200, 0, -1)]  # fmt: skip
    anomaly(first, score=0.97, at=onset, end_at=now, count=28,
            context=[*context, [onset.timestamp() * 1000, 1284.0]])  # fmt: skip
    consumer()
    offsets()
    stats()
    model()
    for i, (reason, detail) in enumerate([("json", "Unexpected end of input at byte 49"),
            ("timestamp", '"2026-11-23 09:31:07"'), ("schema", '"n/a" in value')]):  # fmt: skip
        dead_letter(48_214_402 + i, reason=reason, detail=detail)
    return first
