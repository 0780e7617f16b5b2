"""What consumers store of anomalies, and who is told: rows for the tests of alerts."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone

from alerts.incidents import note
from alerts.models import Incident, IncidentAnomaly, Receiver, Rule, RuleVersion
from alerts.spec import RuleSpec
from anomalies.models import Anomaly, Outbox, Severity
from anomalies.results import result_of
from streams.models import ConsumerStatus, PartitionOffset, Series, Stream, TopicIncarnation
from tests import builders

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def second(at: float) -> datetime:
    return START + timedelta(seconds=at)


def rule(name: str = "all", enabled: bool = True, **said: Any) -> Rule:
    """A live rule."""
    made = Rule.objects.create(name=name, enabled=enabled)
    return edit(made, **said)


def edit(made: Rule, **said: Any) -> Rule:
    """Another version of it goes live."""
    number = made.versions.count() + 1
    made.live = RuleVersion.objects.create(
        rule=made, number=number, spec=RuleSpec.read(said).stored()
    )
    made.save()
    return made


def receiver(name: str = "ops", **more: Any) -> Receiver:
    given = {"kind": Receiver.Kind.WEBHOOK, "settings": {"url": "https://example.com/hook"}}
    return Receiver.objects.create(name=name, **given | more)


def watermark(at: float, partition: int = 0, idle_s: float = 0, stream: str = "shop") -> None:
    """A partition's events were stored up to this moment; the last ones ``idle_s`` ago."""
    life = incarnation(stream)
    row, _ = PartitionOffset.objects.update_or_create(
        incarnation=life, partition=partition, defaults={"watermark": second(at)}
    )
    PartitionOffset.objects.filter(pk=row.pk).update(
        updated_at=timezone.now() - timedelta(seconds=idle_s)
    )


def alive(lags: dict[int, int] | None = None, stream: str = "shop") -> ConsumerStatus:
    """A consumer runs."""
    now = timezone.now()
    parts = [{"topic": stream, "partition": p, "next_offset": 0, "end_offset": n}
             for p, n in (lags or {}).items()]  # fmt: skip
    return ConsumerStatus.objects.update_or_create(
        instance="c1", defaults={"started_at": now, "beat_at": now, "partitions": parts}
    )[0]


def incarnation(stream: str = "shop") -> TopicIncarnation:
    return builders.incarnation(builders.stream(stream))


def series(source: str, metric: str = "cpu", stream: str = "shop", **more: Any) -> Series:
    found = Series.objects.filter(stream__name=stream, source=source, metric=metric).first()
    given = {"stream": builders.stream(stream), "last_event_at": second(0)}
    return found or builders.series(source, metric, **given | more)


def anomaly(
    at: float,
    source: str = "web-1",
    *,
    ends: float | None = None,
    severity: int = Severity.HIGH,
    rises: Iterable[tuple[float, int]] = (),
    **more: Any,
) -> Anomaly:
    """An episode with the outbox rows that the sink writes; ``ends``: when that was known."""
    given: dict[str, Any] = {
        "metric": "cpu", "stream": "shop", "partition": 0, "score": 0.93, "direction": 1,
        "anomaly_type": "spike", "late": False,
    } | more  # fmt: skip
    of = series(source, given["metric"], given.pop("stream"))
    row = Anomaly(
        id=uuid.uuid5(uuid.NAMESPACE_OID, f"{of.stream.name}/{source}/{given['metric']}/{at}"),
        stream=of.stream, series=of, source=source, severity=severity, onset_at=second(at),
        end_at=second(at), value=9.0, peak_score=given["score"],
        incarnation=incarnation(of.stream.name), **given,
    )  # fmt: skip
    row.save(force_insert=True)
    _change(row, 0, "onset", result_of(row))
    for number, (when, level) in enumerate(rises, 1):
        row.severity = level
        risen = result_of(row) | {"timestamp": second(when).isoformat()}
        _change(row, number, "update", risen | {"end_timestamp": second(when).isoformat()})
    if ends is not None:
        row.state = Anomaly.State.CLOSED
        _change(row, 99, "closed", {"id": str(row.pk), "at": second(ends).isoformat(),
                "end_timestamp": second(at).isoformat(), "state": "closed"})  # fmt: skip
    row.save()
    return row


def _change(row: Anomaly, sequence: int, kind: str, payload: dict[str, Any]) -> None:
    Outbox.objects.create(
        anomaly=row, sequence=sequence, kind=kind, incarnation=row.incarnation,
        partition=row.partition, payload=payload | {"sequence": sequence, "change": kind},
    )  # fmt: skip


def stream(name: str = "shop") -> Stream:
    return builders.stream(name)


def incident(n: int = 0, *, members: int = 1, **more: Any) -> Incident:
    """An open incident of a rule, with anomalies of its own."""
    of = Rule.objects.filter(name="all").first() or rule()
    source = more.pop("source", f"web-{n}")
    given: dict[str, Any] = {
        "key": uuid.uuid5(uuid.NAMESPACE_OID, f"incident {n}"), "rule": of, "rule_version": of.live,
        "group": "incident:shop", "title": f"Spike of cpu on {source}", "severity": 3,
        "first_at": second(n), "last_at": second(n), "opened_at": second(n), "sources": [source],
        "anomaly_count": members,
    }  # fmt: skip
    made = Incident.objects.create(**given | more)
    for i in range(members):
        row = anomaly(n * 1_000 + i, source, ends=n * 1_000 + i + 1)
        IncidentAnomaly.objects.create(incident=made, anomaly=row)
    note(made, "opened", "It began.", ident="opened", at=made.opened_at).save()
    return made
