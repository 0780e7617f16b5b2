"""A card that stands for itself: where it can't be made it says why, and the page goes on."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from django.db import Error as DatabaseError
from django.template.loader import render_to_string
from django.utils.safestring import SafeString, mark_safe

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a card could not be read; `reference` finds it in the log."""

    card: str
    title: str
    cause: str
    reference: str


def card(name: str, title: str, make: Callable[[], str]) -> SafeString:
    """The card `name` as `make` gives it, or one that tells the failure and offers to try again."""
    try:
        return mark_safe(make())  # noqa: S308  (a rendered template)
    except Exception as error:
        failed = Failed(name, title, cause_of(error), uuid.uuid4().hex[:6])
        log.exception("card.failed card=%s reference=%s", name, failed.reference)
        return render_to_string("anomalies/_partials/failed.html", {"failed": failed})


def cause_of(error: Exception) -> str:
    """In words for who looks at the page; the log has the rest."""
    if isinstance(error.__cause__, psycopg.errors.QueryCanceled):
        return "PostgreSQL took too long."
    if isinstance(error, DatabaseError):
        return "PostgreSQL could not answer."
    return f"It met an error: {type(error).__name__}."
