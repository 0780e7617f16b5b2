"""Alertmanager's API v2: an incident is one alert, that ends when the incident does.

Alertmanager forgets an alert that nobody repeats, so an open one says when it ends at the latest:
``hold_hours`` ahead. What tells the incident again (worse, reminders) moves that on.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from alerts.message import Message
from alerts.outgoing import Client
from alerts.receivers.base import Field, Kind, Result, Secrets, Settings, clipped, posted

LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
LONGEST_LABEL = 500
INCIDENT_LABEL = "incident"
"""Its value is the incident's id: by it an alert that comes back is known as one of ours."""


class Alertmanager(Kind):
    kind = "alertmanager"
    about = "An alert for each incident, by Alertmanager's API v2; its routing decides the rest."
    fields = (
        Field("url", "Address", "url", required=True, longest=2_000,
              help="Of Alertmanager itself: https://alertmanager.example.com"),
        Field("labels", "Further labels", help="team=payments, env=prod", longest=1_000),
        Field("hold_hours", "Hours until it ends by itself", "number", usual="24"),
        Field("token", "Bearer token", "secret"),
        Field("password", "User and password", "secret", help="user:password, for basic login."),
    )  # fmt: skip

    def problems(self, settings: Settings, secrets: Secrets) -> dict[str, str]:
        for part in _parts(settings):
            name, equals, value = part.partition("=")
            if not equals or not LABEL.fullmatch(name.strip()) or not value.strip():
                return {"labels": f"{clipped(part, 60)!r} is no label. One is team=payments."}
            if name.strip() == INCIDENT_LABEL:
                return {"labels": "The label incident is the incident's id, and stays so."}
        if _hold(settings) is None:
            return {"hold_hours": "A number of hours from 0.1 to 720."}
        if secrets.get("token") and secrets.get("password"):
            return {"token": "Either a token or a user with password, not both."}
        return {}

    def send(self, message: Message, settings: Settings, secrets: Secrets,
             client: Client) -> Result:  # fmt: skip
        headers = {"Idempotency-Key": str(message.key)}
        if secrets.get("token"):
            headers["Authorization"] = f"Bearer {secrets['token']}"
        elif secrets.get("password"):
            coded = base64.b64encode(secrets["password"].encode()).decode()
            headers["Authorization"] = f"Basic {coded}"
        url = str(settings.get("url", "")).rstrip("/") + "/api/v2/alerts"
        return posted(client, url, [alert(message, settings, datetime.now(UTC))], headers)


def alert(message: Message, settings: Settings, now: datetime) -> dict[str, Any]:
    """As the API wants it. Labels are the incident's for its whole life: they are its identity."""
    given = message.payload
    labels = {
        "alertname": str(given.get("rule") or "Vigil"), INCIDENT_LABEL: message.thread,
        "stream": str(given.get("stream") or ""), "job": "vigil",
    }  # fmt: skip
    for part in _parts(settings):
        name, _, value = part.partition("=")
        labels[name.strip()] = value.strip()
    ends = message.at if message.over else now + timedelta(hours=_hold(settings) or 24.0)
    starts = _moment(given, "first_at") or message.at
    found: dict[str, Any] = {
        "labels": {name: clipped(value, LONGEST_LABEL) for name, value in labels.items() if value},
        "annotations": {"summary": message.subject, "description": message.body,
                        "severity": message.severity_name},
        "startsAt": min(starts, ends).isoformat(),
        "endsAt": (min(ends, now) if message.over else ends).isoformat(),
    }  # fmt: skip
    if message.url:
        found["generatorURL"] = message.url
    return found


def _parts(settings: Settings) -> list[str]:
    return [p for p in str(settings.get("labels", "") or "").split(",") if p.strip()]


def _hold(settings: Settings) -> float | None:
    try:
        hours = float(settings.get("hold_hours") or 24)
    except (TypeError, ValueError):
        return None
    return hours if 0.1 <= hours <= 720 else None


def _moment(given: Mapping[str, Any], name: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(given.get(name)))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
