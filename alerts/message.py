"""What a notification says, before a receiver gives it its form."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from anomalies.models import Severity

SEVERITY_NAMES = {int(s): s.name.lower() for s in Severity}
OVER = "resolved"


@dataclass(frozen=True, slots=True)
class Message:
    """One notification, worded.

    Attributes:
        key: the notification's id: the same whenever it is sent again.
        thread: what all notifications of one incident have in common; the key where there is none.
        links: (label, address) of what a reader may do; the first one shows the incident.
        facts: label and value, for those receivers that show a table.
        payload: as the notification stores it, for programs.
    """

    key: uuid.UUID
    thread: str
    reason: str
    severity: int
    subject: str
    body: str
    at: datetime
    links: tuple[tuple[str, str], ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    payload: Mapping[str, Any] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether it tells of the end."""
        return self.reason == OVER

    @property
    def severity_name(self) -> str:
        return SEVERITY_NAMES.get(self.severity, "medium")

    @property
    def url(self) -> str:
        """Where the incident is seen; empty where no public address is set."""
        return self.links[0][1] if self.links else ""
