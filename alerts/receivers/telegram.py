"""Telegram's bot API: ``sendMessage``, as plain text.

The answer says ``ok``; 429 says in ``parameters.retry_after`` how long to wait.
"""

from __future__ import annotations

import json
import re
from typing import Any

from alerts import outgoing
from alerts.message import Message
from alerts.outgoing import Answer, Client
from alerts.receivers.base import (
    LONGEST_WAIT_S,
    Field,
    Kind,
    Outcome,
    Result,
    Secrets,
    Settings,
    clipped,
    judged,
)

TOKEN = re.compile(r"\d{3,20}:[A-Za-z0-9_-]{20,100}")
CHAT = re.compile(r"-?\d{1,20}|@[A-Za-z0-9_]{4,40}")
LONGEST = 4_096
SERVER = "https://api.telegram.org"


class Telegram(Kind):
    kind = "telegram"
    about = "A message of a bot to a chat, a group or a channel."
    fields = (
        Field("chat_id", "Chat", required=True, longest=60,
              help="A number such as -1001234567890, or a channel's @name."),
        Field("topic", "Topic", "number", help="message_thread_id of a forum; empty: none."),
        Field("silent", "Without a sound, unless high or worse", "flag"),
        Field("endpoint", "Another address", "url",
              help="Of a bot API server of your own; empty: Telegram's."),
        Field("token", "Bot token", "secret", required=True, help="123456:ABC…, of @BotFather."),
    )  # fmt: skip

    def problems(self, settings: Settings, secrets: Secrets) -> dict[str, str]:
        token, topic = secrets.get("token", ""), str(settings.get("topic") or "")
        found = {}
        if not CHAT.fullmatch(str(settings.get("chat_id", "")).strip()):
            found["chat_id"] = "A chat is a number such as -1001234567890, or @channelname."
        if topic and not (topic.isascii() and topic.isdigit() and len(topic) < 16):
            found["topic"] = "A topic is a whole number."
        if not token.startswith(("env:", "file:")) and not TOKEN.fullmatch(token):
            found["token"] = "A bot token looks like 123456:ABC-DEF…"  # noqa: S105
        return found

    def send(self, message: Message, settings: Settings, secrets: Secrets,
             client: Client) -> Result:  # fmt: skip
        token = secrets.get("token", "")
        if not TOKEN.fullmatch(token):
            # It would become a part of the address otherwise.
            return Result(Outcome.PERMANENT, "token", "The bot token is none.")
        root = str(settings.get("endpoint") or SERVER).rstrip("/")
        body = json.dumps(content(message, settings), ensure_ascii=False).encode()
        try:
            answer = client.post(f"{root}/bot{token}/sendMessage", body,
                                 {"Content-Type": "application/json"})  # fmt: skip
        except outgoing.ForbiddenAddressError as error:
            return Result(Outcome.PERMANENT, "refused", str(error))
        except outgoing.UnreachableError as error:
            return Result(Outcome.TRANSIENT, "no answer", str(error))
        return _judged(answer)


def content(message: Message, settings: Settings) -> dict[str, Any]:
    """Plain text with the addresses below it: no mark-up that a name could break."""
    links = "\n".join(f"{label}: {url}" for label, url in message.links)
    room = LONGEST - len(links) - len(message.subject) - 4
    text = f"{message.subject}\n\n{clipped(message.body, max(room, 100))}"
    found: dict[str, Any] = {
        "chat_id": str(settings.get("chat_id", "")).strip(),
        "text": clipped(f"{text}\n\n{links}" if links else text, LONGEST),
        "link_preview_options": {"is_disabled": True},
    }
    if settings.get("topic"):
        found["message_thread_id"] = int(str(settings["topic"]))
    if settings.get("silent") and message.severity < 3:
        found["disable_notification"] = True
    return found


def _judged(answer: Answer) -> Result:
    try:
        said = json.loads(answer.body)
    except ValueError:
        said = None
    result = judged(answer)
    if not isinstance(said, dict):
        if result.outcome == Outcome.OK:
            return Result(Outcome.TRANSIENT, str(answer.status), "The answer is no JSON.")
        return result
    if result.outcome == Outcome.OK and said.get("ok") is not True:
        return Result(Outcome.PERMANENT, str(answer.status), str(said.get("description"))[:400])
    parameters = said.get("parameters")
    wait = parameters.get("retry_after") if isinstance(parameters, dict) else None
    if result.outcome == Outcome.SLOW_DOWN and isinstance(wait, int | float) and wait >= 0:
        words = str(said.get("description"))[:400]
        return Result(Outcome.SLOW_DOWN, str(answer.status), words, min(wait, LONGEST_WAIT_S))
    return result
