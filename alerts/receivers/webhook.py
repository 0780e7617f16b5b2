"""A webhook of one's own: JSON, signed.

``X-Vigil-Signature`` is ``v1=`` and the hexadecimal HMAC-SHA256, by the receiver's secret, over
``X-Vigil-Timestamp`` (epoch seconds), a full stop and the body. ``Idempotency-Key`` is the same
whenever a notification is sent again. :func:`verified` is what the other end does.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

from alerts.message import Message
from alerts.outgoing import Client
from alerts.receivers.base import Field, Kind, Result, Secrets, Settings, posted

TOLERANCE_S = 300
VERSION = 1


class Webhook(Kind):
    kind = "webhook"
    about = "JSON by POST to an address of yours, signed with a secret that both ends know."
    fields = (
        Field("url", "Address", "url", required=True, longest=2_000,
              help="https://…; 2xx counts as received, redirects are not followed."),
        Field("secret", "Signing secret", "secret", required=True,
              help="At least 16 characters."),
        Field("authorization", "Authorization header", "secret",
              help="Sent as it is, where the other end wants one: Bearer …"),
    )  # fmt: skip

    def problems(self, settings: Settings, secrets: Secrets) -> dict[str, str]:
        given = secrets.get("secret", "")
        if len(given) < 16 and not given.startswith(("env:", "file:")):
            return {"secret": "At least 16 characters, so that nobody guesses it."}
        if not secrets.get("authorization", "").isascii():
            return {"authorization": "A header holds ASCII characters only."}
        return {}

    def send(self, message: Message, settings: Settings, secrets: Secrets,
             client: Client) -> Result:  # fmt: skip
        body = json.dumps(content(message), ensure_ascii=False, sort_keys=True).encode()
        stamp = str(int(time.time()))
        headers = {
            "X-Vigil-Timestamp": stamp,
            "X-Vigil-Signature": signature(secrets.get("secret", ""), stamp, body),
            "Idempotency-Key": str(message.key),
        }
        if secrets.get("authorization"):
            headers["Authorization"] = secrets["authorization"]
        return posted(client, str(settings.get("url", "")), body, headers)


def content(message: Message) -> dict[str, Any]:
    """The JSON that is sent; a new field may come, none goes without another ``version``."""
    return {
        "version": VERSION,
        "id": str(message.key),
        "incident": message.thread,
        "reason": message.reason,
        "severity": message.severity_name,
        "subject": message.subject,
        "text": message.body,
        "event_at": message.at.isoformat(),
        "url": message.url or None,
        "details": dict(message.payload),
    }


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """``v1=…`` of a body."""
    mac = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return "v1=" + mac.hexdigest()


def verified(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Whether a request is ours and no older than five minutes; compares in constant time."""
    timestamp = headers.get("X-Vigil-Timestamp", "")
    if not timestamp.isdigit() or abs(now - int(timestamp)) > TOLERANCE_S:
        return False
    return hmac.compare_digest(
        signature(secret, timestamp, body), headers.get("X-Vigil-Signature", "")
    )
