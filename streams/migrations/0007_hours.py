"""Hours of series, and a mark for each hour whose minutes are there already."""

from __future__ import annotations

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

MARK = """
INSERT INTO streams_hourdue (incarnation_id, partition, hour, changes, since, touched_at)
SELECT incarnation_id, partition, date_trunc('hour', minute, 'UTC'), 1, now(), now()
  FROM streams_rollup GROUP BY 1, 2, 3
"""


def loose(to: str) -> models.ForeignKey:
    return models.ForeignKey(
        db_constraint=False,
        db_index=False,
        on_delete=django.db.models.deletion.DO_NOTHING,
        to=to,
    )


def counts() -> django.contrib.postgres.fields.ArrayField:
    return django.contrib.postgres.fields.ArrayField(
        base_field=models.IntegerField(), null=True, size=None
    )


class Migration(migrations.Migration):
    dependencies = [("streams", "0006_preferences")]

    operations = [
        migrations.CreateModel(
            name="HourDue",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "incarnation",
                        "partition",
                        "hour",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("incarnation", loose("streams.topicincarnation")),
                ("partition", models.IntegerField()),
                ("hour", models.DateTimeField()),
                ("changes", models.BigIntegerField(default=1)),
                ("since", models.DateTimeField()),
                ("touched_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="RollupHour",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "series",
                        "hour",
                        "incarnation",
                        "partition",
                        "sealed",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("series", loose("streams.series")),
                ("hour", models.DateTimeField()),
                ("incarnation", loose("streams.topicincarnation")),
                ("partition", models.IntegerField()),
                ("sealed", models.BooleanField(default=False)),
                ("count", models.BigIntegerField()),
                ("scored", models.BigIntegerField()),
                (
                    "bands",
                    models.IntegerField(
                        help_text="Segments with a band: what the band's means weigh."
                    ),
                ),
                ("min", models.FloatField()),
                ("max", models.FloatField()),
                ("mean", models.FloatField()),
                ("last", models.FloatField()),
                ("max_score", models.FloatField(null=True)),
                ("expected_low", models.FloatField(null=True)),
                ("expected_mid", models.FloatField(null=True)),
                ("expected_high", models.FloatField(null=True)),
                ("score_counts", counts()),
                ("onset_counts", counts()),
            ],
            options={
                "indexes": [models.Index(fields=["hour"], name="streams_rolluphour_hour")],
            },
        ),
        migrations.RunSQL(
            "ALTER TABLE streams_hourdue SET (fillfactor = 50)", migrations.RunSQL.noop
        ),
        migrations.RunSQL(MARK, migrations.RunSQL.noop),
    ]
