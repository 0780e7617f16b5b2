"""Charts that the server draws: scores by threshold, what is usual by hour, the heartbeat.

Places along an axis are percents, so that text keeps its size whatever the width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from anomalies.templatetags.vigil import compact, number, score
from anomalies.what_if import Bar, WhatIf
from streams.beats import Beat, Heartbeat
from streams.season import Profile

register = template.Library()
LEAST = 0.5
HEIGHT = 150.0
MOST_TICKS = 5


@dataclass(frozen=True, slots=True)
class Column:
    """One bar in percents of the width and px of the height, with what it says."""

    x: float
    width: float
    y: float
    height: float
    css: str
    words: str


@register.inclusion_tag("anomalies/_partials/histogram.html")
def histogram(what: WhatIf) -> dict[str, Any]:
    """Scored events by score on a log scale, with the threshold of now and the draft's."""
    most = max((bar.events for bar in what.bars), default=0)
    decades = max(1, math.ceil(math.log10(most))) if most > 1 else 1
    top = decades + 0.35
    columns = [_column(bar, what, top) for bar in what.bars if bar.events]
    ticks = [(HEIGHT * (1 - (i + 0.35) / top), compact(10.0**i)) for i in range(decades + 1)]
    now, draft = what.policy.threshold, what.draft.threshold
    return {
        "columns": columns, "ticks": ticks[:: math.ceil(len(ticks) / MOST_TICKS)],
        "grid": [(_x(v), f"{v:.1f}") for v in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)],
        "now": _x(now), "now_said": score(now), "draft": _x(draft), "draft_said": score(draft),
        "drafted": abs(now - draft) > 1e-9, "left": draft < now, "height": HEIGHT, "what": what,
    }  # fmt: skip


def _column(bar: Bar, what: WhatIf, top: float) -> Column:
    height = HEIGHT * (math.log10(bar.events) + 0.35) / top
    x = _x(bar.low)
    policy, middle = what.policy, bar.low + 1e-9
    if middle >= what.draft.threshold:
        bands = ((policy.critical_from, 4), (policy.high_from, 3), (policy.medium_from, 2))
        css = f"sev-{next((s for least, s in bands if middle >= least), 1)}"
    else:
        css = "gone" if middle >= policy.threshold else "ordinary"
    words = f"{bar.events:,} event{'s' * (bar.events != 1)} from {bar.low:g} to {bar.high:g}"
    return Column(round(x, 2), round(_x(bar.high) - x, 2), round(HEIGHT - height, 1),
                  round(height, 1), css, words)  # fmt: skip


def _x(value: float) -> float:
    return round(100 * (min(max(value, LEAST), 1.0) - LEAST) / (1 - LEAST), 2)


@register.inclusion_tag("anomalies/_partials/profile.html")
def hours(profile: Profile) -> dict[str, Any]:
    """The usual band and middle of each hour, today's course, and where now is."""
    known = [h for h in profile.hours if h.mid is not None]
    today = [v for v in profile.today if v is not None]
    values = [v for h in known for v in (h.low, h.high) if v is not None] + today
    ticks = nice_ticks(min(values, default=0.0), max(values, default=1.0))
    low, high = ticks[0], ticks[-1]

    def y(value: float) -> float:
        return round(100 * (1 - (value - low) / (high - low)), 2)

    upper = [(h.hour + 0.5, h.high) for h in known]
    lower = [(h.hour + 0.5, h.low) for h in known]
    return {
        "band": "".join(_area(run, y) for run in _runs(profile)),
        "mid": _path([(h.hour + 0.5, h.mid) for h in profile.hours], y),
        "today": _path([(i + 0.5, v) for i, v in enumerate(profile.today)], y),
        "dots": [(round((i + 0.5) / 0.24, 2), y(v)) for i, v in enumerate(profile.today)
                 if v is not None and _alone(profile.today, i)],
        "ticks": [(y(v), tick(v)) for v in ticks],
        "hours": [(round(h / 0.24, 2), f"{h:02d}") for h in (0, 4, 8, 12, 16, 20, 24)],
        "now": None if profile.now is None else round(profile.now / 0.24, 2),
        "late": profile.now is not None and profile.now > 20, "profile": profile,
        "any_today": bool(today), "drawn": bool(upper and lower),
    }  # fmt: skip


def _runs(profile: Profile) -> list[list[Any]]:
    """Hours that follow each other; a gap stays a gap."""
    runs: list[list[Any]] = [[]]
    for hour in profile.hours:
        if hour.mid is None:
            runs.append([])
        else:
            runs[-1].append(hour)
    return [run for run in runs if run]


def _area(run: Sequence[Any], y: Any) -> str:
    # One hour alone is as wide as an hour.
    first, last = run[0], run[-1]
    there = [(first.hour, first.high), *((h.hour + 0.5, h.high) for h in run),
             (last.hour + 1, last.high)]  # fmt: skip
    back = [(last.hour + 1, last.low), *((h.hour + 0.5, h.low) for h in reversed(run)),
            (first.hour, first.low)]  # fmt: skip
    return "M" + "L".join(f"{x:g} {y(v)}" for x, v in (*there, *back)) + "Z"


def _path(points: Sequence[tuple[float, float | None]], y: Any) -> str:
    text, drawing = "", False
    for x, value in points:
        if value is None:
            drawing = False
            continue
        text += f"{'L' if drawing else 'M'}{x:g} {y(value)}"
        drawing = True
    return text


def _alone(values: Sequence[float | None], i: int) -> bool:
    before = values[i - 1] if i else None
    after = values[i + 1] if i + 1 < len(values) else None
    return before is None and after is None


@register.simple_tag
def beat(one: Beat) -> SafeString:
    """One interval of the heartbeat strip; its words are in the title and in the table."""
    start = timezone.localtime(one.start)
    silent = ", silent for a part" if one.state == "silent" and one.events else ""
    said = f"{start:%a %-d %b %H:%M}: {one.events:,} event{'s' * (one.events != 1)}{silent}"
    return format_html('<i class="beat {}" title="{}"></i>', one.state, said)


@register.filter
def beats_said(found: Heartbeat) -> str:
    """The strip in a sentence."""
    full = sum(b.state == "full" for b in found.beats)
    silences = len(found.silences)
    return (
        f"{found.events:,} events; {full} of {len(found.beats)} intervals as busy as usual; "
        f"{silences or 'no'} silence{'s' * (silences != 1)}"
    )


@register.filter
def got(found: Mapping[Any, Any], key: Any) -> Any:
    """A mapping's entry, or nothing."""
    return found.get(key, "")


@register.filter
def per(unit: str) -> str:
    """ "/min" in words."""
    return f"per {unit[1:]}" if unit.startswith("/") else f"in {unit}"


@register.filter
def clean(value: float) -> str:
    """A number as a field of a form takes it: 0.875, 0, 1e+12."""
    return f"{value:.12g}"


def tick(value: float) -> str:
    """A tick's words, short also where values are huge: 0.95 T.

    >>> tick(250.0), tick(1.05e12)
    ('250', '1.05 T')
    """
    if 1e9 <= abs(value) < 1e16:
        return f"{number(value / 1e12)} T"
    return number(value) if abs(value) < 1e4 else compact(value)


def nice_ticks(low: float, high: float, most: int = MOST_TICKS) -> list[float]:
    """At most ``most`` round ticks that hold both ends; counts and the like begin at 0.

    >>> nice_ticks(21.0, 184.0)
    [0.0, 50.0, 100.0, 150.0, 200.0]
    """
    if not math.isfinite(low) or not math.isfinite(high):
        return [0.0, 1.0]
    if 0 <= low <= 0.5 * high:
        low = 0.0
    if high - low <= abs(high) * 1e-9:
        room = abs(high) * 0.1 or 1.0
        low, high = low - room, high + room
    step = 10.0 ** math.floor(math.log10((high - low) / (most - 1)))
    for factor in (1, 2, 2.5, 5, 10, 20, 25, 50):
        first = math.floor(low / (step * factor) + 1e-9)
        last = math.ceil(high / (step * factor) - 1e-9)
        if last - first + 1 <= most:
            return [round(i * step * factor, 12) for i in range(first, last + 1)]
    return [low, high]
