"""Signed links that let somebody act on one incident without logging in.

GET only shows what would happen, so a mail scanner that follows links changes nothing; POST acts.
A link names one incident and one action, and ends after ``alerts.link_hours``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.core import signing
from django.urls import reverse

SALT: Final = "vigil.alerts.links"
ACTIONS: Final = {
    "ack": ("Acknowledge", "acknowledge it: escalations and reminders end"),
    "real": ("It is real", "label it real"),
    "false": ("False alarm", "label it a false alarm"),
}
LABELS: Final = {"real": "real", "false": "false_alarm"}


class LinkError(Exception):
    """A link that does not count (any more); the message is for people."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a token allows."""

    incident: int
    action: str


def token(incident: int, action: str) -> str:
    """Text for an address: signed, and with the time at which it was made."""
    return signing.dumps([incident, action], salt=SALT)


def read(given: str) -> Link:
    """What a token allows. Raises :class:`LinkError`."""
    hours = settings.VIGIL.alerts.link_hours
    try:
        incident, action = signing.loads(given, salt=SALT, max_age=int(hours * 3_600))
    except signing.SignatureExpired:
        raise LinkError("This link is too old. Log in to act on the incident.") from None
    except (signing.BadSignature, ValueError, TypeError):
        raise LinkError("This link is not complete, or was changed on its way.") from None
    if action not in ACTIONS or not isinstance(incident, int):
        raise LinkError("This link asks for something that is not known.")
    return Link(incident, action)


def address(path: str) -> str:
    """A full address below ``dashboard.public_url``; empty where none is set."""
    root = settings.VIGIL.dashboard.public_url
    return f"{root.rstrip('/')}{path}" if root else ""


def action_address(incident: int, action: str) -> str:
    """Where an action waits for its POST; empty where no public address is set."""
    if not address("/"):
        return ""
    return address(reverse("alert-link", args=[token(incident, action)]))
