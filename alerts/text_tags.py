"""The tags and filters that messages' templates may use: none reads anything or grows a text."""

from __future__ import annotations

from typing import Any

from django.template import Library
from django.template.defaulttags import comment, do_for, do_if

register = Library()
register.tag("if", do_if)
register.tag("for", do_for)
register.tag("comment", comment)


@register.filter
def upper(value: Any) -> str:
    return str(value).upper()


@register.filter
def lower(value: Any) -> str:
    return str(value).lower()


@register.filter
def capfirst(value: Any) -> str:
    text = str(value)
    return text[:1].upper() + text[1:]


@register.filter
def default(value: Any, other: Any) -> Any:
    return value or other


@register.filter
def length(value: Any) -> int:
    return len(value) if isinstance(value, tuple | str) else 0


@register.filter
def first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and value else ""


@register.filter
def join(value: Any, between: Any) -> str:
    """Only of lists, which are short."""
    return str(between)[:20].join(map(str, value)) if isinstance(value, tuple) else str(value)


@register.filter
def truncate(value: Any, longest: Any) -> str:
    text, room = str(value), int(longest)
    return text if len(text) <= room else text[: max(room - 1, 0)] + "…"


@register.filter
def pluralize(value: Any) -> str:
    return "" if value == 1 else "s"
