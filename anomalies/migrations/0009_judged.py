"""Labels by series out of one index."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("anomalies", "0008_by_worst_alone")]

    operations = [
        migrations.AddIndex(
            model_name="anomaly",
            index=models.Index(
                condition=models.Q(models.Q(("label", ""), _negated=True), ("origin", "detector")),
                fields=["series", "label"],
                include=("source", "metric"),
                name="anomalies_judged",
            ),
        ),
    ]
