"""What the pages of teams and hours need: fields with their mistakes, days in words."""

from __future__ import annotations

from typing import Any

from django import template

from alerts.audit_words import shown

register = template.Library()


@register.inclusion_tag("alerts/_typed.html")
def typed(
    name: str, label: str, value: Any, error: str = "", hint: str = "", example: str = "",
    longest: int = 100, offered: str = "",
) -> dict[str, Any]:  # fmt: skip
    """A text field; ``offered`` names a datalist."""
    return {"name": name, "label": label, "value": "" if value is None else value, "error": error,
            "hint": hint, "example": example, "longest": longest, "offered": offered}  # fmt: skip


@register.filter
def spans(weekly: Any) -> str:
    """Mon–Fri 09:00–17:00, Sat 10:00–14:00."""
    return shown("weekly", weekly)
