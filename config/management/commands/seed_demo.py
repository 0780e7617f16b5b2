"""`manage.py seed_demo`: a database as large as after a year, to look at pages and to time them."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection, transaction
from django.utils import timezone

from streams import hours
from streams.models import Stream

NAME = "seed-demo"
MINUTES = 1_440

# random() follows setseed().
_SERIES = """
INSERT INTO streams_series (stream_id, source, metric, first_event_at, last_event_at, last_value,
    last_partition, events, held_back, created_at)
SELECT %(stream)s, 'host-' || lpad((i / 8)::text, 5, '0'),
    (ARRAY['cpu_usage', 'memory_used', 'disk_io', 'net_in', 'net_out', 'latency_ms',
           'errors_per_min', 'queue_length'])[1 + i %% 8],
    now() - %(days)s * interval '1 day', now(), 50 + 20 * random(), i / 8 %% 4, 100000, 0, now()
FROM generate_series(0, %(series)s - 1) AS i
ON CONFLICT DO NOTHING
"""

_ANOMALIES = """
INSERT INTO anomalies_anomaly (id, stream_id, series_id, source, metric, origin, kind,
    anomaly_type, state, severity, onset_at, end_at, count, value, score, peak_value, peak_score,
    peak_at, direction, expected_low, expected_mid, expected_high, threshold, policy, detectors,
    features, context, explanation, evidence, models_used, incarnation_id, partition, "offset",
    last_offset, late, message, label, labelled_at, stored_at, updated_at)
SELECT md5(%(life)s || '/' || i)::uuid, %(stream)s, s.id, s.source, s.metric, 'detector',
    'episode', (ARRAY['spike', 'dip', 'level_shift', 'trend_change', 'variance_change',
                      'contextual', 'pattern', 'flatline'])[1 + i %% 8],
    'closed', CASE WHEN score > 0.95 THEN 4 WHEN score > 0.9 THEN 3 WHEN score > 0.85 THEN 2
              ELSE 1 END,
    at, at + interval '90 s', 4, value, score, value, score, at, 1, 30, 50, 70, 0.8, 'seeded v1',
    jsonb_build_object('online', score, 'zscore', score / 2), '{}', '[]',
    s.metric || ' on ' || s.source || ' was ' || round(value::numeric, 1)
        || ', above the 50 expected.',
    '{}', '{}', %(life)s, 0, i, i, false, '',
    CASE WHEN i %% 50 = 0 THEN 'real' WHEN i %% 70 = 0 THEN 'false_alarm' ELSE '' END,
    CASE WHEN i %% 50 = 0 OR i %% 70 = 0 THEN at + interval '1 hour' END, at, at
FROM (SELECT i, now() - %(days)s * interval '1 day' * power(random(), 2) AS at,
             0.8 + 0.2 * power(random(), 3) AS score, 75 + 50 * random() AS value,
             (random() * (%(series)s - 1))::int AS nth
      FROM generate_series(1, %(anomalies)s) AS i) AS e
JOIN (SELECT id, source, metric, row_number() OVER (ORDER BY id) - 1 AS nth
      FROM streams_series WHERE stream_id = %(stream)s) AS s USING (nth)
ON CONFLICT DO NOTHING
"""

_CANDIDATES = """
INSERT INTO anomalies_candidate (series_id, incarnation_id, partition, "offset", event_at, value,
    score, direction, deviation, expected_mid, levels)
SELECT series_id, %(life)s, 0, last_offset, onset_at, value, score, 1, value - 50, 50, 1023
FROM anomalies_anomaly WHERE stream_id = %(stream)s AND onset_at > now() - interval '7 days'
ON CONFLICT DO NOTHING
"""

# One day of the first series that pages open on.
_ROLLUPS = """
INSERT INTO streams_rollup (series_id, minute, incarnation_id, partition, first_offset, count,
    scored, min, max, mean, last, max_score, expected_low, expected_mid, expected_high)
SELECT s.id, date_trunc('minute', now()) - m * interval '1 minute', %(life)s, 0, 100000 - 6 * m,
    6, 6, v - 2, v + 2, v, v + 1, 0.3, 30, 50, 70
FROM (SELECT id FROM streams_series WHERE stream_id = %(stream)s
      ORDER BY source, metric LIMIT 200) AS s
CROSS JOIN generate_series(0, {minutes} - 1) AS m
CROSS JOIN LATERAL (SELECT 50 + 15 * sin(m / 120.0 + s.id) AS v) AS w
ON CONFLICT DO NOTHING
"""

# The days before it as hours, their minutes gone.
_HOURS = """
INSERT INTO streams_rolluphour (series_id, hour, incarnation_id, partition, sealed, count, scored,
    bands, min, max, mean, last, max_score, expected_low, expected_mid, expected_high)
SELECT s.id, date_trunc('hour', now(), 'UTC') - h * interval '1 hour', %(life)s, 0, true, 360, 360,
    60, v - 3, v + 3, v, v + 1, 0.4, 30, 50, 70
FROM (SELECT id FROM streams_series WHERE stream_id = %(stream)s
      ORDER BY source, metric LIMIT 200) AS s
CROSS JOIN generate_series(25, 24 * %(days)s::int) AS h
CROSS JOIN LATERAL (SELECT 50 + 15 * sin(h / 4.0 + s.id) AS v) AS w
ON CONFLICT DO NOTHING
"""

_MARKS = """
INSERT INTO streams_hourdue (incarnation_id, partition, hour, changes, since, touched_at)
SELECT %(life)s, 0, date_trunc('hour', now(), 'UTC') - h * interval '1 hour', 1, now(),
       now() - interval '1 hour'
FROM generate_series(0, 24) AS h
"""

_WORK = """
INSERT INTO streams_pipelinestat (instance, minute, events, anomalies, rejects, lag, places)
SELECT 'seed-demo', date_trunc('minute', now()) - m * interval '1 minute', 60000, 20, 0, 0, '{}'
FROM generate_series(0, {minutes} * %(days)s::int - 1) AS m
ON CONFLICT DO NOTHING
"""


class Command(BaseCommand):
    help = (
        "Fill the stream seed-demo with made-up series and anomalies, to look at pages and to time"
        " them; --clear takes all of it away."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--anomalies", type=int, default=100_000)
        parser.add_argument("--series", type=int, default=10_000)
        parser.add_argument("--days", type=int, default=30, help="before now")
        parser.add_argument("--clear", action="store_true", help="take the seeded rows away")

    def handle(self, *args: Any, **options: Any) -> None:
        for name, least, most in (("anomalies", 0, 10_000_000), ("series", 1, 200_000),
                                  ("days", 1, 365)):  # fmt: skip
            if not least <= options[name] <= most:
                raise CommandError(f"--{name} is {least:,} to {most:,}, not {options[name]:,}")
        with transaction.atomic():
            self._clear()
            if not options["clear"]:
                self._fill(options)
        if not options["clear"]:
            hours.roll_up(timezone.now())
            with connection.cursor() as cursor:
                # PostgreSQL does so by itself after some minutes; within a transaction it can't.
                cursor.execute("ANALYZE" if connection.in_atomic_block else "VACUUM ANALYZE")
        done = "taken away" if options["clear"] else (
            f"{options['series']:,} series and {options['anomalies']:,} anomalies over"
            f" {options['days']} days in the stream {NAME}")  # fmt: skip
        self.stdout.write(f"seed-demo: {done}")

    @staticmethod
    def _clear() -> None:
        with connection.cursor() as cursor:
            for table in ("streams_rollup", "streams_rolluphour"):
                cursor.execute(
                    f"DELETE FROM {table} WHERE series_id IN (SELECT s.id FROM streams_series s"  # noqa: S608
                    " JOIN streams_stream t ON t.id = s.stream_id WHERE t.name = %s)",
                    [NAME],
                )
            cursor.execute(
                "DELETE FROM streams_hourdue WHERE incarnation_id IN (SELECT i.id FROM"
                " streams_topicincarnation i JOIN streams_stream t ON t.id = i.stream_id"
                " WHERE t.name = %s)",
                [NAME],
            )
            cursor.execute("DELETE FROM streams_pipelinestat WHERE instance = %s", [NAME])
            # Row by row through Django a million anomalies would take minutes.
            for table in ("anomalies_candidate", "anomalies_anomaly"):
                cursor.execute(
                    f"DELETE FROM {table} WHERE series_id IN (SELECT s.id FROM streams_series s"  # noqa: S608
                    " JOIN streams_stream t ON t.id = s.stream_id WHERE t.name = %s)",
                    [NAME],
                )
        Stream.objects.filter(name=NAME).delete()

    @staticmethod
    def _fill(options: dict[str, Any]) -> None:
        stream = Stream.objects.create(name=NAME, topic=NAME)
        life = stream.incarnations.create(topic_id=f"{NAME}-topic")
        values = {name: options[name] for name in ("series", "anomalies", "days")}
        values |= {"stream": stream.pk, "life": life.pk}
        with connection.cursor() as cursor:
            cursor.execute("SELECT setseed(0.42)")
            for statement in (_SERIES, _ANOMALIES, _CANDIDATES, _ROLLUPS, _HOURS, _MARKS, _WORK):
                cursor.execute(statement.replace("{minutes}", str(MINUTES)), values)
