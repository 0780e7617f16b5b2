"""How long pages take in the server, how many queries they ask and what they weigh: those named
here, and every other page that the URL configuration has without parameters.

Requests go through Django's whole stack in this process, one after the other, on a database that
``manage.py seed_demo`` has filled; no network, no browser.
"""

from __future__ import annotations

import gzip
import re
import time
import uuid
from dataclasses import dataclass
from statistics import median

from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver

from anomalies.models import Anomaly
from streams.models import Series

WARM = 2
# Parameters, the admin's pages, calls, and downloads of everything.
NO_PAGE = re.compile(
    r"[<(\\?]|^(admin|api|login|logout|metrics|theme|components|seen|$)|export|diagnostics"
)
CONTROL = ("BEGIN", "COMMIT", "SET ", "SAVEPOINT", "RELEASE")


@dataclass(frozen=True, slots=True)
class PageTime:
    """One page: ms of p50 and p95, queries and kB over the wire (gzip)."""

    path: str
    p50_ms: float
    p95_ms: float
    queries: int
    kb: float


class WebError(Exception):
    """A page did not answer 200, or there is nothing to look at."""


def paths(stream: str) -> list[str]:
    """The pages and calls that people keep open, on what the stream has."""
    series = Series.objects.filter(stream__name=stream).order_by("source", "metric").first()
    anomaly = Anomaly.objects.filter(stream__name=stream).order_by("-onset_at").first()
    if series is None or anomaly is None:
        raise WebError(f"stream {stream} has no anomalies: run manage.py seed_demo first")
    lanes = [f"/?range={span}" for span in ("1h", "24h", "7d", "30d")]
    lists = [
        "/anomalies/",
        "/anomalies/?severity=3&range=7d",
        f"/anomalies/?source={series.source}",
    ]
    return [
        *lanes, *lists, f"/anomalies/{anomaly.pk}/", "/series/", "/series/?source=host-0012",
        f"/series/{series.pk}/", f"/series/{series.pk}/?window=30d", "/streams/", "/models/",
        "/feedback/",
        "/api/anomalies?limit=100", "/api/statistics",
    ]  # fmt: skip


def plain_pages() -> list[str]:
    """Every address without parameters that a person may open, out of the URL configuration."""
    found = []
    for entry in get_resolver().url_patterns:
        if isinstance(entry, URLResolver) and str(entry.pattern):
            continue
        for one in entry.url_patterns if isinstance(entry, URLResolver) else [entry]:
            route = str(one.pattern)
            if isinstance(one, URLPattern) and not NO_PAGE.search(route):
                found.append(f"/{route}")
    return found


def measure(stream: str, requests: int) -> list[PageTime]:
    """Each page ``requests`` times, signed in as a user of its own that goes afterwards.

    Raises:
        WebError: a page answered something else than 200.
    """
    users = get_user_model()
    user = users.objects.create_user(f"benchmark-{uuid.uuid4().hex[:8]}", is_staff=True)
    try:
        client = Client(HTTP_HOST="localhost", HTTP_X_FORWARDED_PROTO="https")
        client.force_login(user)
        named = paths(stream)
        rest = [path for path in plain_pages() if path not in named and _is_page(client, path)]
        return [_one(client, path, requests) for path in (*named, *rest)]
    finally:
        user.delete()


def _is_page(client: Client, path: str) -> bool:
    """What only takes POST or leads elsewhere is none."""
    answer = client.get(path, secure=True)
    return answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/html")


def _one(client: Client, path: str, requests: int) -> PageTime:
    with CaptureQueriesContext(connection) as asked:
        response = client.get(path, secure=True)
    # Now, since later requests empty the log; BEGIN and the like ask nothing.
    queries = sum(not q["sql"].startswith(CONTROL) for q in asked)
    if response.status_code != 200:
        raise WebError(f"{path} answered {response.status_code}")
    taken = []
    for i in range(requests + WARM):
        began = time.perf_counter()
        client.get(path, secure=True)
        if i >= WARM:
            taken.append(1000 * (time.perf_counter() - began))
    taken.sort()
    p95 = taken[min(len(taken) - 1, round(0.95 * len(taken)))]
    weight = len(gzip.compress(response.content)) / 1000
    return PageTime(path, median(taken), p95, queries, weight)
