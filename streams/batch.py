"""The spine: events as equal-length read-only numpy columns, from decode to persist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NARROW = ("value",)


@dataclass(frozen=True, slots=True)
class EventBatch:
    """``n`` events in the order their partitions hold them.

    ``event_time`` is int64 µs since the epoch (UTC), ``series`` an int32 code of
    ``streams.series.SeriesIndex``, ``values`` float64 ``[n, k]`` named by ``columns`` (of wide
    events their values' names in sorted order, nan where one is missing),
    ``partition`` int32 and ``offset`` int64 the event's place. ``committable`` is the next offset
    of each partition once this batch is stored; dropping events never changes it.
    """

    event_time: NDArray[np.int64]
    series: NDArray[np.int32]
    values: NDArray[np.float64]
    partition: NDArray[np.int32]
    offset: NDArray[np.int64]
    columns: tuple[str, ...] = NARROW
    committable: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.event_time)
        for name in ("series", "values", "partition", "offset"):
            column = getattr(self, name)
            if len(column) != n:
                raise ValueError(f"column {name} has {len(column)} rows, event_time has {n}")
            column.flags.writeable = False
        if self.values.shape != (n, len(self.columns)):
            raise ValueError(f"values are {self.values.shape}, columns name {self.columns}")
        self.event_time.flags.writeable = False

    def __len__(self) -> int:
        return len(self.event_time)

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> EventBatch:
        """The chosen events; ``committable`` stays, since a dropped event moves its offset too."""
        return EventBatch(
            self.event_time[chosen],
            self.series[chosen],
            self.values[chosen],
            self.partition[chosen],
            self.offset[chosen],
            self.columns,
            self.committable,
        )
