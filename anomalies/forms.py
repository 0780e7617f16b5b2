"""Forms of the pages: signing in, and filters, which leave out what can't be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.http import QueryDict
from django.utils import timezone

from anomalies.filters import Filters
from anomalies.listing import NEWEST, SORTS, Sort
from anomalies.models import Anomaly, AnomalyType, Severity
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
ORIGINS = [("", "any"), ("detector", "a detector"), ("manual", "reported by hand")]
TYPES = [("", "any"), *((value, str(name).lower()) for value, name in AnomalyType.choices)]
RANGES = [(name, words) for name, (words, _) in NAMED.items()]
SCORES = [("", "any"), *((f"{s:.2f}", f"{s:.2f} and up") for s in (0.85, 0.9, 0.95, 0.99))]


# What belongs to a place in the list, not to the list.
PLACE = ("before", "after", "cursor", "window", "look", "edit", "done", "view")


class SignInForm(AuthenticationForm):
    """The usual form, with the choice of staying signed in."""

    remember = forms.BooleanField(required=False)


@dataclass(frozen=True, slots=True)
class Chip:
    """One filter as a chip: chosen from ``choices``, or written; ``without`` is the query that
    takes it away."""

    name: str
    word: str
    value: str
    choices: list[tuple[str, str]] | None = None
    without: str = ""
    hint: str = "any"
    extra: bool = False


class FilterForm:
    """The filters of a list as they stand in the URL, for queries and for the page's controls."""

    def __init__(self, query: QueryDict, *, default_range: str = "all") -> None:
        self.query = query
        self.streams = [("", "all"), *((s, s) for s in _streams())]
        self.stream = self._one_of("stream", self.streams)
        self.severity = self._one_of("severity", SEVERITIES)
        self.label = self._one_of("label", LABELS)
        self.state = self._one_of("state", STATES)
        self.score, self.scores = self._score()
        self.origin = self._one_of("origin", ORIGINS)
        self.range = self._one_of("range", RANGES) or default_range
        kind = _printable(query.get("type", ""))[:40]
        # A manual report may have a type of its own, so any word is taken.
        self.types = TYPES if any(kind == t for t, _ in TYPES) else [*TYPES, (kind, kind)]
        self.type = kind
        self.source = _printable(query.get("source", ""))
        self.metric = _printable(query.get("metric", ""))
        self.series = _printable(query.get("series", ""))
        self.incident = _printable(query.get("incident", ""))[:24].strip()
        self.sort: Sort = SORTS.get(query.get("sort", ""), NEWEST)
        self.start, self.end = read_local(query.get("start", "")), read_local(query.get("end", ""))
        self.severities, self.labels, self.states = SEVERITIES, LABELS, STATES
        self.ranges = RANGES

    def filters(self) -> Filters:
        start, end = self.start, self.end
        if start is None and end is None and self.range != "all":
            start = named_range(self.range, timezone.now()).start
        return Filters(
            source=self.source, metric=self.metric, series=self.series, stream=self.stream,
            label=self.label, origin=self.origin, incident=self.incident,
            severity=Severity(int(self.severity)).value if self.severity else None,
            anomaly_type=self.type, state=self.state,
            score=float(self.score) if self.score else None, start=start, end=end,
        )  # fmt: skip

    def kept(self, *without: str) -> str:
        """The query that leads to the same list again."""
        query = self.query.copy()
        for name in (*PLACE, *without):
            query.pop(name, None)
        for name in [name for name, value in query.items() if not value]:
            del query[name]
        return query.urlencode()

    @property
    def chips(self) -> list[Chip]:
        """The filters of a list of anomalies; ``extra`` ones are shown once they are set."""
        return [
            self._chip("stream", "Stream", self.streams),
            self._chip("severity", "Severity", SEVERITIES),
            self._chip("type", "Type", self.types),
            self._chip("label", "Label", LABELS),
            self._chip("state", "State", STATES),
            self._chip("source", "Source", extra=True),
            self._chip("metric", "Metric", extra=True),
            self._chip("series", "Series like", hint="web-*/cpu_*", extra=True),
            self._chip("score", "Score", self.scores, extra=True),
            self._chip("origin", "Found by", ORIGINS, extra=True),
            self._chip("incident", "Incident", hint="482, any or none", extra=True),
        ]

    def _chip(self, name: str, word: str, choices: list[tuple[str, str]] | None = None,
              hint: str = "any", *, extra: bool = False) -> Chip:  # fmt: skip
        return Chip(name, word, getattr(self, name), choices, self.kept(name), hint, extra)

    @property
    def narrowed(self) -> bool:
        return any(chip.value for chip in self.chips) or self.has_span

    @property
    def without_span(self) -> str:
        return self.kept("start", "end")

    def _score(self) -> tuple[str, list[tuple[str, str]]]:
        """Any score may stand in an address; those that are no choice are added to them."""
        given = self.query.get("score", "")[:20]
        try:
            score = float(given)
        except ValueError:
            return "", SCORES
        if not 0 <= score <= 1:
            return "", SCORES
        if known := next((text for text, _ in SCORES if text and float(text) == score), None):
            return known, SCORES
        return given, [*SCORES, (given, f"{score:g} and up")]

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
