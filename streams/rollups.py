"""Writes minute rollups: staging table by COPY, then one sorted upsert of whole rows."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from streams import copybinary

DAY_US = 86_400_000_000
PAST_DAYS, FUTURE_DAYS = 60, 3

_STAGE = """
CREATE TEMP TABLE IF NOT EXISTS stage_rollup (
    series_id bigint, minute timestamptz, incarnation_id bigint, partition integer,
    first_offset bigint, count integer, scored integer, min float8, max float8, mean float8,
    last float8, max_score float8, expected_low float8, expected_mid float8, expected_high float8,
    score_counts integer[], onset_counts integer[]
) ON COMMIT DELETE ROWS
"""

_UPSERT = """
INSERT INTO streams_rollup
SELECT series_id, minute, incarnation_id, partition, first_offset, count, scored, min, max, mean,
       last, NULLIF(max_score, 'NaN'), NULLIF(expected_low, 'NaN'), NULLIF(expected_mid, 'NaN'),
       NULLIF(expected_high, 'NaN'), NULLIF(score_counts, array_fill(0, ARRAY[20])),
       NULLIF(onset_counts, array_fill(0, ARRAY[20]))
FROM stage_rollup
ORDER BY series_id, minute, incarnation_id, partition, first_offset
ON CONFLICT (series_id, minute, incarnation_id, partition, first_offset) DO UPDATE SET
    count = EXCLUDED.count, scored = EXCLUDED.scored, min = EXCLUDED.min, max = EXCLUDED.max,
    mean = EXCLUDED.mean, last = EXCLUDED.last, max_score = EXCLUDED.max_score,
    expected_low = EXCLUDED.expected_low, expected_mid = EXCLUDED.expected_mid,
    expected_high = EXCLUDED.expected_high, score_counts = EXCLUDED.score_counts,
    onset_counts = EXCLUDED.onset_counts
"""


@dataclass(frozen=True, slots=True)
class RollupRows:
    """Whole rollup rows as columns: see ``streams.models.Rollup``; minutes in µs since the epoch.

    ``low``, ``mid``, ``high`` and ``max_score`` are nan where nothing was scored; the two count
    columns are int32 ``[n, 20]``.
    """

    series_id: NDArray[np.int64]
    minute_us: NDArray[np.int64]
    incarnation_id: NDArray[np.int64]
    partition: NDArray[np.int32]
    first_offset: NDArray[np.int64]
    count: NDArray[np.int32]
    scored: NDArray[np.int32]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    mean: NDArray[np.float64]
    last: NDArray[np.float64]
    max_score: NDArray[np.float64]
    low: NDArray[np.float64]
    mid: NDArray[np.float64]
    high: NDArray[np.float64]
    score_counts: NDArray[np.int32]
    onset_counts: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.series_id)


def prepare(connection: psycopg.Connection[Any]) -> None:
    """Make the staging table of this connection."""
    connection.execute(_STAGE)


def write(cursor: psycopg.Cursor[Any], rows: RollupRows) -> None:
    """Upsert ``rows`` inside the caller's transaction. Keys must be unique within one call."""
    if not len(rows):
        return
    copybinary.copy(
        cursor,
        "stage_rollup",
        {
            "series_id": rows.series_id,
            "minute": copybinary.timestamps(rows.minute_us),
            "incarnation_id": rows.incarnation_id,
            "partition": rows.partition,
            "first_offset": rows.first_offset,
            "count": rows.count,
            "scored": rows.scored,
            "min": rows.min,
            "max": rows.max,
            "mean": rows.mean,
            "last": rows.last,
            "max_score": rows.max_score,
            "expected_low": rows.low,
            "expected_mid": rows.mid,
            "expected_high": rows.high,
            "score_counts": rows.score_counts,
            "onset_counts": rows.onset_counts,
        },
    )
    cursor.execute(_UPSERT)


class DayPartitions:
    """Makes the table's day partitions before rows need them; far-off days use the default one."""

    def __init__(self) -> None:
        self._known: set[int] = set()

    def ensure(
        self, connection: psycopg.Connection[Any], minute_us: NDArray[np.int64], now: dt.datetime
    ) -> None:
        """Make partitions for the days of ``minute_us`` near ``now``, each in a transaction."""
        today = int(now.timestamp()) // 86_400
        for day in np.unique(minute_us // DAY_US).tolist():
            if day in self._known:
                continue
            self._known.add(day)
            if not today - PAST_DAYS <= day <= today + FUTURE_DAYS:
                continue
            start = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=day)
            end = start + dt.timedelta(days=1)
            name = f"streams_rollup_{start:%Y%m%d}"
            try:
                with connection.transaction():
                    # one maker at a time: IF NOT EXISTS alone still races in the catalogue
                    connection.execute("SELECT pg_advisory_xact_lock(724101)")
                    connection.execute(
                        f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF streams_rollup"
                        f" FOR VALUES FROM ('{start:%Y-%m-%d} 00:00:00+00')"
                        f" TO ('{end:%Y-%m-%d} 00:00:00+00')".encode()
                    )
            except psycopg.errors.CheckViolation:
                # Rows of that day already lie in the default partition: it goes on serving them.
                continue
