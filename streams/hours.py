"""Makes hours of series out of their minutes: what long charts read, and what stays of old days.

An hour is made anew as a whole from the minutes that are there, so doing it twice changes nothing
and late events are in it. Which hours that takes is noted with the minutes themselves (`HourDue`).
Hours whose minutes go are sealed: late events add to them from then on.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import connection, transaction
from django.db.models import Q

from streams.models import HourDue

QUIET = dt.timedelta(seconds=60)
LONGEST_WAIT = dt.timedelta(hours=1)
AT_ONCE = 500
CHUNK = 2_000

_COLUMNS = """series_id, hour, incarnation_id, partition, sealed, count, scored, bands, min, max,
    mean, last, max_score, expected_low, expected_mid, expected_high, score_counts, onset_counts"""
_KEY = "series_id, hour, incarnation_id, partition"

# From minutes `m`, which name their hour, to rows of hours.
_SUM = f"""
counts AS (
    SELECT {_KEY}, kind, array_agg(n ORDER BY i) AS counts
      FROM (SELECT {_KEY}, kind, i, sum(n)::int AS n
              FROM m CROSS JOIN LATERAL (
                  SELECT 's' AS kind, i, n FROM unnest(score_counts) WITH ORDINALITY AS u (n, i)
                  UNION ALL
                  SELECT 'o', i, n FROM unnest(onset_counts) WITH ORDINALITY AS u (n, i)) AS c
             WHERE score_counts IS NOT NULL OR onset_counts IS NOT NULL
             GROUP BY {_KEY}, kind, i) AS summed
     GROUP BY {_KEY}, kind),
whole AS (
    SELECT {_KEY}, sum(count) AS count, sum(scored) AS scored, count(expected_mid) AS bands,
           min(min) AS min, max(max) AS max, sum(mean * count) / sum(count) AS mean,
           (array_agg(last ORDER BY minute DESC, first_offset DESC))[1] AS last,
           max(max_score) AS max_score, avg(expected_low) AS expected_low,
           avg(expected_mid) AS expected_mid, avg(expected_high) AS expected_high
      FROM m GROUP BY {_KEY}),
rows AS (
    SELECT w.*, s.counts AS score_counts, o.counts AS onset_counts
      FROM whole w
      LEFT JOIN counts s ON (s.series_id, s.hour, s.incarnation_id, s.partition, s.kind)
                          = (w.series_id, w.hour, w.incarnation_id, w.partition, 's')
      LEFT JOIN counts o ON (o.series_id, o.hour, o.incarnation_id, o.partition, o.kind)
                          = (w.series_id, w.hour, w.incarnation_id, w.partition, 'o'))
"""  # noqa: S608
_INSERT = f"""
INSERT INTO streams_rolluphour AS h ({_COLUMNS})
SELECT {_KEY}, {{sealed}}, count, scored, bands, min, max, mean, last, max_score, expected_low,
       expected_mid, expected_high, score_counts, onset_counts
  FROM rows ORDER BY {_KEY}
ON CONFLICT ({_KEY}, sealed) DO UPDATE SET
"""  # noqa: S608
_AS_MADE = """
    count = EXCLUDED.count, scored = EXCLUDED.scored, bands = EXCLUDED.bands, min = EXCLUDED.min,
    max = EXCLUDED.max, mean = EXCLUDED.mean, last = EXCLUDED.last, max_score = EXCLUDED.max_score,
    expected_low = EXCLUDED.expected_low, expected_mid = EXCLUDED.expected_mid,
    expected_high = EXCLUDED.expected_high, score_counts = EXCLUDED.score_counts,
    onset_counts = EXCLUDED.onset_counts
"""


def _weighed(name: str) -> str:
    return (
        f"{name} = (coalesce(h.{name} * h.bands, 0) + coalesce(EXCLUDED.{name} * EXCLUDED.bands, 0)"
        ") / nullif(h.bands + EXCLUDED.bands, 0)"
    )


def _counted(name: str) -> str:
    return (
        f"{name} = (SELECT array_agg(coalesce(a, 0) + coalesce(b, 0) ORDER BY i)"  # noqa: S608
        f" FROM unnest(h.{name}, EXCLUDED.{name}) WITH ORDINALITY AS u (a, b, i))"
    )


# The same as if all minutes were summed at once.
_ADDED = f"""
    count = h.count + EXCLUDED.count, scored = h.scored + EXCLUDED.scored,
    bands = h.bands + EXCLUDED.bands, min = LEAST(h.min, EXCLUDED.min),
    max = GREATEST(h.max, EXCLUDED.max), last = EXCLUDED.last,
    mean = (h.mean * h.count + EXCLUDED.mean * EXCLUDED.count) / (h.count + EXCLUDED.count),
    max_score = GREATEST(h.max_score, EXCLUDED.max_score), {_weighed("expected_low")},
    {_weighed("expected_mid")}, {_weighed("expected_high")}, {_counted("score_counts")},
    {_counted("onset_counts")}
"""

_MAKE = f"""
WITH m AS MATERIALIZED (
    SELECT r.*, %(hour)s::timestamptz AS hour FROM streams_rollup r
     WHERE r.minute >= %(hour)s AND r.minute < %(hour)s::timestamptz + interval '1 hour'
       AND r.incarnation_id = %(life)s AND r.partition = %(partition)s),
{_SUM}{_INSERT.format(sealed="false")}{_AS_MADE}
"""  # noqa: S608
_SEAL_DAY = f"""
WITH rows AS (
    DELETE FROM streams_rolluphour
     WHERE NOT sealed AND hour >= %(day)s AND hour < %(day)s::timestamptz + interval '1 day'
 RETURNING *)
{_INSERT.format(sealed="true")}{_ADDED}
"""  # noqa: S608
# Whole hours only, by the age of their series' newest event: recorded data read in later would
# else vanish as soon as it came.
_SEAL_OLD = f"""
WITH aged AS MATERIALIZED (
    SELECT DISTINCT r.series_id, date_trunc('hour', r.minute, 'UTC') AS hour, r.incarnation_id,
           r.partition
      FROM (SELECT r.* FROM streams_rollup_default r JOIN streams_series s ON s.id = r.series_id
             WHERE r.minute < date_trunc('hour', LEAST(%(now)s, coalesce(s.last_event_at, %(now)s))
                                - make_interval(secs => %(age_s)s), 'UTC')
             LIMIT %(chunk)s) AS r),
gone AS (
    DELETE FROM streams_rolluphour h USING aged
     WHERE (h.series_id, h.hour, h.incarnation_id, h.partition)
         = (aged.series_id, aged.hour, aged.incarnation_id, aged.partition) AND NOT h.sealed),
m AS (
    DELETE FROM streams_rollup_default r USING aged
     WHERE r.series_id = aged.series_id AND r.minute >= aged.hour
       AND r.minute < aged.hour + interval '1 hour' AND r.incarnation_id = aged.incarnation_id
       AND r.partition = aged.partition
 RETURNING r.*, aged.hour),
{_SUM}{_INSERT.format(sealed="true")}{_ADDED}
RETURNING (SELECT count(*) FROM m)
"""  # noqa: S608
_OLD = """
DELETE FROM streams_rolluphour WHERE ctid = ANY (ARRAY(
    SELECT h.ctid FROM streams_rolluphour h LEFT JOIN streams_series s ON s.id = h.series_id
     WHERE h.hour < %(now)s - make_interval(secs => %(age_s)s)
       AND h.hour < coalesce(s.last_event_at, %(now)s) - make_interval(secs => %(age_s)s)
     LIMIT %(chunk)s))
"""


def roll_up(now: dt.datetime, most: int = AT_ONCE) -> int:
    """Make the hours whose minutes changed and have come to rest; returns how many, at most `most`.

    The hour that runs is left to its minutes, and what never rests is made once an hour.
    """
    ended = now.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    due = HourDue.objects.filter(
        Q(touched_at__lt=now - QUIET) | Q(since__lt=now - LONGEST_WAIT), hour__lt=ended
    ).order_by("hour", "incarnation", "partition")
    marks = list(due.values_list("incarnation", "partition", "hour", "changes")[:most])
    for mark in marks:
        with transaction.atomic(), connection.cursor() as cursor:
            _one_at_a_time(cursor)
            _make(cursor, *mark)
    return len(marks)


def seal_day(cursor: Any, day: dt.datetime) -> None:
    """Within the transaction that drops the minutes of `day`, nobody writing them meanwhile."""
    _one_at_a_time(cursor)
    end = day + dt.timedelta(days=1)
    due = HourDue.objects.filter(hour__gte=day, hour__lt=end).order_by("hour")
    for mark in list(due.values_list("incarnation", "partition", "hour", "changes")):
        _make(cursor, *mark)
    cursor.execute(_SEAL_DAY, {"day": day})


def seal_old(now: dt.datetime, age: dt.timedelta, chunk: int = CHUNK) -> int:
    """Seal old hours of the default partition and drop their minutes; returns how many minutes."""
    total = 0
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            _one_at_a_time(cursor)
            cursor.execute(_SEAL_OLD, {"now": now, "age_s": age.total_seconds(), "chunk": chunk})
            taken = cursor.fetchone()
        if taken is None:
            return total
        total += int(taken[0])


def drop_hours(now: dt.datetime, age: dt.timedelta, chunk: int = 10_000) -> int:
    """Drop hours that are older; returns how many rows."""
    total = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(_OLD, {"now": now, "age_s": age.total_seconds(), "chunk": chunk})
            gone = int(cursor.rowcount)
        total += gone
        if gone < chunk:
            return total


def _one_at_a_time(cursor: Any) -> None:
    """Making and sealing the same hour at once would count it twice."""
    cursor.execute("SELECT pg_advisory_xact_lock(724102)")


def _make(cursor: Any, life: int, partition: int, hour: dt.datetime, changes: int) -> None:
    cursor.execute(_MAKE, {"life": life, "partition": partition, "hour": hour})
    # Only if nothing has been written since it was read: else it is made once more.
    cursor.execute(
        "DELETE FROM streams_hourdue WHERE incarnation_id = %s AND partition = %s AND hour = %s"
        " AND changes = %s",
        [life, partition, hour, changes],
    )
