"""Forms of the pages: signing in, and filters, which leave out what can't be read."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.http import QueryDict
from django.utils import timezone

from anomalies.models import Anomaly, AnomalyType, Severity
from anomalies.queries import Filters
from streams.models import Stream
from streams.ranges import NAMED, named_range
from streams.zones import read_local

SEVERITIES = [
    ("", "low and above"), ("2", "medium and above"), ("3", "high and above"), ("4", "critical"),
]  # fmt: skip
LABELS = [
    ("", "any"), ("not_false_alarm", "not false alarm"), ("none", "not labelled"),
    *((value, str(name).lower()) for value, name in Anomaly.Label.choices if value),
]  # fmt: skip
STATES = [("", "any"), ("open", "open"), ("closed", "closed")]
TYPES = [("", "any"), *((value, str(name).lower()) for value, name in AnomalyType.choices)]
RANGES = [(name, words) for name, (words, _) in NAMED.items()]
SCORES = [("", "any"), *((f"{s:.2f}", f"{s:.2f} and up") for s in (0.85, 0.9, 0.95, 0.99))]


class SignInForm(AuthenticationForm):
    """The usual form, with the choice of staying signed in."""

    remember = forms.BooleanField(required=False)


class FilterForm:
    """The filters of a list as they stand in the URL, for queries and for the page's controls."""

    def __init__(self, query: QueryDict, *, default_range: str = "all") -> None:
        self.query = query
        self.streams = [("", "all"), *((s, s) for s in _streams())]
        self.stream = self._one_of("stream", self.streams)
        self.severity = self._one_of("severity", SEVERITIES)
        self.label = self._one_of("label", LABELS)
        self.state = self._one_of("state", STATES)
        self.score = self._one_of("score", SCORES)
        self.range = self._one_of("range", RANGES) or default_range
        kind = _printable(query.get("type", ""))[:40]
        # A manual report may have a type of its own, so any word is taken.
        self.types = TYPES if any(kind == t for t, _ in TYPES) else [*TYPES, (kind, kind)]
        self.type = kind
        self.source = _printable(query.get("source", ""))
        self.metric = _printable(query.get("metric", ""))
        self.start, self.end = read_local(query.get("start", "")), read_local(query.get("end", ""))
        self.severities, self.labels, self.states = SEVERITIES, LABELS, STATES
        self.ranges, self.scores = RANGES, SCORES

    def filters(self) -> Filters:
        start, end = self.start, self.end
        if start is None and end is None and self.range != "all":
            start = named_range(self.range, timezone.now()).start
        return Filters(
            source=self.source, metric=self.metric, stream=self.stream, label=self.label,
            severity=Severity(int(self.severity)).value if self.severity else None,
            anomaly_type=self.type, state=self.state,
            score=float(self.score) if self.score else None, start=start, end=end,
        )  # fmt: skip

    def kept(self, *without: str) -> str:
        """The query that leads to the same list again."""
        query = self.query.copy()
        for name in ("before", "after", "cursor", *without):
            query.pop(name, None)
        return query.urlencode()

    @property
    def narrowed(self) -> bool:
        names = ("stream", "severity", "label", "state", "score", "type", "source", "metric")
        return any(getattr(self, name) for name in names) or self.has_span

    @property
    def has_span(self) -> bool:
        return bool(self.start or self.end)

    def _one_of(self, name: str, choices: list[Any]) -> str:
        given = self.query.get(name, "")
        return given if any(given == value for value, _ in choices) else ""


def _streams() -> list[str]:
    return list(Stream.objects.order_by("name").values_list("name", flat=True)[:200])


def _printable(text: str) -> str:
    # PostgreSQL refuses a NUL in text.
    return text.replace("\x00", "")[:255]
