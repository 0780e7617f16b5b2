"""Writes minute rollups: one sorted upsert of whole rows, and which hours they change."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from streams.arrays import Float8, Int4, Int8, Moments

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
PAST_DAYS, FUTURE_DAYS = 60, 3

# Counts come flat, 20 a row, and only of rows that have any; `scores` and `onsets` are a row's
# place among those, 0 where it has none.
_UPSERT = """
INSERT INTO streams_rollup
SELECT series_id, minute, incarnation_id, partition, first_offset, count, scored, min, max, mean,
       last, NULLIF(max_score, 'NaN'), NULLIF(low, 'NaN'), NULLIF(mid, 'NaN'), NULLIF(high, 'NaN'),
       CASE WHEN scores > 0 THEN (%b::int4[])[20 * scores - 19 : 20 * scores] END,
       CASE WHEN onsets > 0 THEN (%b::int4[])[20 * onsets - 19 : 20 * onsets] END
FROM unnest(%b::int8[], %b::timestamptz[], %b::int8[], %b::int4[], %b::int8[], %b::int4[],
    %b::int4[], %b::float8[], %b::float8[], %b::float8[], %b::float8[], %b::float8[], %b::float8[],
    %b::float8[], %b::float8[], %b::int4[], %b::int4[])
    AS row (series_id, minute, incarnation_id, partition, first_offset, count, scored, min, max,
    mean, last, max_score, low, mid, high, scores, onsets)
ORDER BY series_id, minute, incarnation_id, partition, first_offset
ON CONFLICT (series_id, minute, incarnation_id, partition, first_offset) DO UPDATE SET
    count = EXCLUDED.count, scored = EXCLUDED.scored, min = EXCLUDED.min, max = EXCLUDED.max,
    mean = EXCLUDED.mean, last = EXCLUDED.last, max_score = EXCLUDED.max_score,
    expected_low = EXCLUDED.expected_low, expected_mid = EXCLUDED.expected_mid,
    expected_high = EXCLUDED.expected_high, score_counts = EXCLUDED.score_counts,
    onset_counts = EXCLUDED.onset_counts
"""

# A partition has one owner, so no two consumers wait for each other here. DO UPDATE locks the
# row: who rolls up the hour meanwhile finds its count moved on and leaves the mark.
_MARK = """
INSERT INTO streams_hourdue AS d (incarnation_id, partition, hour, changes, since, touched_at)
SELECT life, partition, hour, 1, now(), now()
  FROM unnest(%b::int8[], %b::int4[], %b::timestamptz[]) AS row (life, partition, hour)
 ORDER BY life, partition, hour
ON CONFLICT (incarnation_id, partition, hour)
    DO UPDATE SET changes = d.changes + 1, touched_at = EXCLUDED.touched_at
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


def write(cursor: psycopg.Cursor[Any], rows: RollupRows) -> None:
    """Upsert ``rows`` inside the caller's transaction, by a cursor of ``arrays``.

    Keys must be unique within one call.
    """
    if not len(rows):
        return
    scores, score_row = _those_with_any(rows.score_counts)
    onsets, onset_row = _those_with_any(rows.onset_counts)
    cursor.execute(
        _UPSERT,
        [
            Int4(scores),
            Int4(onsets),
            Int8(rows.series_id),
            Moments(rows.minute_us),
            Int8(rows.incarnation_id),
            Int4(rows.partition),
            Int8(rows.first_offset),
            Int4(rows.count),
            Int4(rows.scored),
            Float8(rows.min),
            Float8(rows.max),
            Float8(rows.mean),
            Float8(rows.last),
            Float8(rows.max_score),
            Float8(rows.low),
            Float8(rows.mid),
            Float8(rows.high),
            Int4(score_row),
            Int4(onset_row),
        ],
    )
    _mark(cursor, rows)


def _mark(cursor: psycopg.Cursor[Any], rows: RollupRows) -> None:
    """Note each hour of each partition whose minutes change, in the same transaction."""
    hour = rows.minute_us // HOUR_US
    places = np.unique(np.stack([rows.incarnation_id, rows.partition, hour]), axis=1)
    cursor.execute(
        _MARK, [Int8(places[0]), Int4(places[1].astype(np.int32)), Moments(places[2] * HOUR_US)]
    )


def _those_with_any(counts: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The rows [m, 20] that are not all 0, and each row's place among them from 1 on, else 0."""
    some = counts.any(axis=1)
    return counts[some], np.where(some, np.cumsum(some), 0).astype(np.int32)


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
