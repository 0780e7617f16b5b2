"""Series rows: made when a series is first seen, and looked up by id when state is restored."""

from __future__ import annotations

import numpy as np
from django.db import connection

from streams.models import Series, Stream
from streams.series import SeriesIndex

_INSERT = """
WITH given AS (SELECT * FROM unnest(%s::text[], %s::text[]) AS g (source, metric)),
made AS (
    INSERT INTO streams_series (stream_id, source, metric, events, held_back, created_at)
    SELECT %s, source, metric, 0, 0, now() FROM given ORDER BY source, metric
    ON CONFLICT (stream_id, source, metric) DO NOTHING
    RETURNING id, source, metric
)
SELECT id, source, metric FROM made
UNION ALL
SELECT s.id, s.source, s.metric FROM streams_series s
JOIN given g ON s.source = g.source AND s.metric = g.metric WHERE s.stream_id = %s
"""


class SeriesStore:
    """Gives every code of an index its database id."""

    def ensure(self, stream: Stream, index: SeriesIndex) -> None:
        """Store series that are new. Safe to repeat and to run in several processes."""
        codes = index.unstored()
        while len(codes):
            names = [index.names[c] for c in codes.tolist()]
            with connection.cursor() as cursor:
                cursor.execute(
                    _INSERT,
                    [[n[0] for n in names], [n[1] for n in names], stream.pk, stream.pk],
                )
                found = cursor.fetchall()
            known = [index.codes[(source, metric)] for _, source, metric in found]
            index.learn_ids(
                np.array(known, dtype=np.intp), np.array([f[0] for f in found], dtype=np.int64)
            )
            # One that another process made at the same moment shows with the next look.
            codes = index.unstored()

    def names(self, ids: list[int]) -> dict[int, tuple[str, str]]:
        """(source, metric) by id."""
        rows = Series.objects.filter(pk__in=ids).values_list("pk", "source", "metric")
        return {pk: (source, metric) for pk, source, metric in rows}
