"""Event time on a wall clock: seasons follow the stream's time zone, daylight saving included."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray


class ZoneClock:
    """UTC µs to seconds on a time zone's wall clock, vectorised by quarter hours."""

    def __init__(self, name: str) -> None:
        self._zone = ZoneInfo(name)
        self._utc = name == "UTC"
        self._offsets: dict[int, int] = {}

    def local_s(self, time_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """Whole seconds, int64 [n]; no zone shifts its clock inside a quarter of an hour."""
        seconds = time_us // 1_000_000
        if self._utc or not len(seconds):
            return seconds
        quarters, inverse = np.unique(seconds // 900, return_inverse=True)
        shift = np.array([self._offset(int(q)) for q in quarters], dtype=np.int64)
        local: NDArray[np.int64] = seconds + shift[inverse]
        return local

    def _offset(self, quarter: int) -> int:
        known = self._offsets.get(quarter)
        if known is None:
            moment = dt.datetime.fromtimestamp(quarter * 900, self._zone)
            shift = moment.utcoffset() or dt.timedelta(0)
            known = self._offsets[quarter] = int(shift.total_seconds())
        return known
