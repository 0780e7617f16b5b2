"""Streams: partitions with their offsets, lag and rates, throughput, and dead letters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.decorators import login_required
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from streams.history import throughput
from streams.models import ConsumerStatus, DeadLetter, PartitionOffset, Series, Stream
from streams.ranges import NAMED, named_range
from streams.roles import may_operate, operator_required

ALIVE = timedelta(seconds=15)
LETTERS = 50
PREVIEW = 2_048


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """One partition: PostgreSQL's offset, and what its consumer last said."""

    topic: str
    number: int
    next_offset: int
    events: int
    rejects: int
    watermark: datetime | None
    updated_at: datetime
    owner: str
    lag: int | None
    events_per_s: float | None
    lag_share: float


@login_required
@require_GET
def stream_list(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    name = request.GET.get("range", "1h")
    span = named_range(name if name in NAMED and name != "all" else "1h", now, default="1h")
    work = throughput(span)
    rows = _partitions(now)
    seen = ConsumerStatus.objects.filter(beat_at__gte=now - timedelta(hours=1))
    consumers = list(seen.order_by("instance"))
    reason = request.GET.get("reason", "")
    context: dict[str, Any] = {
        "streams": Stream.objects.annotate(n=Count("series")), "partitions": rows, "span": span,
        "consumers": consumers,
        "alive_since": now - ALIVE, "work": work,
        "rate": sum(c.events_per_s for c in consumers if c.beat_at >= now - ALIVE),
        "rated": any(row.events_per_s is not None for row in rows),
        "lag": sum(row.lag or 0 for row in rows),
        "chart": {"t": work.t, "events": work.rates, "lag": work.lag,
                  "step_s": work.step_s},
        "ranges": [(key, words) for key, (words, _) in NAMED.items() if key != "all"],
        "twice": Series.objects.filter(other_partition__isnull=False).order_by("source")[:5],
    } | _letters(reason, request.GET.get("before", ""))  # fmt: skip
    # htmx' own header: this app's page has one fragment, the list of dead letters.
    if request.headers.get("HX-Target") == "letters":
        return render(request, "streams/_partials/letters.html", context)
    return render(request, "streams/stream_list.html", context)


@login_required
@require_GET
def dead_letter(request: HttpRequest, pk: int) -> HttpResponse:
    """One dead letter with its bytes, as text and as hexadecimal digits."""
    letter = get_object_or_404(DeadLetter.objects.select_related("incarnation__stream"), pk=pk)
    raw = bytes(letter.raw) if letter.raw is not None else None
    context = {
        "letter": letter, "key": _text(bytes(letter.key)) if letter.key is not None else None,
        "text": _text(raw[:PREVIEW]) if raw is not None else None,
        "hex": hex_dump(raw[:512]) if raw is not None else None,
        "cut": raw is not None and len(raw) > PREVIEW, "preview": PREVIEW,
        "operator": may_operate(request.user),
    }  # fmt: skip
    return render(request, "streams/dead_letter.html", context)


@require_POST
@operator_required
def dismiss(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Put a waiting dead letter aside; it stays stored until its retention ends."""
    DeadLetter.objects.filter(pk=pk, state=DeadLetter.State.WAITING).update(
        state=DeadLetter.State.DISMISSED
    )
    return redirect("streams")


def hex_dump(raw: bytes) -> str:
    r"""Offset, sixteen bytes, and their ASCII.

    >>> hex_dump(b"{\x00}").split()
    ['0000', '7b', '00', '7d', '{.}']
    """
    lines = []
    for at in range(0, len(raw), 16):
        part = raw[at : at + 16]
        shown = "".join(chr(b) if 32 <= b < 127 else "." for b in part)
        lines.append(f"{at:04x}  {part.hex(' '):<47}  {shown}")
    return "\n".join(lines)


def _text(raw: bytes) -> str:
    text = raw.decode("utf-8", errors="replace")
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _letters(reason: str, before: str) -> dict[str, Any]:
    waiting = DeadLetter.objects.filter(state=DeadLetter.State.WAITING)
    reasons = list(
        waiting.order_by().values_list("reason").annotate(n=Count("id")).order_by("-n")[:30]
    )
    found = waiting.select_related("incarnation__stream").defer("raw", "key")
    if reason and "\x00" not in reason:
        found = found.filter(reason=reason)
    if before.isascii() and before.isdigit() and len(before) < 18:
        found = found.filter(pk__lt=int(before))
    rows = list(found.order_by("-pk")[: LETTERS + 1])
    return {
        "letters": rows[:LETTERS], "waiting": sum(n for _, n in reasons), "reasons": reasons,
        "reason": reason, "older": rows[LETTERS - 1].pk if len(rows) > LETTERS else None,
    }  # fmt: skip


def _partitions(now: datetime) -> list[PartitionRow]:
    said: dict[tuple[str, int], tuple[str, dict[str, Any]]] = {}
    for status in ConsumerStatus.objects.filter(beat_at__gte=now - ALIVE).filter(
        ~Q(state="stopped")
    ):
        for part in status.partitions or []:
            said[part.get("topic", ""), part.get("partition", -1)] = (status.instance, part)
    newest: dict[tuple[str, int], PartitionOffset] = {}
    offsets = PartitionOffset.objects.select_related("incarnation__stream").order_by("incarnation")
    for offset in offsets:
        # Of a topic made anew only its present life counts.
        newest[offset.incarnation.stream.topic, offset.partition] = offset
    rows = []
    for (topic, number), offset in sorted(newest.items()):
        owner, part = said.get((topic, number), ("", {}))
        end = part.get("end_offset")
        lag = max(0, end - part.get("next_offset", offset.next_offset)) if end is not None else None
        rows.append((topic, number, offset, owner, lag, part.get("events_per_s")))
    most = max((row[4] or 0 for row in rows), default=0) or 1
    return [
        PartitionRow(topic, number, o.next_offset, o.events, o.rejects, o.watermark, o.updated_at,
                     owner, lag, rate, (lag or 0) / max(most, 10))
        for topic, number, o, owner, lag, rate in rows
    ]  # fmt: skip
