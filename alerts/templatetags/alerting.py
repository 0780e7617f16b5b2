"""What the pages of alerts need: selects, errors by field, bars of a preview."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django import template
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from alerts.models import Silence
from alerts.preview import Bar
from alerts.rule_form import duration
from anomalies.models import Severity
from anomalies.templatetags.vigil import mark

register = template.Library()
WIDTH, HEIGHT = 720.0, 150.0
REASONS = {"opened": "opened", "worse": "got worse", "again": "again",
           "still_firing": "still firing",
           "resolved": "over", "escalated": "escalated", "budget": "budget overspent"}  # fmt: skip


@register.simple_tag
def choose(
    name: str, value: str, offered: Sequence[tuple[str, str]], label: str = "", more: str = ""
) -> SafeString:
    """A select; a value that is not offered is offered as it stands."""
    if value not in [v for v, _ in offered]:
        offered = [*offered, (value, value)]
    options = format_html_join(
        "", '<option value="{}"{}>{}</option>',
        ((v, SafeString(" selected") if v == value else "", words) for v, words in offered),
    )  # fmt: skip
    return format_html(
        '<select class="input {}" name="{}" id="f-{}" aria-label="{}" aria-describedby="e-{}">'
        "{}</select>",
        more, name, name, label, name, options,
    )  # fmt: skip


@register.simple_tag
def choose_severity(
    name: str, value: str, offered: Sequence[tuple[str, str]], label: str = "", more: str = ""
) -> SafeString:
    """A select with the chosen severity's mark before it; the style sheet shows the one of four."""
    marks = format_html_join("", "{}", ((mark(severity),) for severity in Severity.values))
    chosen = choose(name, value, offered, label, more)
    return format_html('<span class="sev-pick">{}{}</span>', marks, chosen)


@register.simple_tag
def wrong(errors: Mapping[str, str], name: str, swap: bool = False) -> SafeString:
    """Where a field's mistake stands; empty where it has none."""
    return format_html(
        '<span class="wrong-line" id="e-{}"{} role="alert">{}</span>',
        name, SafeString(' hx-swap-oob="true"') if swap else "", errors.get(name, ""),
    )  # fmt: skip


@register.filter
def lasting(seconds: float) -> str:
    return duration(seconds)


@register.filter
def reason_words(reason: str) -> str:
    return REASONS.get(reason, reason.replace("_", " "))


@register.filter
def lookup(found: Mapping[str, Any], key: str) -> Any:
    return found.get(key)


@register.filter
def stamp(at: datetime) -> str:
    """Mon 23 Nov 09:38, by the user's clock."""
    local = timezone.localtime(at)
    return f"{local:%a} {local.day} {local:%b %H:%M}"


@register.filter
def day(at: datetime) -> str:
    local = timezone.localtime(at)
    return f"{local.day} {local:%b}"


@register.simple_tag
def share_bar(count: int, of: int, css: str = "") -> SafeString:
    """A bar of the funnel, as wide as its share; a sliver where it is not nothing."""
    width = 0.0 if not count else max(1.2, 100 * count / max(of, 1))
    return format_html(
        '<svg class="funnel-bar {}" viewBox="0 0 100 10" preserveAspectRatio="none"'
        ' aria-hidden="true"><rect width="{}" height="10"></rect></svg>',
        css, f"{width:.1f}",
    )  # fmt: skip


@register.inclusion_tag("alerts/_bars.html")
def preview_bars(bars: Sequence[Bar], step_s: int) -> dict[str, Any]:
    """The chart of a preview: stacked bars with a day's names under them."""
    most = max((bar.total for bar in bars), default=0)
    top = _round_up(most)
    each = WIDTH / max(1, len(bars))
    drawn, marks = [], []
    for i, bar in enumerate(bars):
        x, y = i * each, HEIGHT
        parts = []
        for css, count in (("sent", bar.sent), ("quiet", bar.silenced), ("held", bar.held)):
            if count:
                height = max(2.0, HEIGHT * count / top)
                y -= height
                parts.append((css, f"{x + each * 0.1:.1f}", f"{y:.1f}", f"{each * 0.8:.1f}",
                              f"{height:.1f}"))  # fmt: skip
        drawn.append((bar, parts, f"{x:.1f}", f"{each:.1f}"))
        at = timezone.localtime(bar.start)
        if step_s >= 86_400:
            wanted = i % 5 == 2
        elif step_s < 14_400:
            wanted = at.hour % 4 == 0 and at.minute * 60 < step_s and i > 0
        else:
            wanted = at.hour == 12
        if wanted and i < len(bars) - 1:
            text = f"{at:%H:%M}" if step_s < 14_400 else f"{at:%a} {at.day} {at:%b}"
            marks.append((f"{x + each / 2:.1f}", text))
    return {
        "bars": drawn, "marks": marks, "top": top, "half": top // 2 if top % 2 == 0 else None,
        "per": duration(step_s).replace("h", "hours").replace("min", "minutes").replace(
            "1 d", "day"), "most": most,
    }  # fmt: skip


def _round_up(most: int) -> int:
    size = 1
    while True:
        for step in (2, 4, 10):
            if most <= step * size:
                return step * size
        size *= 10


@register.simple_tag
def step_error(errors: Mapping[str, str], number: int) -> str:
    return errors.get(f"send.{number}", "")


@register.simple_tag
def is_new(said: Any, new: Collection[str]) -> SafeString:
    if f"{said.key}{said.number}" in new:
        return SafeString(' <span class="tag accent">new</span>')
    return SafeString("")


@register.simple_tag
def silence_words(silence: Silence) -> str:
    """Sun 02:00–05:00 Europe/Berlin, weekly."""
    zone = ZoneInfo(silence.time_zone)
    start, end = silence.starts_at.astimezone(zone), silence.ends_at.astimezone(zone)
    how = re.search(r"FREQ=(\w+)", silence.recurrence or "")
    if how is None:
        return f"{start:%a} {start.day} {start:%b %H:%M} to {end:%a} {end.day} {end:%b %H:%M}"
    days = re.search(r"BYDAY=([A-Z,0-9+-]+)", silence.recurrence)
    name = ", ".join(_day(d) for d in days[1].split(",")) if days else f"{start:%a}"
    if how[1] == "DAILY" and not days:
        name = ""
    often = {"DAILY": "daily", "WEEKLY": "weekly", "MONTHLY": "monthly", "YEARLY": "yearly"}
    return f"{name} {start:%H:%M}–{end:%H:%M} {silence.time_zone}, {often.get(how[1], '')}".strip()


def _day(code: str) -> str:
    names = {"MO": "Mon", "TU": "Tue", "WE": "Wed", "TH": "Thu", "FR": "Fri", "SA": "Sat",
             "SU": "Sun"}  # fmt: skip
    return f"{code[:-2]}{names.get(code[-2:], code[-2:])}"
