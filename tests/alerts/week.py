"""A week of stored anomalies with every change in the outbox, as consumers leave them."""

from __future__ import annotations

import random
import uuid
from datetime import datetime, timedelta
from typing import Any

from alerts.models import Receiver, Rule, Silence
from alerts.rules import make, make_live
from alerts.spec import RuleSpec
from anomalies.models import Anomaly, Outbox, Severity
from anomalies.results import result_of
from streams.models import Series
from tests import builders

TYPES = ("spike", "dip", "level_shift", "variance_change")


def seed(
    end: datetime,
    *,
    sources: int = 6,
    metrics: int = 2,
    each: float = 12,
    days: float = 7,
    stream: str = "webshop",
    number: int = 1,
) -> list[Series]:
    """About ``each`` anomalies per series, some together, some growing worse, most of them over."""
    dice, found = random.Random(number), builders.stream(stream)
    life = builders.incarnation(found)
    every = Series.objects.bulk_create(
        Series(stream=found, source=f"checkout-{s}", metric=f"metric_{m}", events=100,
               first_event_at=end - timedelta(days=9), last_event_at=end, last_partition=0)
        for s in range(sources) for m in range(metrics)
    )  # fmt: skip
    anomalies: list[Anomaly] = []
    outbox: list[Outbox] = []
    start = end - timedelta(days=days)
    incidents = [dice.uniform(0, days * 86_400 - 3_600) for _ in range(int(each))]
    for one in every:
        for incident in incidents:
            if dice.random() < 0.3:
                continue
            at = start + timedelta(seconds=round(incident + dice.expovariate(1 / 90), 3))
            _episode(one, at, dice, anomalies, outbox, life, end)
    Anomaly.objects.bulk_create(anomalies, batch_size=2_000)
    Outbox.objects.bulk_create(outbox, batch_size=2_000)
    return every


def _episode(
    of: Series, at: datetime, dice: random.Random, anomalies: list[Anomaly], outbox: list[Outbox],
    life: Any, last: datetime,
) -> None:  # fmt: skip
    score = 0.8 + 0.195 * dice.random() ** 1.5
    ends = at + timedelta(seconds=round(dice.expovariate(1 / 400) + 5, 3))
    over = ends + timedelta(seconds=80) < last
    row = Anomaly(
        id=uuid.UUID(int=dice.getrandbits(128)), stream=of.stream, series=of, source=of.source,
        metric=of.metric, anomaly_type=dice.choice(TYPES), severity=_severity(score), onset_at=at,
        end_at=at, value=1.0, score=score, peak_value=1.0, peak_score=score, peak_at=at,
        direction=dice.choice((-1, 1)), threshold=0.8, policy="default v1", incarnation=life,
        partition=0, offset=len(anomalies), stored_at=at,
    )  # fmt: skip
    _say(row, "onset", outbox, at, at)
    if dice.random() < 0.4 and score < 0.94:
        rise = at + (ends - at) / 2
        row.severity, row.peak_score = row.severity + 1, score + 0.05
        row.end_at = rise
        _say(row, "update", outbox, rise, at)
    row.end_at = ends if over else max(row.end_at, at)
    row.count = 9
    if over:
        row.state = "closed"
        _say(row, "closed", outbox, ends + timedelta(seconds=80), at)
    anomalies.append(row)


def _say(row: Anomaly, kind: str, outbox: list[Outbox], at: datetime, onset: datetime) -> None:
    sequence = sum(o.anomaly_id == row.pk for o in outbox[-3:])
    payload = result_of(row) | {"sequence": sequence, "change": kind, "at": at.isoformat()}
    if kind == "closed":
        payload = {k: payload[k] for k in ("id", "source", "metric", "stream", "state", "change",
                                           "sequence", "end_timestamp", "count", "at")}  # fmt: skip
    outbox.append(Outbox(
        anomaly=row, sequence=sequence, kind=kind, payload=payload, incarnation=row.incarnation,
        partition=0, published_at=at,
    ))  # fmt: skip


def _severity(score: float) -> int:
    bands = ((0.95, Severity.CRITICAL), (0.9, Severity.HIGH), (0.85, Severity.MEDIUM))
    return next((int(level) for least, level in bands if score >= least), int(Severity.LOW))


def receiver(name: str = "Mail on-call", **more: Any) -> Receiver:
    given = {"kind": "email", "settings": {"to": ["on-call@example.org"]}}
    return Receiver.objects.create(name=name, **given | more)


def rule(name: str = "Checkout paging", *, live: bool = True, **spec: Any) -> Rule:
    said = RuleSpec.read({"send": [{"receiver": "Mail on-call"}]} | spec)
    made = make(name, said, None)
    if live:
        make_live(made, said, None)
    made.refresh_from_db()
    return made


def silence(name: str, start: datetime, end: datetime, again: str = "", **match: Any) -> Silence:
    return Silence.objects.create(
        name=name, starts_at=start, ends_at=end, recurrence=again, matcher=match
    )


def say(row: Anomaly, kind: str, at: datetime) -> None:
    """One change of an anomaly in the outbox."""
    rows: list[Outbox] = []
    _say(row, kind, rows, at, row.onset_at)
    rows[0].sequence = Outbox.objects.filter(anomaly=row).count()
    rows[0].save()
