"""When a stream's first model will be trained: from the events there are and how fast they come."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from django_celery_beat.models import PeriodicTask
from numpy.typing import NDArray

from detection.models import TrainingRun
from detection.scoring import TRUSTED_AFTER
from detection.training_run import MIN_ROWS
from streams.models import ConsumerStatus, Series, Stream
from streams.vectors import PREFIX

ALIVE = timedelta(seconds=15)
GROWTH = 1.2  # after an attempt in vain the next one waits for a fifth more events
MOST_SERIES = 50_000
SCHEDULED = "detection.tasks.train_models"


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
