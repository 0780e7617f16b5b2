"""What callers of the API send, read or refused with the field, and what is allowed."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import unquote

from django.utils.dateparse import parse_datetime

from anomalies.models import Severity


class BadRequestError(Exception):
    """What the caller sent can't be read; shown to it as it is."""

    def __init__(self, field: str, message: str, allowed: str) -> None:
        super().__init__(message)
        self.body = {"error": {"field": field, "message": message, "allowed": allowed}}


def whole(field: str, text: str, least: int, most: int) -> int:
    allowed = f"a whole number from {least} to {most}"
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadRequestError(field, f"{shown(text)} is no whole number.", allowed)
    if not least <= int(text) <= most:
        raise BadRequestError(field, f"{text} is out of range.", allowed)
    return int(text)


def text_of(field: str, text: str) -> str:
    if "\x00" in text or len(text) > 255:
        raise BadRequestError(field, "Too long, or with a NUL.", "up to 255 characters")
    return text


def one_of(field: str, text: str, allowed: list[str]) -> str:
    if text not in allowed:
        raise BadRequestError(field, f"{shown(text)} is not known.", ", ".join(allowed[1:]))
    return text


def severity_of(text: str) -> int | None:
    names = {str(level.label): level.value for level in Severity}
    if not text:
        return None
    return names[one_of("severity", text, ["", *names])]


def score_of(text: str) -> float | None:
    if not text:
        return None
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise BadRequestError("min_score", f"{shown(text)} is no score.", "a number from 0 to 1")
    return score


def moment(field: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        found = parse_datetime(text.replace(" ", "+"))
    except ValueError:
        found = None
    if found is None or found.tzinfo is None or not 1 < found.year < 9999:
        raise BadRequestError(
            field, f"{shown(text)} is no moment.", "ISO 8601 with a zone: 2024-01-01T12:00:00Z"
        )
    return found


def incident_of(text: str) -> str:
    """An incident's number, with or without INC-, or `any` or `none`."""
    found = text.upper().removeprefix("INC-")
    if text in ("", "any", "none") or (found.isascii() and found.isdigit() and len(found) < 18):
        return text
    raise BadRequestError("incident", f"{shown(text)} is no incident.", "its number, any or none")


def shown(text: str) -> str:
    return repr(unquote(text)[:60])
