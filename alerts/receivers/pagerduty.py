"""PagerDuty's Events API v2: one alert for an incident, by its ``dedup_key``.

What opens or worsens triggers, an acknowledgement acknowledges, the end resolves. 202 is taken,
400 is a mistake of ours, 429 and 5xx are for another try (PagerDuty's own table).
"""

from __future__ import annotations

from typing import Any

from alerts.message import Message
from alerts.outgoing import Client
from alerts.receivers.base import Field, Kind, Result, Secrets, Settings, clipped, posted

SEVERITIES = {1: "info", 2: "warning", 3: "error", 4: "critical"}
REGIONS = {"us": "https://events.pagerduty.com", "eu": "https://events.eu.pagerduty.com"}
ACTIONS = {"resolved": "resolve", "acknowledged": "acknowledge"}


class PagerDuty(Kind):
    kind = "pagerduty"
    about = "Pages by an integration of a service: Events API v2."
    fields = (
        Field("region", "Service region", "choice", usual="us",
              choices=(("us", "US"), ("eu", "EU"))),
        Field("endpoint", "Another address", "url",
              help="Of a service that speaks the same API; empty: PagerDuty's own."),
        Field("routing_key", "Integration key", "secret", required=True,
              help="32 characters, of an Events API v2 integration."),
    )  # fmt: skip

    def problems(self, settings: Settings, secrets: Secrets) -> dict[str, str]:
        key = secrets.get("routing_key", "")
        named = key.startswith(("env:", "file:")) or settings.get("endpoint")
        if not named and not (len(key) == 32 and key.isascii() and key.isalnum()):
            return {"routing_key": "An integration key has 32 letters and digits."}
        return {}

    def send(self, message: Message, settings: Settings, secrets: Secrets,
             client: Client) -> Result:  # fmt: skip
        root = settings.get("endpoint") or REGIONS[settings.get("region") or "us"]
        body = event(message) | {"routing_key": secrets.get("routing_key", "")}
        return posted(client, f"{str(root).rstrip('/')}/v2/enqueue", body,
                      {"Idempotency-Key": str(message.key)}, ok=range(200, 300))  # fmt: skip


def event(message: Message) -> dict[str, Any]:
    """The event without its routing key."""
    given = message.payload
    sources = [str(s) for s in given.get("sources") or []]
    found: dict[str, Any] = {
        "event_action": ACTIONS.get(message.reason, "trigger"),
        "dedup_key": clipped(f"vigil/{message.thread}", 255),
        "client": "Vigil",
        "payload": {
            "summary": clipped(message.subject, 1_024),
            "source": clipped(", ".join(sources) or str(given.get("rule") or "Vigil"), 255),
            "severity": SEVERITIES.get(message.severity, "warning"),
            "timestamp": message.at.isoformat(),
            "class": clipped(str(given.get("rule") or ""), 255) or "anomaly",
            "custom_details": {"text": clipped(message.body, 4_000), "reason": message.reason,
                               "notification": str(message.key)} | dict(message.facts),
        },
    }  # fmt: skip
    if message.url:
        found["client_url"] = message.url
        found["links"] = [{"href": message.url, "text": "Incident in Vigil"}]
    return found
