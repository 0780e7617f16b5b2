from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("alerts", "0001_incidents")]

    operations = [
        migrations.AddField(
            model_name="rule",
            name="solved_score",
            field=models.FloatField(
                blank=True,
                help_text="The least score that keeps to its budget, as of solved_at.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="rule",
            name="solved_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
