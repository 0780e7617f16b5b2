"""What templates need: numbers and times as people read them, icons, sparklines, the frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django import template
from django.conf import settings
from django.templatetags.static import static
from django.utils import dateformat, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from anomalies import missing, queries
from anomalies.models import Anomaly, AnomalyType, Severity
from streams.version import VERSION
from streams.zones import absolute, zone_name

register = template.Library()
# From where on, what it is divided by, and its letter.
SI = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))
TYPE_NAMES = dict(AnomalyType.choices)
REASONS = {
    "empty": "Empty message", "size": "Too large", "encoding": "Not UTF-8", "json": "Not JSON",
    "schema": "Field missing or wrong", "name": "Name not allowed", "timestamp": "No valid time",
}  # fmt: skip


@register.filter
def weight(value: float) -> str:
    """A detector's weight: 1/8 as 0.125, 0.3546 as 0.355."""
    return f"{value:.3g}"


COMBINED = {
    "max": "the largest of weight × oddness", "weighted": "the mean by weight",
    "mean": "the plain mean", "vote": "what the majority by weight reaches",
}  # fmt: skip


@register.filter
def combined(method: str) -> str:
    """How an ensemble makes one out of many, in words."""
    return COMBINED.get(method, method)


@register.filter
def number(value: float | None) -> str:
    """Four digits that matter, thousands apart: 1,284 and 0.02413; nothing for nothing."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 1e9 or (size and size < 1e-4):
        return f"{value:.3g}"
    digits = 0 if size >= 1_000 or not size else max(0, 3 - math.floor(math.log10(size)))
    text = f"{value:,.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


@register.filter
def compact(value: float | None) -> str:
    """35.6 M, 2,140, 0.6."""
    if value is None:
        return "–"
    for least, size, letter in SI:
        if abs(value) >= least:
            shown = value / size
            return f"{shown:.1f} {letter}" if shown < 100 else f"{shown:.0f} {letter}"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


@register.filter
def score(value: float | None) -> str:
    """Two decimals, cut and not rounded, so that a score never reads as of a higher severity."""
    if value is None:
        return "–"
    return "1.00" if value >= 1 else f"{min(math.floor(value * 100 + 1e-6), 99) / 100:.2f}"


@register.filter
def whole(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


@register.filter
def signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


@register.filter
def percent(share: float) -> str:
    """Whole percents, never up to 100."""
    return f"{math.floor(100 * share + 1e-9)} %"


@register.filter
def minus(text: str) -> str:
    return text.replace("-", "−")


@register.filter
def named(names: Mapping[str, str], key: str) -> str:
    """A name for people, or the key in words."""
    return names.get(key, key.replace("_", " "))


@register.filter
def ago(at: datetime | None) -> str:
    if at is None:
        return "never"
    seconds = (timezone.now() - at).total_seconds()
    return "now" if abs(seconds) < 5 else duration(seconds)


@register.filter
def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 0:
        return f"in {duration(-seconds)}"
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3_600:
        return f"{seconds / 60:.0f} min"
    if seconds < 86_400:
        hours, minutes = divmod(int(seconds // 60), 60)
        return f"{hours} h {minutes:02d} m" if minutes else f"{hours} h"
    if seconds < 400 * 86_400:
        return f"{seconds / 86_400:.0f} d"
    return f"{seconds / 31_557_600:.1f} y"


@register.filter
def type_name(kind: str) -> str:
    """A manual report's own type is shown as it came."""
    return TYPE_NAMES.get(kind, kind)


@register.filter
def reason_name(reason: str) -> str:
    """A dead letter's reason in words; one that is not known stays as it came."""
    return REASONS.get(reason, reason.replace("_", " ").capitalize())


@register.filter
def at(found: Mapping[Any, Any], key: Any) -> Any:
    """A mapping's entry, or an empty list."""
    return found.get(key, [])


@register.filter
def words(name: str) -> str:
    return name.replace("_", " ")


@register.filter
def short_hash(sha256: str) -> str:
    return f"{sha256[:8]}…{sha256[-6:]}" if len(sha256) > 16 else sha256


@register.filter
def severity_word(severity: int) -> str:
    return str(Severity(severity).label).capitalize()


@register.filter
def worst(anomaly: Anomaly) -> float | None:
    return anomaly.score if anomaly.peak_score is None else anomaly.peak_score


@register.filter
def expected(anomaly: Anomaly) -> str:
    if anomaly.expected_low is None or anomaly.expected_high is None:
        return ""
    return f"{number(anomaly.expected_low)} to {number(anomaly.expected_high)}"


@register.filter
def feed_line(anomaly: Anomaly) -> str:
    """ "Level shift. 1,284, expected 181 to 312"; live rows say the same (live.js)."""
    text = f"{type_name(anomaly.anomaly_type)}."
    if anomaly.value is not None:
        text += f" {number(anomaly.value)}"
        if band := expected(anomaly):
            text += f", expected {band}"
    if anomaly.kind == "missing":
        text += f" Silent for {duration(missing.lasted_s(anomaly, timezone.now()))}"
        text += ", now back" if anomaly.state == Anomaly.State.CLOSED else ""
    return text


@register.simple_tag
def icon(name: str, more: str = "") -> SafeString:
    return format_html(
        '<svg class="icon {}" aria-hidden="true"><use href="{}#{}"></use></svg>',
        more, static("img/icons.svg"), name,
    )  # fmt: skip


@register.simple_tag
def mark(severity: int, more: str = "") -> SafeString:
    """The severity's shape; say the word or the score beside it."""
    return format_html(
        '<svg class="mark sev-{0} {2}" aria-hidden="true"><use href="{1}#sev-{0}"></use></svg>',
        severity, static("img/icons.svg"), more,
    )  # fmt: skip


@register.simple_tag
def when(at: datetime | None) -> SafeString:
    """Relative, absolute on hover and focus; page.js keeps it true."""
    return _time(at, "", ago(at))


@register.simple_tag
def since(at: datetime | None) -> SafeString:
    """The same within a sentence: "5 min ago", "now", "in 3 min", "never"."""
    text = ago(at)
    return _time(at, mark_safe(" data-ago"), f"{text} ago" if text[0].isdigit() else text)


def _time(at: datetime | None, more: str, text: str) -> SafeString:
    if at is None:
        return format_html("<span>{}</span>", text)
    return format_html(
        '<time datetime="{}" title="{}"{}>{}</time>', at.isoformat(), absolute(at), more, text
    )


@register.filter
def zoned(at: datetime | None, shape: str) -> str:
    """Django's `date` with the zone behind it: 1 Dec 2026, 13:05 CET."""
    if at is None:
        return "–"
    local = timezone.localtime(at)
    return f"{dateformat.format(local, shape)} {local.tzname()}"


@register.simple_tag
def version() -> str:
    """Vigil's own."""
    return VERSION


@register.simple_tag
def zone() -> str:
    """The short name of the present user's time zone."""
    return zone_name()


@register.simple_tag
def spark(values: Sequence[float | None], css: str = "spark") -> SafeString:
    """A line of equal steps with its area; nothing where there is too little to draw."""
    known = [v for v in values if v is not None]
    if len(known) < 2:
        return mark_safe("")
    low, high = min(known), max(known)
    if css == "spark":
        low = min(0.0, low)
    spread = (high - low) or 1.0
    points = [
        f"{i * 100 / (len(values) - 1):.1f} {29 - 27 * (v - low) / spread:.1f}"
        for i, v in enumerate(values)
        if v is not None
    ]
    path = "M" + "L".join(points)
    start, end = points[0].split()[0], points[-1].split()[0]
    return format_html(
        '<svg class="{}" viewBox="0 0 100 30" preserveAspectRatio="none" aria-hidden="true">'
        '<path class="fill" d="{}L{} 30L{} 30Z"></path><path d="{}"></path></svg>',
        css, path, end, start, path,
    )  # fmt: skip


@register.simple_tag
def bar(share: float, css: str = "full", tick: float | None = None) -> SafeString:
    """A bar of 0 to 1, with a mark at `tick`."""
    share = max(0.0, min(1.0, share))
    mark_at = (
        format_html(
            '<rect class="tickmark" x="{}" y="-2" width="1" height="12"></rect>',
            round(tick * 100, 1),
        )
        if tick is not None
        else ""
    )
    return format_html(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rail" width="100" height="8" rx="1.5"></rect>'
        '<rect class="{}" width="{}" height="8" rx="1.5"></rect>{}</svg>',
        css, round(share * 100, 1), mark_at,
    )  # fmt: skip


@register.simple_tag(takes_context=True)
def shell(context: template.Context) -> dict[str, Any]:
    """The frame's own facts, the same on each page."""
    section = context["request"].path.split("/")[1]
    counts = queries.shell_counts(context["request"], timezone.now())
    alive, known = counts.consumers.alive, counts.consumers.known
    if not alive:
        state, said = "down", "No consumer is running"
    elif alive < known:
        state, said = "warn", f"{alive} of {known} consumers running"
    else:
        state, said = "ok", f"{alive} consumer{'s' * (alive != 1)} running"
    dashboard = settings.VIGIL.dashboard
    live = "off"
    if dashboard.real_time_updates:
        live = "socket" if dashboard.websocket_enabled else "poll"
    return {
        "urgent": _bounded(counts.urgent), "dead_letters": _bounded(counts.dead_letters),
        "state": state, "said": said, "version": VERSION, "live": live,
        "section": section or "overview",
    }  # fmt: skip


def _bounded(n: int) -> str:
    return "" if not n else ("999+" if n >= queries.COUNT_LIMIT else str(n))
