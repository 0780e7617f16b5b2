"""Watches a new champion for its first hour, and rolls it back if it alarms out of proportion.

By the wall clock: what people are told counts. A backlog brings many alerts in little time, so the
rate per event has to leave its gate as well.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings
from django.db.models import Sum

from detection import model_store
from detection.errors import DetectionError
from detection.models import ModelVersion
from streams.models import PipelineStat

log = logging.getLogger(__name__)

BEFORE = dt.timedelta(days=1)
LEAST_HOURS = 1 / 6  # one alert in the first minute is no rate of sixty an hour

# stream, metric (empty: all), since, until → episodes that opened
OnsetCounter = Callable[[str, str, dt.datetime, dt.datetime], int]
_counters: list[OnsetCounter] = []


def onsets_from(counter: OnsetCounter) -> None:
    """Let an app downstream count alerts; each counter counts once."""
    if counter not in _counters:
        _counters.append(counter)


@dataclass(frozen=True, slots=True)
class Rates:
    """Alerts of a model's stream and metric before and since its promotion."""

    before: int
    before_hours: float
    before_events: int
    since: int
    since_hours: float
    since_events: int

    @property
    def before_per_hour(self) -> float:
        return self.before / self.before_hours

    @property
    def since_per_hour(self) -> float:
        return self.since / max(self.since_hours, LEAST_HOURS)


def rates(model: ModelVersion, promoted_at: dt.datetime, now: dt.datetime) -> Rates:
    """What was told in the day before the promotion and since; the events are of all streams."""

    def told(since: dt.datetime, until: dt.datetime) -> int:
        name, metric = model.stream.name, model.metric
        return sum(counter(name, metric, since, until) for counter in _counters)

    def events(since: dt.datetime, until: dt.datetime) -> int:
        rows = PipelineStat.objects.filter(minute__gte=since, minute__lt=until)
        return int(rows.aggregate(n=Sum("events", default=0))["n"])

    first = PipelineStat.objects.filter(minute__gte=promoted_at - BEFORE).order_by("minute").first()
    start = promoted_at - BEFORE
    if first is not None and first.minute < promoted_at:
        start = first.minute
    hours = max((promoted_at - start).total_seconds() / 3_600, LEAST_HOURS)
    return Rates(
        before=told(start, promoted_at),
        before_hours=hours,
        before_events=events(start, promoted_at),
        since=told(promoted_at, now),
        since_hours=(now - promoted_at).total_seconds() / 3_600,
        since_events=events(promoted_at, now),
    )


def verdict(found: Rates, ratio: float, floor_per_hour: float) -> str:
    """Why a champion has to go; empty where it may stay."""
    most = max(found.before_per_hour * ratio, floor_per_hour)
    if found.since_per_hour <= most:
        return ""
    if found.before and found.before_events and found.since_events:
        per_event = found.before / found.before_events
        if found.since / found.since_events <= per_event * ratio:
            return ""  # more alerts because there are more events
    return (
        f"{found.since} alerts in the first {found.since_hours * 60:.0f} min since its promotion,"
        f" {found.since_per_hour:.1f} an hour: before it were {found.before_per_hour:.1f}, and at"
        f" most {most:.1f} are allowed"
    )


def look(now: dt.datetime | None = None) -> list[str]:
    """Roll back every watched champion that has left its gate; a line for each."""
    now = now or dt.datetime.now(dt.UTC)
    rules = settings.VIGIL.anomaly_detection.registry
    said = []
    watched = ModelVersion.objects.filter(
        state=ModelVersion.State.CHAMPION, watch_until__gt=now, promoted_at__isnull=False
    )
    for model in watched.select_related("stream").defer("artefact"):
        if model.promoted_at is None:
            continue
        why = verdict(
            rates(model, model.promoted_at, now),
            rules.rollback_ratio,
            rules.rollback_floor_per_hour,
        )
        if not why:
            continue
        name = model_store.describe(model)
        try:
            model_store.roll_back(
                model.stream, model.metric, model.algorithm,
                reason=f"rolled back by itself: {why}", away_from=model.pk,
            )  # fmt: skip
        except DetectionError as error:  # it was left meanwhile, or the one before is broken
            said.append(f"{name} could not be rolled back: {error}. {why}")
            log.error("model.not_rolled_back model=%s reason=%s why=%s", name, error, why)
            continue
        said.append(f"{name} was rolled back: {why}")
        log.warning("model.rolled_back model=%s reason=%s", name, why)
    return said
