"""What the models' templates need: figures of a manifest, a run's stage, a forecast in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import template

from detection import catalogue
from detection.forecast import Forecast
from detection.models import TrainingRun
from detection.training_run import STAGES

register = template.Library()


@register.filter
def figures(manifest: Mapping[str, Any]) -> catalogue.Figures:
    return catalogue.figures(manifest)


@register.filter
def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


@register.filter
def figure(value: Any) -> str:
    """A number of a test with the digits that matter; anything else as it came."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)[:200]
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) < 1_000 else f"{value:,.0f}"


@register.filter
def stage_state(run: TrainingRun, stage: str) -> str:
    """ "done", "now" or "later"."""
    names = list(STAGES)
    at = names.index(run.stage) if run.stage in names else -1
    place = names.index(stage)
    return "done" if place < at else "now" if place == at else "later"


@register.filter
def forecast(found: Forecast) -> str:
    """When the first training comes, by what is there and how fast more comes."""
    if not found.scheduled:
        return "the schedule of training is switched off, so only a person starts the first one."
    if found.events == 0:
        return "enough history; the first training begins at the scheduler's next look."
    more = f"first training after {found.events:,} more event{'s' * (found.events != 1)}"
    seconds = found.in_s
    if seconds is None:
        return f"{more}; none come at present."
    return f"{more}, at the present rate in {_about(seconds)}."


def _about(seconds: float) -> str:
    for size, word in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= 1.5 * size:
            return f"about {seconds / size:.0f} {word}s"
    return "about a minute" if seconds >= 45 else "less than a minute"
