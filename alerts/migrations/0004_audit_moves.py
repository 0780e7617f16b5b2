from django.db import migrations

# All apps write to the audit: it lives in the app that all of them may import.
MOVED = """
INSERT INTO streams_auditentry (id, at, actor_id, actor_name, via, action, kind, object_id,
                                object_name, before, after, reverts_id)
SELECT id, at, actor_id, actor_name, via, action, kind, object_id, object_name, before, after,
       reverts_id FROM alerts_auditentry ORDER BY id;
SELECT setval(pg_get_serial_sequence('streams_auditentry', 'id'),
              (SELECT coalesce(max(id), 0) + 1 FROM streams_auditentry), false);
"""


class Migration(migrations.Migration):
    dependencies = [("alerts", "0003_delivery"), ("streams", "0010_audit")]

    operations = [
        migrations.RunSQL(MOVED, migrations.RunSQL.noop),
        migrations.DeleteModel(name="AuditEntry"),
    ]
