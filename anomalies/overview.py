"""The first page and its parts. A card that can't be read says so; the rest of the page goes on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.safestring import SafeString
from django.views.decorators.http import require_GET

from anomalies import feed, health, lanes, queries, quiet
from anomalies.cards import card
from anomalies.filters import Filters
from anomalies.forms import FilterForm
from anomalies.htmx import HtmxRequest
from anomalies.kept import kept
from anomalies.models import Anomaly
from streams import history
from streams.models import DeadLetter, Series
from streams.ranges import named_range

FEED_ROWS = 8
SLOWER = {"24h": 2, "7d": 5, "30d": 15, "all": 15}
CARDS = {"strip": "Health", "lanes": "Anomalies", "feed": "Live feed"}


@login_required
@require_GET
def overview(request: HtmxRequest) -> HttpResponse:
    """The whole page, or for htmx one of its parts by the id of what is to be swapped."""
    if not _anything_seen():
        return render(request, "anomalies/first_run.html", _first_run())
    form = FilterForm(request.GET, default_range="24h")
    target = request.htmx.target if request.htmx and not request.htmx.boosted else None
    if target in ("strip", "lanes"):
        part = _strip if target == "strip" else _lanes
        return HttpResponse(part(request, form) + _place(target))
    # The place first: what is stored while the rest is read comes once more, and is known by id.
    context: dict[str, Any] = {"form": form, "now": timezone.now(), "by": _by(request)}
    context |= _feed(request, form)
    context |= {"strip": _strip(request, form), "lanes": _lanes(request, form)}
    page = "_partials/overview.html" if target == "overview" else "overview.html"
    return render(request, f"anomalies/{page}", context)


@login_required
@require_GET
def components(request: HttpRequest) -> HttpResponse:
    """The components card: its checks take a while, so the page fetches it after itself."""
    partial = "ready" if request.GET.get("as") == "ready" else "components"

    def made() -> str:
        parts = health.components()
        context = {"components": parts, "wrong": [p for p in parts if p.state in ("warn", "down")]}
        return render_to_string(f"anomalies/_partials/{partial}.html", context, request)

    return HttpResponse(card("components", "Components", made))


@login_required
@require_GET
def seen(request: HttpRequest) -> HttpResponse:
    """Asked by the first-run page: once there is an event, the browser is sent to the overview."""
    response = HttpResponse(status=204)
    if _anything_seen():
        response["HX-Redirect"] = "/"
    return response


def _anything_seen() -> bool:
    return (
        Series.objects.exists() or queries.events_seen() > 0
        or Anomaly.objects.exists() or DeadLetter.objects.exists()
    )  # fmt: skip


def _first_run() -> dict[str, Any]:
    kafka = settings.VIGIL.kafka
    return {
        "topic": kafka.input_topic, "servers": kafka.bootstrap_servers,
        "demo": settings.VIGIL.demo,
    }  # fmt: skip


# ---- Cards --------------------------------------------------------------------------------------
def _shared(name: str, form: FilterForm, by: str, make: Callable[[], str]) -> SafeString:
    """A card that is the same for all who look with these filters, kept for some seconds."""
    zone = timezone.get_current_timezone_name()
    asked = "&".join((form.range, by, form.stream, form.severity, form.label, zone))
    # Of a month a cell lasts half a day: it may be older than one of an hour.
    slow = SLOWER.get(form.range, 1) if name == "lanes" else 1
    keep_s = settings.VIGIL.dashboard.keep_s * slow
    return card(name, CARDS[name], lambda: kept(f"{name}:{asked}", keep_s, make))


def _place(target: str) -> str:
    """With each strip the place that live.js may resume from later."""
    if target != "strip":
        return ""
    return f'<data id="place" hx-swap-oob="true" value="{feed.token_now().text()}"></data>'


def _strip(request: HttpRequest, form: FilterForm) -> SafeString:
    def made() -> str:
        context = _figures(request, form.range) | {"form": form}
        return render_to_string("anomalies/_partials/strip.html", context)

    return _shared("strip", form, "", made)


def _figures(request: HttpRequest, name: str) -> dict[str, Any]:
    # The pipeline's figures are by the wall clock; event time is what lanes and lists go by.
    now = timezone.now()
    wall = named_range(name, now, whole=(now - timedelta(days=30), now))
    work = history.throughput(wall)
    events, odd, bad = sum(work.events), sum(work.anomalies), sum(work.rejects)
    counts = queries.shell_counts(request, now)
    pulse = counts.consumers
    return {
        "pulse": pulse, "work": work, "events": events, "odd": odd, "bad": bad,
        "odd_per_million": 1e6 * odd / events if events else None,
        "bad_per_million": 1e6 * bad / (events + bad) if events + bad else None,
        "behind_s": pulse.lag / pulse.events_per_s if pulse.events_per_s > 0 else None,
        "odd_rates": [1e6 * a / e if e else 0.0 for a, e in zip(work.anomalies, work.events,
                                                                strict=True)],
        "waiting": counts.dead_letters, "most_counted": queries.COUNT_LIMIT, "wall": wall,
    }  # fmt: skip


def _by(request: HttpRequest) -> str:
    by = request.GET.get("by", "source")
    return by if by in lanes.BY else "source"


def _lanes(request: HttpRequest, form: FilterForm) -> SafeString:
    by = _by(request)

    def made() -> str:
        now = timezone.now()
        span = named_range(form.range, now, whole=_whole(form.range))
        severity = int(form.severity) if form.severity else None
        found = lanes.lanes(span, lanes.Wanted(by, form.stream, severity, form.label))
        marks = [found.total.cells[i].start for i in range(0, lanes.CELLS, 8)]
        context = {
            "lanes": found, "by": by, "marks": marks, "form": form, "span": span,
            "by_choices": [(choice, _query(form, choice)) for choice in lanes.BY],
            "all_time": _query(form, by, "all"),
        }  # fmt: skip
        return render_to_string("anomalies/_partials/lanes.html", context)

    return _shared("lanes", form, by, made)


def _query(form: FilterForm, by: str, range_name: str = "") -> str:
    """The page's query with another group or range."""
    query = form.query.copy()
    for name in list(query):
        if name not in ("range", "by", "stream", "severity", "label"):
            del query[name]
    query["by"] = by
    if range_name:
        query["range"] = range_name
    return query.urlencode()


def _whole(name: str) -> Any:
    return queries.whole_span() if name == "all" else None


def _feed(request: HttpRequest, form: FilterForm) -> dict[str, Any]:
    found: dict[str, Any] = {"token": feed.token_now().text()}

    def made() -> str:
        filters = Filters(
            stream=form.stream, label=form.label,
            severity=int(form.severity) if form.severity else None,
        )  # fmt: skip
        context = found | {
            "form": form, "feed": feed.newest(filters, FEED_ROWS), "size": FEED_ROWS,
            "quiet": quiet.totals(),
        }  # fmt: skip
        return render_to_string("anomalies/_partials/feed.html", context)

    return found | {"feed": card("feed", CARDS["feed"], made)}
