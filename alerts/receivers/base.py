"""What every kind of receiver is: fields of its form, a check of them, and one way to send."""

from __future__ import annotations

import email.utils
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from alerts import outgoing
from alerts.message import Message
from alerts.models import Attempt
from alerts.outgoing import Answer, Client

Outcome = Attempt.Outcome
EXCERPT = 400
LONGEST_WAIT_S = 6 * 3_600.0


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a kind's form."""

    name: str
    label: str
    form: Literal["text", "url", "secret", "choice", "number", "flag"] = "text"
    required: bool = False
    help: str = ""
    usual: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    longest: int = 500

    @property
    def secret(self) -> bool:
        return self.form == "secret"


@dataclass(frozen=True, slots=True)
class Result:
    """How one try ended.

    ``excerpt`` may hold what the other side said; whoever keeps it strikes out the secrets first.
    """

    outcome: Outcome
    status: str = ""
    excerpt: str = ""
    wait_s: float | None = None


Settings = Mapping[str, Any]
Secrets = Mapping[str, str]


class Kind(ABC):
    """A kind of receiver. One file each; :mod:`alerts.receivers` names them."""

    kind: ClassVar[str]
    fields: ClassVar[tuple[Field, ...]]
    about: ClassVar[str] = ""

    @abstractmethod
    def send(self, message: Message, settings: Settings, secrets: Secrets,
             client: Client) -> Result:  # fmt: skip
        """One try, bounded in time. It raises nothing for what the other side does."""

    def problems(self, settings: Settings, secrets: Secrets) -> dict[str, str]:
        """What is wrong with a form's values, by field, besides what fields say themselves."""
        return {}


def problems_of(kind: Kind, settings: Settings, secrets: Secrets) -> dict[str, str]:
    """All that is wrong: fields that are missing, too long or no addresses, then the kind's own."""
    found: dict[str, str] = {}
    for spec in kind.fields:
        value = secrets.get(spec.name, "") if spec.secret else settings.get(spec.name, "")
        if problem := _problem(spec, value):
            found[spec.name] = problem
    return found or kind.problems(settings, secrets)


def posted(client: Client, url: str, body: Any, headers: Mapping[str, str] | None = None,
           *, ok: range = range(200, 300)) -> Result:  # fmt: skip
    """POST as JSON, and what became of it."""
    content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    given = {"Content-Type": "application/json"} | dict(headers or {})
    try:
        answer = client.post(url, content, given)
    except outgoing.ForbiddenAddressError as error:
        return Result(Outcome.PERMANENT, "refused", str(error))
    except outgoing.UnreachableError as error:
        return Result(Outcome.TRANSIENT, "no answer", str(error))
    return judged(answer, ok)


def judged(answer: Answer, ok: range = range(200, 300)) -> Result:
    """The outcome that an HTTP answer means.

    408, 425, 429 and 5xx may pass; Retry-After is obeyed in both of its forms (RFC 9110). A
    redirect is not followed: where a message goes is what somebody typed in.
    """
    status, text = answer.status, _text(answer.body)
    wait = retry_after(answer.headers.get("retry-after", ""), datetime.now(UTC))
    if status in ok:
        return Result(Outcome.OK, str(status), text)
    if status == 429 or (status == 503 and wait is not None):
        return Result(Outcome.SLOW_DOWN, str(status), text, wait)
    if status in (408, 425) or status >= 500:
        return Result(Outcome.TRANSIENT, str(status), text, wait)
    if 300 <= status < 400:
        return Result(Outcome.PERMANENT, str(status),
                      "The address redirects elsewhere, which is not followed.")  # fmt: skip
    return Result(Outcome.PERMANENT, str(status), text)


def retry_after(value: str, now: datetime) -> float | None:
    """Seconds to wait, of ``120`` or ``Wed, 21 Oct 2026 07:28:00 GMT``; None where it is neither.

    >>> retry_after("120", datetime.now(UTC))
    120.0
    """
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return min(float(value), LONGEST_WAIT_S)
    try:
        at = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0.0, (at - now).total_seconds()), LONGEST_WAIT_S)


def clipped(text: str, longest: int) -> str:
    """Text of at most so many characters, with an ellipsis where something is missing."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _text(body: bytes) -> str:
    text = body[: 4 * EXCERPT].decode("utf-8", errors="replace")
    plain = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(plain.split())[: 2 * EXCERPT]


def _problem(spec: Field, value: Any) -> str:
    text = str(value if value is not None else "")
    if not text.strip():
        return "This is needed." if spec.required else ""
    if len(text) > spec.longest:
        return f"At most {spec.longest} characters; this has {len(text)}."
    if any(ord(c) < 32 or c == "\x7f" for c in text):
        return "Control characters and line ends don't belong here."
    if spec.form == "url":
        return outgoing.problem_of(text)
    if spec.form == "choice" and text not in dict(spec.choices):
        return f"One of {', '.join(key for key, _ in spec.choices)}."
    return ""
