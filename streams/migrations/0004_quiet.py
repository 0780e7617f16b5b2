from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("streams", "0003_snapshot_layout"),
    ]

    operations = [
        migrations.AddField(
            model_name="series",
            name="held_back",
            field=models.BigIntegerField(
                default=0, help_text="Onsets that a budget of onsets a day held back so far."
            ),
        ),
        migrations.AddField(
            model_name="series",
            name="raised_threshold",
            field=models.FloatField(
                help_text="What that budget has raised the threshold to; empty: it has not.",
                null=True,
            ),
        ),
    ]
