"""Search over everything that has a page: series, anomalies, incidents, rules and what else pages
name. Each group is one small query, so that an answer comes while one types."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import and_
from uuid import UUID

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db.models import Count, Q
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode

from alerts.models import Incident, Receiver, Rule
from anomalies.models import Anomaly, Severity
from detection.models import ModelVersion
from streams.models import Series, Stream
from streams.roles import may_operate

LONGEST = 100
WORDS = 6
SHORT_ID = 6
"""Characters of an anomaly's id from which on it is looked for."""
_HEX = re.compile(r"^[0-9a-f]{%d,32}$" % SHORT_ID)  # noqa: UP031  (braces of the pattern)
_NUMBER = re.compile(r"^(?:inc-?)?([0-9]{1,17})$")
Person = AbstractBaseUser | AnonymousUser


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing found: its page, its name, and what tells it from others of that name."""

    url: str
    name: str
    detail: str = ""
    severity: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """What was found of one kind; ``more`` leads to all of it, where a page lists that."""

    name: str
    icon: str
    hits: list[Hit]
    more: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, as words of small letters."""

    text: str
    words: tuple[str, ...]

    def within(self, *columns: str) -> Q:
        """Each word in one of the columns."""
        return reduce(and_, (_any_of(columns, word) for word in self.words))


def asked(text: str) -> Asked:
    tidy = " ".join(text.replace("\x00", "").split())[:LONGEST].lower()
    return Asked(tidy, tuple(tidy.split(" ")[:WORDS]) if tidy else ())


def find(text: str, user: Person, most: int = 5) -> list[Group]:
    """The groups that hold something, at most ``most`` of each."""
    query = asked(text)
    if not query.words:
        return []
    groups = [finder(query, user, most) for finder in FINDERS]
    return [group for group in groups if group.hits]


# ---- Each kind ----------------------------------------------------------------------------------
def _incidents(query: Asked, user: Person, most: int) -> Group:
    wanted = query.within("title")
    if number := _NUMBER.match(query.text):
        wanted |= Q(pk=int(number[1]))
    rows = Incident.objects.filter(wanted).order_by("-pk")[:most]
    return Group("Incidents", "incidents", [
        Hit(reverse("incident", args=[row.pk]), row.title, f"{row} · {row.get_state_display()}"
            .lower().replace("inc-", "INC-"), row.severity) for row in rows
    ])  # fmt: skip


def _anomalies(query: Asked, user: Person, most: int) -> Group:
    """By the beginning of their id, else the newest of the series that are meant."""
    rows = Anomaly.objects.only("id", "source", "metric", "severity", "onset_at")
    first = query.text.replace("-", "")
    if _HEX.match(first):
        low, high = UUID(first.ljust(32, "0")), UUID(first.ljust(32, "f"))
        found = list(rows.filter(pk__range=(low, high)).order_by("pk")[:most])
        if found:
            return Group("Anomalies", "anomalies", [_anomaly(row) for row in found])
    meant = list(
        Series.objects.filter(query.within("source", "metric"))
        .order_by("-last_event_at").values_list("pk", flat=True)[:most]
    )  # fmt: skip
    found = list(rows.filter(series__in=meant).order_by("-onset_at")[:most]) if meant else []
    return Group("Newest anomalies", "anomalies", [_anomaly(row) for row in found])


def _anomaly(row: Anomaly) -> Hit:
    severity, at = Severity(row.severity).label, timezone.localtime(row.onset_at)
    return Hit(
        reverse("anomaly", args=[row.pk]), f"{row.metric} on {row.source}",
        f"{severity}, {at.day} {at:%b %H:%M}", row.severity,
    )  # fmt: skip


def _series(query: Asked, user: Person, most: int) -> Group:
    rows = Series.objects.filter(query.within("source", "metric")).select_related("stream")
    found = [
        Hit(reverse("series", args=[row.pk]), f"{row.metric} on {row.source}", row.stream.name)
        for row in rows.order_by("source", "metric", "pk")[:most]
    ]
    return Group("Series", "series", found)


def _sources(query: Asked, user: Person, most: int) -> Group:
    return _names("Sources", "source", query, most)


def _metrics(query: Asked, user: Person, most: int) -> Group:
    return _names("Metrics", "metric", query, most)


def _names(name: str, column: str, query: Asked, most: int) -> Group:
    rows = (
        Series.objects.filter(query.within(column)).order_by().values_list(column)
        .annotate(n=Count("pk")).order_by(column)[:most]
    )  # fmt: skip
    return Group(name, "series", [
        Hit(f"{reverse('series-list')}?{urlencode({column: text})}", text,
            f"{n:,} series") for text, n in rows
    ])  # fmt: skip


def _streams(query: Asked, user: Person, most: int) -> Group:
    rows = Stream.objects.filter(query.within("name", "topic")).order_by("name")[:most]
    return Group("Streams", "streams", [
        Hit(f"{reverse('anomalies')}?{urlencode({'stream': row.name})}", row.name,
            f"its anomalies · topic {row.topic}") for row in rows
    ])  # fmt: skip


def _rules(query: Asked, user: Person, most: int) -> Group:
    rows = Rule.objects.filter(query.within("name")).order_by("name")[:most]
    return Group("Alert rules", "bell", [
        Hit(reverse("rule", args=[row.pk]), row.name, "" if row.enabled else "switched off")
        for row in rows
    ])  # fmt: skip


def _receivers(query: Asked, user: Person, most: int) -> Group:
    rows = Receiver.objects.filter(query.within("name", "kind")).order_by("name")[:most]
    return Group("Receivers", "bell", [
        Hit(reverse("receiver", args=[row.pk]), row.name, row.get_kind_display()) for row in rows
    ])  # fmt: skip


def _models(query: Asked, user: Person, most: int) -> Group:
    rows = ModelVersion.objects.select_related("stream").defer("artefact", "manifest")
    wanted = query.within("algorithm", "metric", "stream__name", "state")
    if _HEX.match(query.text):
        wanted |= Q(sha256__startswith=query.text)
    return Group("Models", "models", [
        Hit(reverse("model", args=[row.pk]),
            f"{row.algorithm.replace('_', ' ').capitalize()} v{row.version}",
            f"{row.state} · {row.stream.name}{f' · {row.metric}' if row.metric else ''}")
        for row in rows.filter(wanted).order_by("-pk")[:most]
    ])  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Page:
    """A page by its address' name; ``words`` are what else it is looked for by."""

    url: str
    name: str
    words: str = ""
    operators: bool = False


PAGES = (
    _Page("overview", "Overview", "home start live feed lanes health"),
    _Page("anomalies", "Anomalies", "list filter export views"),
    _Page("incidents", "Incidents"),
    _Page("series-list", "Series", "sources metrics"),
    _Page("streams", "Streams", "topics kafka lag partitions dead letters"),
    _Page("models", "Models", "champion challenger training drift"),
    _Page("training-runs", "Training runs", "models jobs"),
    _Page("models-live", "Models that were live", "history when"),
    _Page("studies", "Tuning studies", "models hyperparameters"),
    _Page("weights", "Detector weights", "ensemble votes learnt"),
    _Page("rules", "Alert rules", "alerts notifications"),
    _Page("receivers", "Receivers", "alerts slack mail webhook pagerduty teams telegram"),
    _Page("silences", "Silences", "alerts maintenance mute"),
    _Page("deliveries", "Deliveries", "alerts sent notifications attempts"),
    _Page("feedback", "Feedback", "labels precision detectors"),
    _Page("audit", "Audit", "who changed what before after revert"),
    _Page("setup", "Teams, hours and tags", "alerts setup holidays budget"),
    _Page("inbound", "Alertmanager sources", "alerts inbound token prometheus"),
    _Page("system", "System", "components health effective settings performance versions"),
    _Page("why-none", "Why are there no anomalies?", "missing nothing quiet check stages"),
    _Page("your-settings", "Your settings", "time zone theme shortcuts keys profile"),
    _Page("admin:index", "Administration", "admin users thresholds policies schedule",
          operators=True),
)  # fmt: skip


def _pages(query: Asked, user: Person, most: int) -> Group:
    found = [
        page for page in PAGES
        if (not page.operators or may_operate(user))
        and all(word in f"{page.name} {page.words}".lower() for word in query.words)
    ]  # fmt: skip
    # Those that are called so come before those that are about it.
    found.sort(key=lambda page: query.words[0] not in page.name.lower())
    return Group("Pages", "overview", [Hit(reverse(p.url), p.name) for p in found[:most]])


FINDERS: tuple[Callable[[Asked, Person, int], Group], ...] = (
    _pages, _incidents, _series, _anomalies, _sources, _metrics, _rules, _receivers, _models,
    _streams,
)  # fmt: skip


def _any_of(columns: tuple[str, ...], word: str) -> Q:
    found = Q()
    for column in columns:
        found |= Q(**{f"{column}__icontains": word})
    return found
