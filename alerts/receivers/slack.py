"""Slack's incoming webhooks, with blocks. Its errors: 400, 403, 404 and 410 stay, 429 waits."""

from __future__ import annotations

from typing import Any

from alerts.message import Message
from alerts.outgoing import Client
from alerts.receivers.base import Field, Kind, Result, Secrets, Settings, clipped, posted
from alerts.receivers.urls import secret_url_problem

MARKS = {1: "🔵", 2: "🟡", 3: "🟠", 4: "🔴"}
# Of Slack's reference of blocks: plain text of a header, text of a section, elements of actions.
HEADER, SECTION, BUTTONS = 150, 3_000, 5


class Slack(Kind):
    kind = "slack"
    about = "A message to a channel by an incoming webhook."
    fields = (
        Field("url", "Webhook address", "secret", required=True, longest=2_000,
              help="https://hooks.slack.com/services/…; whoever knows it may post."),
    )  # fmt: skip

    def problems(self, settings: Settings, secrets: Secrets) -> dict[str, str]:
        return secret_url_problem("url", secrets)

    def send(self, message: Message, settings: Settings, secrets: Secrets,
             client: Client) -> Result:  # fmt: skip
        return posted(client, secrets.get("url", ""), content(message),
                      {"Idempotency-Key": str(message.key)})  # fmt: skip


def content(message: Message) -> dict[str, Any]:
    """Text for notifications and screen readers, blocks for the channel."""
    mark = "✅" if message.over else MARKS.get(message.severity, "🟡")
    blocks: list[dict[str, Any]] = [
        {"type": "header",
         "text": {"type": "plain_text", "text": clipped(f"{mark} {message.subject}", HEADER),
                  "emoji": True}},
        {"type": "section",
         "text": {"type": "mrkdwn", "text": clipped(escaped(message.body), SECTION) or "–"}},
    ]  # fmt: skip
    if message.facts:
        blocks.append({
            "type": "context",
            "elements": [{"type": "mrkdwn", "text": clipped(f"{escaped(n)}: *{escaped(v)}*", 300)}
                         for n, v in message.facts[:8]],
        })  # fmt: skip
    if message.links:
        blocks.append({
            "type": "actions",
            "elements": [
                {"type": "button", "url": url, "action_id": f"vigil-{i}",
                 "text": {"type": "plain_text", "text": clipped(label, 75)}}
                for i, (label, url) in enumerate(message.links[:BUTTONS]) if len(url) <= 3_000
            ],
        })  # fmt: skip
    return {"text": clipped(f"{mark} {escaped(message.subject)}", SECTION), "blocks": blocks}


def escaped(text: str) -> str:
    """The three characters that Slack gives a meaning: nobody is called by a series' name."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
