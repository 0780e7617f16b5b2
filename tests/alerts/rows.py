"""Rows of alerts for tests: receivers, incidents, notifications."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from alerts import vault
from alerts.models import Incident, Notification, Receiver, Rule, RuleVersion
from anomalies.models import Severity

SECRET = "a-secret-of-16-characters"


def receiver(name: str = "ops", url: str = "", **more: Any) -> Receiver:
    """A webhook, unless told otherwise."""
    given: dict[str, Any] = {
        "kind": "webhook", "settings": {"url": url}, "secrets": vault.seal({"secret": SECRET}),
        "per_minute": 100_000,
    }  # fmt: skip
    return Receiver.objects.create(name=name, **given | more)


def version(name: str = "Checkout paging", **spec: Any) -> RuleVersion:
    rule, _ = Rule.objects.get_or_create(name=name)
    return RuleVersion.objects.create(rule=rule, number=rule.versions.count() + 1, spec=spec)


def incident(**more: Any) -> Incident:
    now = timezone.now()
    given: dict[str, Any] = {
        "key": uuid.uuid4(), "group": "stream:webshop", "severity": Severity.HIGH,
        "title": "Level shift of payment_latency_ms on checkout-eu", "first_at": now,
        "last_at": now, "opened_at": now, "anomaly_count": 3, "sources": ["checkout-eu"],
    }  # fmt: skip
    return Incident.objects.create(**given | more)


def unsaved(to: Receiver, of: Incident | None, reason: str = "opened", **more: Any) -> Notification:
    now = timezone.now()
    given: dict[str, Any] = {
        "id": uuid.uuid4(), "incident": of, "receiver": to, "reason": reason,
        "severity": of.severity if of else Severity.HIGH, "event_at": now,
        "due_at": now - timedelta(milliseconds=1),
        "payload": {"title": of.title if of else "", "rule": "Checkout paging",
                    "sources": ["checkout-eu"], "anomalies": 3, "first_at": now.isoformat()},
    }  # fmt: skip
    return Notification(**given | more)


def notification(to: Receiver, of: Incident | None = None, reason: str = "opened",
                 *, created: datetime | None = None, **more: Any) -> Notification:  # fmt: skip
    row = unsaved(to, of or incident(), reason, **more)
    row.save(force_insert=True)
    if created is not None:
        Notification.objects.filter(pk=row.pk).update(created_at=created)
    return row
