"""The filters of the list of incidents, as they stand in the URL; the unreadable is left out."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.http import QueryDict
from django.utils import timezone

from alerts.found import Filters
from alerts.models import Incident, Rule
from anomalies.forms import LABELS, RANGES, SEVERITIES
from streams.models import Stream
from streams.ranges import named_range

STATES = [
    ("", "open or acknowledged"), ("open", "open"), ("acknowledged", "acknowledged"),
    ("resolved", "resolved"), ("all", "any"),
]  # fmt: skip
KNOWN_LABELS = {"", "none", *Incident.Label.values}


class IncidentFilter:
    """For the query, and for the page's controls."""

    def __init__(self, query: QueryDict) -> None:
        self._query = query
        self.states, self.severities, self.ranges = STATES, SEVERITIES, RANGES
        self.labels = [(v, w) for v, w in LABELS if v in KNOWN_LABELS]
        self.rules = [("", "any"), *_pairs(Rule.objects.order_by("name"), "name")]
        self.streams = [("", "any"), *_pairs(Stream.objects.order_by("name"), "name")]
        people = User.objects.filter(incidents__isnull=False).distinct().order_by("username")
        self.people = [("", "anybody"), ("none", "nobody"), *_pairs(people, "username")]
        self.state = self._one_of("state", self.states)
        self.severity = self._one_of("severity", self.severities)
        self.label = self._one_of("label", self.labels)
        self.rule = self._one_of("rule", self.rules)
        self.stream = self._one_of("stream", self.streams)
        self.assignee = self._one_of("assignee", self.people)
        self.range = self._one_of("range", self.ranges) or "all"
        self.source = query.get("source", "").replace("\x00", "")[:255]

    def filters(self) -> Filters:
        """For ``alerts.found``."""
        start = None
        if self.range != "all":
            start = named_range(self.range, timezone.now()).start
        return Filters(
            state={"": "active", "all": ""}.get(self.state, self.state),
            severity=int(self.severity) if self.severity else None,
            rule=self.rule, source=self.source, stream=self.stream, assignee=self.assignee,
            label=self.label, start=start,
        )  # fmt: skip

    @property
    def narrowed(self) -> bool:
        """Whether anything but the range is set."""
        names = ("state", "severity", "label", "rule", "stream", "assignee", "source")
        return any(getattr(self, name) for name in names)

    def _one_of(self, name: str, choices: list[Any]) -> str:
        given = self._query.get(name, "")
        return given if any(given == value for value, _ in choices) else ""


def _pairs(rows: Any, name: str) -> list[tuple[str, str]]:
    return [(text, text) for text in rows.values_list(name, flat=True)[:200]]
