"""The spine: events as equal-length read-only numpy columns, from decode to persist."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

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

    def of(self, partitions: Collection[int]) -> EventBatch:
        """The events and the places of these partitions only."""
        batch = self.take(np.isin(self.partition, list(partitions)))
        places = {p: next_ for p, next_ in self.committable.items() if p in partitions}
        return replace(batch, committable=places)

    @classmethod
    def joined(cls, parts: Sequence[EventBatch]) -> EventBatch:
        """Batches of one schema one behind the other; a partition's come in order of offset."""
        if not parts:
            none = np.zeros(0)
            return cls(
                none.astype(np.int64),
                none.astype(np.int32),
                none.reshape(0, 1),
                none.astype(np.int32),
                none.astype(np.int64),
            )
        places: dict[int, int] = {}
        for part in parts:
            places |= part.committable
        return cls(
            np.concatenate([part.event_time for part in parts]),
            np.concatenate([part.series for part in parts]),
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.partition for part in parts]),
            np.concatenate([part.offset for part in parts]),
            parts[0].columns,
            places,
        )
