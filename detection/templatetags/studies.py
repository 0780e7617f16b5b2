"""What the templates of studies need: settings, shares and differences in words."""

from __future__ import annotations

from typing import Any

from django import template

register = template.Library()


@register.filter
def setting(value: Any) -> str:
    """A parameter's value with the digits that matter."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@register.filter
def setting_name(name: str) -> str:
    """`one_class_svm.nu` → `One class svm: nu`."""
    algorithm, _, parameter = name.replace("_", " ").partition(".")
    return f"{algorithm.capitalize()}: {parameter}" if parameter else algorithm.capitalize()


@register.filter
def minutes(seconds: float) -> str:
    """90 → `1.5 min`, 45 → `45 s`."""
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} min"


@register.filter
def share(value: float) -> str:
    """0 to 1 in whole percents."""
    return f"{100 * value:.0f} %"


@register.filter
def gain(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.4f}".replace("-", "−")
