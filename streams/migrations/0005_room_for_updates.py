from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    """Rows of series are updated again and again, never in an indexed column: with room beside them
    in their page, PostgreSQL need not touch the indexes (heap-only tuples)."""

    dependencies = [("streams", "0004_quiet")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE streams_series SET (fillfactor = 70)",
            "ALTER TABLE streams_series RESET (fillfactor)",
        )
    ]
