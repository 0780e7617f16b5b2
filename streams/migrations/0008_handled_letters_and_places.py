"""Who did what with a dead letter and why; each minute's offsets of a consumer's partitions."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("streams", "0007_hours")]

    operations = [
        migrations.AddField(
            model_name="deadletter", name="handled_at", field=models.DateTimeField(null=True)
        ),
        migrations.AddField(
            model_name="deadletter",
            name="handled_by",
            field=models.CharField(blank=True, default="", max_length=150),
        ),
        migrations.AddField(
            model_name="deadletter",
            name="note",
            field=models.CharField(
                blank=True, default="", help_text="Why it was discarded.", max_length=200
            ),
        ),
        migrations.AddField(
            model_name="pipelinestat",
            name="places",
            field=models.JSONField(
                default=dict,
                help_text="{topic/partition: [next offset, end offset]}, last seen in it.",
            ),
        ),
    ]
