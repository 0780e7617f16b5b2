"""Streams: whether each is read, its partitions with rates, lag and retention, its mapping."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.decorators import login_required
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_GET

from streams.letters import STAGES, Filter, page_of
from streams.models import ConsumerStatus, DeadLetter, Series, Stream
from streams.pace import paces
from streams.partitions import ALIVE, consumers, look, rows_of, state_of, stored_offsets
from streams.ranges import NAMED, Range, named_range
from streams.roles import may_operate

# A field of an event, what it is read from without a mapping, and what it has to hold.
FIELDS = (
    ("source", "who measured: text"),
    ("metric", "what was measured: text"),
    ("value", "a number"),
    ("values", "several numbers by name, in place of metric and value"),
    ("timestamp", "ISO 8601, or an epoch number of s, ms, µs or ns"),
)


@login_required
@require_GET
def stream_list(request: HttpRequest) -> HttpResponse:
    """All streams; where there is one, that one."""
    streams = list(Stream.objects.annotate(n=Count("series")))
    if len(streams) == 1:
        return _page(request, streams[0], alone=True)
    if _wants_letters(request):
        return render(request, "streams/_partials/letters.html", _letters(request, ""))
    now = timezone.now()
    stored, who = stored_offsets(), consumers(now)
    broker = look([s.topic for s in streams], stored, now)
    waiting = dict(
        DeadLetter.objects.filter(state=DeadLetter.State.WAITING)
        .values_list("incarnation__stream").annotate(n=Count("id")).order_by()
    )  # fmt: skip
    span = _span(request, now)
    every = paces([s.topic for s in streams], span)
    listed = []
    for stream in streams:
        found = every[stream.topic]
        rows = rows_of(stream.topic, stored.get(stream.topic, {}), broker, who, found, now)
        listed.append({
            "stream": stream, "state": state_of(stream, broker, rows, who), "partitions": len(rows),
            "lag": sum(row.lag or 0 for row in rows), "spark": found.whole.read,
            "read": sum(row.read or 0 for row in rows), "waiting": waiting.get(stream.pk, 0),
        })  # fmt: skip
    context = {
        "listed": listed, "span": span, "ranges": _ranges(), "broker": broker,
        "consumers": _seen(now), "alive_since": now - ALIVE,
    } | _letters(request, "")  # fmt: skip
    return render(request, "streams/stream_list.html", context)


@login_required
@require_GET
def stream_detail(request: HttpRequest, name: str) -> HttpResponse:
    stream = get_object_or_404(Stream.objects.annotate(n=Count("series")), name=name)
    return _page(request, stream, alone=False)


def _page(request: HttpRequest, stream: Stream, *, alone: bool) -> HttpResponse:
    if _wants_letters(request):
        return render(request, "streams/_partials/letters.html", _letters(request, stream.name))
    now = timezone.now()
    span = _span(request, now)
    found = paces([stream.topic], span)[stream.topic]
    stored, who = stored_offsets(), consumers(now)
    broker = look([stream.topic], stored, now)
    rows = rows_of(stream.topic, stored.get(stream.topic, {}), broker, who, found, now)
    behind = [row.behind_s for row in rows if row.behind_s is not None]
    readers = {row.owner for row in rows if row.owner}
    seen = [c for c in _seen(now) if c.instance in readers or any(
        part.get("topic") == stream.topic for part in c.partitions or [])]  # fmt: skip
    p95 = [c.latency_p95_ms for c in seen if c.instance in readers and c.latency_p95_ms is not None]
    context: dict[str, Any] = {
        "stream": stream, "alone": alone, "state": state_of(stream, broker, rows, who),
        "broker": broker, "about": broker.topics.get(stream.topic), "partitions": rows,
        "span": span, "ranges": _ranges(), "consumers": seen, "alive_since": now - ALIVE,
        "read": sum(row.read or 0 for row in rows),
        "arrived": sum(row.arrived or 0 for row in rows),
        "lag": sum(row.lag or 0 for row in rows), "behind": max(behind, default=None),
        "p95": max(p95, default=None),
        "chart": {"t": found.t, "step_s": found.step_s, "events": found.whole.read,
                  "arrived": found.whole.arrived, "lag": found.whole.lag},
        "drawn": any(n is not None for n in found.whole.lag),
        "fields": [(field, stream.mapping.get(field), what) for field, what in FIELDS],
        "twice": Series.objects.filter(stream=stream, other_partition__isnull=False)
                 .order_by("source")[:5],
    } | _letters(request, stream.name)  # fmt: skip
    return render(request, "streams/stream_detail.html", context)


def _letters(request: HttpRequest, stream: str) -> dict[str, Any]:
    asked = Filter.of(request.GET, stream)
    return {
        "letters": page_of(asked, request.GET.get("before", "")), "asked": asked,
        "stages": list(STAGES), "states": DeadLetter.State.choices,
        "operator": may_operate(request.user), "of_stream": stream,
    }  # fmt: skip


def _wants_letters(request: HttpRequest) -> bool:
    # htmx' own header: these pages have one fragment, the list of dead letters.
    return request.headers.get("HX-Target") == "letters"


def _span(request: HttpRequest, now: datetime) -> Range:
    name = request.GET.get("range", "1h")
    return named_range(name if name in NAMED and name != "all" else "1h", now, default="1h")


def _ranges() -> list[tuple[str, str]]:
    return [(key, words) for key, (words, _) in NAMED.items() if key != "all"]


def _seen(now: datetime) -> list[ConsumerStatus]:
    since = now - timedelta(hours=1)
    return list(ConsumerStatus.objects.filter(beat_at__gte=since).order_by("instance"))
