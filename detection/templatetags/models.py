"""What the models' templates need: figures of a manifest, a run's stage, a forecast in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import template
from django.utils import timezone

from detection import catalogue
from detection.forecast import Forecast
from detection.models import TrainingRun
from detection.shadow import Compared
from detection.training_run import STAGES

register = template.Library()
EARLY = 0.02  # of a run: before it nothing can be said of the time that is left


@register.filter
def figures(manifest: Mapping[str, Any]) -> catalogue.Figures:
    return catalogue.figures(manifest)


@register.filter
def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


@register.filter
def share(value: float | None) -> str:
    """Of very few as well: 12 %, 0.3 %, 0.004 %; never rounded to none or all."""
    if value is None or value == 0:
        return "none"
    return "all" if value == 1 else f"{100 * min(value, 0.9999):.2g} %"


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
def stage_share(run: TrainingRun) -> float:
    """How far the present stage is, 0 to 1."""
    names, starts = list(STAGES), [*STAGES.values(), 1.0]
    if run.stage not in names:
        return 0.0
    at = names.index(run.stage)
    return max(0.0, min(1.0, (run.progress - starts[at]) / (starts[at + 1] - starts[at])))


@register.filter
def time_left(run: TrainingRun) -> str:
    """By the time it took so far; nothing where that says too little."""
    taken = (timezone.now() - run.started_at).total_seconds()
    if not EARLY <= run.progress < 1 or taken < 1:
        return ""
    seconds = taken * (1 - run.progress) / run.progress
    return f"about {seconds:.0f} s left" if seconds < 90 else f"{_about(seconds)} left"


@register.filter
def judged(line: Compared) -> str:
    """A change in words: figures of time say it themselves."""
    if line.better is None or line.change.endswith(("slower", "faster")):
        return line.change
    return f"{line.change} {'better' if line.better else 'worse'}"


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
