"""What swim lanes read lies in one index; what was stored after a place is found by it."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("anomalies", "0005_lists_notes_views"), ("streams", "0007_hours")]

    operations = [
        migrations.AddIndex(
            model_name="anomaly",
            index=models.Index(
                fields=["onset_at"],
                include=("source", "metric", "stream", "severity", "score", "peak_score", "label"),
                name="anomalies_lanes",
            ),
        ),
        migrations.AddIndex(
            model_name="anomaly",
            index=models.Index(
                fields=["incarnation", "partition", "offset"], name="anomalies_by_place"
            ),
        ),
    ]
