"""Swim lanes as HTML: six hundred cells a page, so they are put together here and not by loops in
a template, which took ten times as long."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import urlencode

from django import template
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from anomalies.forms import FilterForm
from anomalies.lanes import MANUAL, Cell, Lane, Lanes
from anomalies.models import Severity
from anomalies.templatetags.vigil import score

register = template.Library()
WORDS = {int(level): str(level.label) for level in Severity}
STATES = {"silent": "silent", "warming": "warming up"}


@register.simple_tag
def lane_cells(found: Lanes, lane: Lane, by: str, form: FilterForm) -> SafeString:
    """A lane's cells: a link where there are anomalies, each with a sentence."""
    whole = lane is found.total
    narrowed = {name: getattr(form, name) for name in ("stream", "severity", "label")}
    query = {name: value for name, value in narrowed.items() if value}
    if not whole and not (by == "stream" and lane.name == MANUAL):
        query[by] = lane.name
    list_url = f"{reverse('anomalies')}?"
    now = found.total.cells[-1].end
    who = "" if whole else f"{escape(lane.name)}, "
    made = []
    for cell in lane.cells:
        lesser = " lesser" if cell.lesser else ""
        place = f"{who}{_moment(cell.start)} to {'now' if cell.end == now else _clock(cell)}"
        if cell.count:
            span = {"start": cell.start.isoformat(), "end": cell.end.isoformat()}
            several = "anomalies" if cell.count > 1 else "anomaly"
            made.append(
                f'<a class="cell s{cell.severity}{lesser}" role="gridcell" tabindex="-1"'
                f' href="{escape(list_url + urlencode(span | query))}" aria-label="{place}:'
                f" {cell.count:,} {several}, worst {WORDS[cell.severity]} {score(cell.score)}"
                '"></a>'
            )
        else:
            state = f" {cell.state}" if cell.state else ""
            said = STATES.get(cell.state, "none")
            made.append(
                f'<i class="cell{lesser}{state}" role="gridcell" tabindex="-1"'
                f' aria-label="{place}: {said}"></i>'
            )
    return mark_safe("".join(made))  # noqa: S308  (escaped above)


@register.filter
def axis(at: datetime, bucket_s: float) -> str:
    """A mark below the lanes: the clock, with the day where one begins, or the day alone."""
    local = timezone.localtime(at)
    if bucket_s >= 7_000:
        return f"{local:%-d %b}"
    return f"{local:%a %H:%M}" if local.hour < 4 and bucket_s >= 900 else f"{local:%H:%M}"


def _moment(at: datetime) -> str:
    return f"{timezone.localtime(at):%-d %b %H:%M}"


def _clock(cell: Cell) -> str:
    start, end = timezone.localtime(cell.start), timezone.localtime(cell.end)
    return f"{end:%H:%M}" if start.date() == end.date() else _moment(cell.end)
