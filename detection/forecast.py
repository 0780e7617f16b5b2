"""When a stream's first model will be trained: from the events there are and how fast they come."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from django_celery_beat.models import PeriodicTask
from numpy.typing import NDArray

from detection.models import ModelVersion, TrainingRun
from detection.scoring import TRUSTED_AFTER
from detection.training_run import MIN_ROWS
from streams.models import ConsumerStatus, Series, Stream
from streams.vectors import PREFIX, is_vector

ALIVE = timedelta(seconds=15)
GROWTH = 1.2  # after an attempt in vain the next one waits for a fifth more events
MOST_SERIES = 50_000
SCHEDULED = "detection.tasks.train_models"
MAX_AGE_HOURS = 24.0  # of a line's newest version, where the task says nothing else
_MOST_HOURS = 1e6


@dataclass(frozen=True, slots=True)
class Forecast:
    """Until the first models of a stream, of those algorithms that become ready at once.

    ``events`` are still needed (0: it is due at the scheduler's next look); ``rate`` is what comes
    now, in events a second; ``in_s`` the time it takes, None while nothing comes.
    """

    stream: Stream
    algorithms: tuple[str, ...]
    events: int
    rate: float
    scheduled: bool

    @property
    def in_s(self) -> float | None:
        if self.events == 0:
            return 0.0
        return self.events / self.rate if self.rate > 0 else None


def first_trainings(
    streams: Sequence[Stream],
    algorithms: Iterable[str],
    trained: Container[tuple[str, str]],
    now: datetime,
) -> list[Forecast]:
    """What waits for its first training; `trained` has the (stream's name, algorithm) of models.

    The number of queries does not depend on how many streams there are.
    """
    names = sorted(algorithms)
    missing = {s.pk: [a for a in names if (s.name, a) not in trained] for s in streams}
    if not any(missing.values()):
        return []
    on = PeriodicTask.objects.filter(task=SCHEDULED, enabled=True).exists()
    rates, attempts = _rates(now), _last_attempts(missing)
    counts = Series.objects.filter(stream__in=[pk for pk in missing if missing[pk]])
    # Of wide events as a whole come models of their own: their values count, one by one.
    counts = counts.exclude(metric__startswith=PREFIX)
    pairs = np.array(
        list(counts.values_list("stream_id", "events")[:MOST_SERIES]), dtype=np.int64
    ).reshape(-1, 2)
    found: list[Forecast] = []
    for stream in streams:
        seen = pairs[pairs[:, 0] == stream.pk, 1]
        rows = events_until(seen, MIN_ROWS)
        needed: dict[int, list[str]] = {}
        for name in missing[stream.pk]:
            last = attempts.get((stream.pk, name))
            wanted = 0 if last is None else math.ceil(GROWTH * last) - int(seen.sum())
            needed.setdefault(max(rows, wanted), []).append(name)
        rate = rates.get(stream.topic, 0.0)
        found += [
            Forecast(stream, tuple(of), events, rate, on) for events, of in sorted(needed.items())
        ]
    return found


def next_training(
    newest: ModelVersion, *, served: bool, enabled: Container[str]
) -> datetime | None:
    """When the schedule holds a line's newest version for too old, the earliest of its tasks;
    None where it trains no more of this line. ``served``: the line has a champion.

    A history that has grown fourfold calls for one before.
    """
    if newest.algorithm not in enabled:
        return None
    found = []
    for told in PeriodicTask.objects.filter(task=SCHEDULED, enabled=True).values_list(
        "kwargs", flat=True
    ):
        asked = _kwargs(told)
        metric = asked.get("metric") or ""
        of_all = not metric and (served or not newest.metric or is_vector(newest.metric))
        if (
            asked.get("stream") in (None, newest.stream.name)
            and asked.get("algorithm") in (None, newest.algorithm)
            and (of_all or metric == newest.metric)
        ):
            hours = asked.get("max_age_hours", MAX_AGE_HOURS)
            found.append(newest.created_at + timedelta(hours=hours))
    return min(found, default=None)


def _kwargs(text: str) -> dict[str, Any]:
    """Of a task that people may have edited: what can't be read asks for nothing special."""
    try:
        said = json.loads(text or "{}")
    except ValueError:
        return {}
    if not isinstance(said, dict):
        return {}
    hours = said.get("max_age_hours", MAX_AGE_HOURS)
    sound = isinstance(hours, int | float) and 0 <= hours <= _MOST_HOURS
    return said | {"max_age_hours": hours if sound else MAX_AGE_HOURS}


def events_until(seen: NDArray[np.int64], rows: int, warm_up: int = TRUSTED_AFTER) -> int:
    """How many more events give ``rows`` rows, when each series [n] goes on by its share so far.

    The first ``warm_up`` of each series give none.
    """
    total = int(seen.sum())
    if total == 0:
        return rows + warm_up  # of one series; more series need more
    share = seen / total

    def gives(more: int) -> float:
        return float(np.maximum(0.0, seen + more * share - warm_up).sum())

    if gives(0) >= rows:
        return 0
    low, high = 0, 1
    while gives(high) < rows:
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if gives(middle) < rows else (low, middle)
    return high


def _last_attempts(streams: Iterable[int]) -> dict[tuple[int, str], int]:
    """How many events the last attempt read, of those that found too few."""
    line = ("stream_id", "algorithm")
    runs = TrainingRun.objects.filter(stream__in=list(streams), metric="").order_by(*line, "-pk")
    return {
        (run.stream_id, run.algorithm): int(run.params.get("events", 0))
        for run in runs.distinct(*line)
        if run.stream_id is not None and run.status == TrainingRun.Status.SKIPPED
    }


def _rates(now: datetime) -> dict[str, float]:
    """Events a second of each topic, by what running consumers say."""
    rates: dict[str, float] = {}
    for status in ConsumerStatus.objects.filter(beat_at__gte=now - ALIVE):
        for part in status.partitions or []:
            topic = part.get("topic", "")
            rates[topic] = rates.get(topic, 0.0) + float(part.get("events_per_s") or 0.0)
    return rates
