import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("detection", "0003_counts_by_partition"),
    ]

    operations = [
        migrations.AddField(
            model_name="quarantinerelease",
            name="anomaly_id",
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name="quarantinerelease",
            name="first_event",
            field=models.BigIntegerField(
                help_text="Of the episode, counted in its series; empty: not known.", null=True
            ),
        ),
        migrations.AddField(
            model_name="quarantinerelease",
            name="flat",
            field=models.BooleanField(
                default=False, help_text="A flat line of this length is usual."
            ),
        ),
        migrations.AddField(
            model_name="quarantinerelease",
            name="last_event",
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="quarantinerelease",
            name="partition",
            field=models.IntegerField(
                help_text="Where the episode was; empty: anywhere.", null=True
            ),
        ),
        migrations.AddField(
            model_name="quarantinerelease",
            name="values",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.FloatField(),
                default=list,
                help_text="At the onset and the peak.",
                size=None,
            ),
        ),
    ]
