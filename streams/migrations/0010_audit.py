import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

# What was done stays done: entries are added, and that is all.
APPEND_ONLY = """
CREATE FUNCTION streams_audit_stays() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'entries of the audit are neither changed nor deleted'; END $$;
CREATE TRIGGER streams_audit_stays BEFORE UPDATE OR DELETE ON streams_auditentry
FOR EACH ROW EXECUTE FUNCTION streams_audit_stays();
"""
UNDONE = """
DROP TRIGGER streams_audit_stays ON streams_auditentry;
DROP FUNCTION streams_audit_stays();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("streams", "0009_processes"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("at", models.DateTimeField(auto_now_add=True)),
                ("actor_name", models.CharField(max_length=150)),
                (
                    "via",
                    models.CharField(
                        help_text="page, admin, api, command or system.", max_length=20
                    ),
                ),
                (
                    "action",
                    models.CharField(
                        choices=[
                            ("created", "Created"),
                            ("changed", "Changed"),
                            ("deleted", "Deleted"),
                            ("acted", "Acted"),
                        ],
                        max_length=8,
                    ),
                ),
                (
                    "kind",
                    models.CharField(help_text="What sort of thing: app.Model.", max_length=60),
                ),
                ("object_id", models.CharField(max_length=60)),
                ("object_name", models.CharField(max_length=300)),
                ("before", models.JSONField(null=True)),
                ("after", models.JSONField(null=True)),
                (
                    "actor",
                    models.ForeignKey(
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "reverts",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="reverted_by",
                        to="streams.auditentry",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "audit entries",
                "indexes": [
                    models.Index(fields=["kind", "object_id", "-id"], name="streams_audit_object"),
                    models.Index(fields=["actor_name", "-id"], name="streams_audit_actor"),
                    models.Index(fields=["-at"], name="streams_audit_newest"),
                ],
            },
        ),
        migrations.RunSQL(APPEND_ONLY, UNDONE),
    ]
