from django.db import migrations, models

# Whoever stores notifications wakes the workers: PostgreSQL tells them once it is committed.
LISTENED = """
CREATE FUNCTION alerts_notification_told() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NOTIFY vigil_notifications; RETURN NULL; END $$;
CREATE TRIGGER alerts_notification_told AFTER INSERT ON alerts_notification
FOR EACH STATEMENT EXECUTE FUNCTION alerts_notification_told();
"""
DEAF = """
DROP TRIGGER alerts_notification_told ON alerts_notification;
DROP FUNCTION alerts_notification_told();
"""


class Migration(migrations.Migration):
    dependencies = [("alerts", "0002_rule_budget")]

    operations = [
        migrations.AddField(
            model_name="notification",
            name="forgiven",
            field=models.IntegerField(
                default=0, help_text="Attempts before somebody sent it again: they count no more."
            ),
        ),
        migrations.AlterField(
            model_name="notification",
            name="reason",
            field=models.CharField(
                choices=[
                    ("opened", "Opened"),
                    ("worse", "Worse"),
                    ("again", "Again"),
                    ("reminder", "Reminder"),
                    ("escalated", "Escalated"),
                    ("acknowledged", "Acknowledged"),
                    ("resolved", "Resolved"),
                    ("still_firing", "Still Firing"),
                    ("digest", "Digest"),
                    ("budget", "Budget"),
                    ("test", "Test"),
                ],
                max_length=14,
            ),
        ),
        migrations.AddIndex(
            model_name="notification",
            index=models.Index(
                condition=models.Q(("state__in", ["waiting", "sending"])),
                fields=["incident", "receiver", "created_at"],
                name="alerts_notification_order",
            ),
        ),
        migrations.RunSQL(LISTENED, DEAF),
    ]
