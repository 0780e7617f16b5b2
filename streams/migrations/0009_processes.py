"""Each process with its last sign of life."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("streams", "0008_handled_letters_and_places")]

    operations = [
        migrations.CreateModel(
            name="Process",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("consumer", "Consumer"),
                            ("web", "Web"),
                            ("worker", "Worker"),
                            ("scheduler", "Scheduler"),
                            ("alerts", "Alerts"),
                        ],
                        max_length=10,
                    ),
                ),
                ("host", models.CharField(max_length=200)),
                ("pid", models.IntegerField()),
                ("version", models.CharField(max_length=40)),
                ("started_at", models.DateTimeField()),
                ("beat_at", models.DateTimeField()),
                ("doing", models.CharField(blank=True, default="", max_length=200)),
                (
                    "cpu_share",
                    models.FloatField(help_text="Cores in use since the sign before.", null=True),
                ),
                ("rss_mb", models.FloatField(default=0)),
            ],
            options={
                "verbose_name_plural": "processes",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("kind", "host", "pid"), name="streams_process_identity"
                    )
                ],
            },
        ),
    ]
