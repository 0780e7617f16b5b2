"""The rollup table, partitioned by day, and uncompressed state rows (they change all the time)."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations

CREATE = """
CREATE TABLE streams_rollup (
    series_id bigint NOT NULL,
    minute timestamptz NOT NULL,
    incarnation_id bigint NOT NULL,
    partition integer NOT NULL,
    first_offset bigint NOT NULL,
    count integer NOT NULL,
    scored integer NOT NULL,
    min double precision NOT NULL,
    max double precision NOT NULL,
    mean double precision NOT NULL,
    last double precision NOT NULL,
    max_score double precision,
    expected_low double precision,
    expected_mid double precision,
    expected_high double precision,
    score_counts integer[],
    onset_counts integer[],
    PRIMARY KEY (series_id, minute, incarnation_id, partition, first_offset)
) PARTITION BY RANGE (minute);
CREATE TABLE streams_rollup_default PARTITION OF streams_rollup DEFAULT;
CREATE INDEX streams_rollup_minute ON streams_rollup (minute);
ALTER TABLE streams_statesnapshot ALTER COLUMN state SET STORAGE EXTERNAL;
"""


class Migration(migrations.Migration):
    dependencies: ClassVar = [("streams", "0001_initial")]
    operations: ClassVar = [migrations.RunSQL(CREATE, "DROP TABLE streams_rollup")]
