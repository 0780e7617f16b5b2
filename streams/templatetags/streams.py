"""What the pages of streams need: stages of letters, tints of lag, commands inside sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from streams.letters import stage_of
from streams.partitions import Row

register = template.Library()
CODE = re.compile(r"`([^`]+)`")


@register.filter
def stage(reason: str) -> str:
    return stage_of(reason)


@register.filter
def names(pairs: Iterable[tuple[str, int]]) -> list[str]:
    return [name for name, _ in pairs]


@register.filter
def lag_css(row: Row) -> str:
    """Yellow where a partition is seconds behind, red where unread events are soon lost."""
    if row.lost or row.retention_is_short:
        return "sev-4"
    return "sev-2" if row.behind_s is not None and row.behind_s > 5 else "full"


@register.filter
def code(text: str) -> SafeString:
    """A sentence whose `commands` stand in a box of code."""
    parts = [
        format_html("<code>{}</code>", part) if i % 2 else part
        for i, part in enumerate(CODE.split(text))
    ]
    return format_html_join("", "{}", ((part,) for part in parts))
