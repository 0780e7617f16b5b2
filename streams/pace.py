"""How fast each partition is filled and read, and how far behind it is: from minutes' offsets.

Differences of offsets count messages whoever read them, so a rebalance leaves no gap.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from django.db.models import Q

from streams.models import PipelineStat
from streams.ranges import Range, from_epoch, step_for

Sample = tuple[int, int]  # next offset, end offset
Slots = dict[int, tuple[int, Sample]]  # by step: the minute that was looked at, and its sample


@dataclass(frozen=True, slots=True)
class Pace:
    """Equal steps of the wall clock, oldest first; None where no consumer looked."""

    arrived: Sequence[float | None]  # messages per second
    read: Sequence[float | None]
    lag: Sequence[int | None]


@dataclass(frozen=True, slots=True)
class Paces:
    """Of one topic: its partitions' own paces and all of them together."""

    step_s: int
    t: list[int]
    partitions: Mapping[int, Pace]
    whole: Pace


def paces(topics: Collection[str], span: Range, points: int = 60) -> dict[str, Paces]:
    """Each topic's pace; the step before ``span`` is read too, for the first difference."""
    step = max(60, step_for(span.seconds, points))
    first = int(span.start.timestamp() // step) * step
    size = int(span.end.timestamp() // step) - first // step + 1
    seen: dict[str, dict[int, Slots]] = {topic: {} for topic in topics}
    for minute, places in _minutes(span, first, step).iterator(chunk_size=2_000):
        at = int(minute.timestamp())
        i = (at - first) // step
        for place, (next_offset, end) in places.items():
            topic, _, number = place.rpartition("/")
            if topic not in seen:
                continue
            slots = seen[topic].setdefault(int(number), {})
            before = slots.get(i)
            # Of two consumers in one minute the one further on is the present owner.
            if before is None or (at, next_offset) >= (before[0], before[1][0]):
                slots[i] = (at, (next_offset, end))
    t = [first + i * step for i in range(size)]
    found = {}
    for topic, numbers in seen.items():
        parts = {number: _pace(slots, size, step) for number, slots in sorted(numbers.items())}
        found[topic] = Paces(step, t, parts, _together(parts.values(), size))
    return found


def _minutes(span: Range, first: int, step: int) -> Any:
    rows = PipelineStat.objects.filter(
        minute__gte=from_epoch(first - step), minute__lt=span.end
    ).order_by("minute")
    if step > 60:
        # The last minute of a step tells enough, and the present one.
        per = step // 60
        ends = [m for m in range(60) if (m + 1) % per == 0] if per < 60 else [59]
        latest = from_epoch(span.end.timestamp() - 120)
        rows = rows.filter(Q(minute__minute__in=ends) | Q(minute__gte=latest))
    return rows.values_list("minute", "places")


def _pace(slots: Slots, size: int, step: int) -> Pace:
    arrived: list[float | None] = [None] * size
    read: list[float | None] = [None] * size
    lag: list[int | None] = [None] * size
    for i, (_, (next_offset, end)) in slots.items():
        if 0 <= i < size:
            lag[i] = max(0, end - next_offset)
    for (_, (at, before)), (j, (then, after)) in pairwise(sorted(slots.items())):
        # Smaller offsets are those of a topic made anew; a longer silence is no rate.
        if 0 <= j < size and 0 < then - at <= 3 * step and after[1] >= before[1]:
            read[j] = max(0, after[0] - before[0]) / (then - at)
            arrived[j] = (after[1] - before[1]) / (then - at)
    return Pace(arrived, read, lag)


def _together(found: Iterable[Pace], size: int) -> Pace:
    every = list(found)

    def added(columns: list[Sequence[float | None]]) -> list[float | None]:
        known = [[v for v in at if v is not None] for at in zip(*columns, strict=True)]
        return [sum(values) if values else None for values in known] if columns else [None] * size

    lag = added([pace.lag for pace in every])
    return Pace(
        added([pace.arrived for pace in every]),
        added([pace.read for pace in every]),
        [None if n is None else int(n) for n in lag],
    )
