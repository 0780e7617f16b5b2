"""Microsoft Teams: a workflow's webhook ("When a Teams webhook request is received") and an
adaptive card. 202 is taken; the flow itself may fail later, which nobody tells us."""

from __future__ import annotations

from typing import Any

from alerts.message import Message
from alerts.outgoing import Client
from alerts.receivers.base import Field, Kind, Result, Secrets, Settings, clipped, posted
from alerts.receivers.urls import secret_url_problem

COLOURS = {1: "Accent", 2: "Warning", 3: "Warning", 4: "Attention"}
LONGEST = 8_000  # of 28 kB that a message may have


class Teams(Kind):
    kind = "teams"
    about = "An adaptive card in a channel or chat, by a workflow's webhook."
    fields = (
        Field("url", "Workflow address", "secret", required=True, longest=2_000,
              help="Of the trigger “When a Teams webhook request is received”."),
    )  # fmt: skip

    def problems(self, settings: Settings, secrets: Secrets) -> dict[str, str]:
        return secret_url_problem("url", secrets)

    def send(self, message: Message, settings: Settings, secrets: Secrets,
             client: Client) -> Result:  # fmt: skip
        return posted(client, secrets.get("url", ""), content(message),
                      {"Idempotency-Key": str(message.key)})  # fmt: skip


def content(message: Message) -> dict[str, Any]:
    """A message with one card, version 1.4: what phones show as well."""
    colour = "Good" if message.over else COLOURS.get(message.severity, "Warning")
    body: list[dict[str, Any]] = [
        {"type": "TextBlock", "size": "Medium", "weight": "Bolder", "wrap": True, "color": colour,
         "text": plain(clipped(message.subject, 300))},
        *({"type": "TextBlock", "wrap": True, "text": plain(clipped(line, LONGEST // 4))}
          for line in message.body[:LONGEST].splitlines() if line.strip()),
    ]  # fmt: skip
    if message.facts:
        body.append({"type": "FactSet", "facts": [
            {"title": plain(n), "value": plain(clipped(v, 300))} for n, v in message.facts[:10]
        ]})  # fmt: skip
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard", "version": "1.4", "body": body[:40],
    }  # fmt: skip
    if message.links:
        card["actions"] = [
            {"type": "Action.OpenUrl", "title": clipped(label, 60), "url": url}
            for label, url in message.links[:5]
        ]
    return {
        "type": "message",
        "attachments": [
            {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None,
             "content": card}
        ],
    }  # fmt: skip


def plain(text: str) -> str:
    """Without the little Markdown that cards understand: names of series mean themselves."""
    for mark in ("\\", "*", "_", "[", "]", "`"):
        text = text.replace(mark, "\\" + mark)
    return text
