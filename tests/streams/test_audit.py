"""Each change leaves one entry that stays, whichever way it came."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import DatabaseError, transaction
from django.test import Client

from anomalies import proposals
from config.wiring import ensure_stream
from detection import learnt_weights
from detection.models import LearntWeights, ThresholdPolicy
from streams import audit
from streams.audit import Action
from streams.models import AuditEntry
from tests import builders

pytestmark = pytest.mark.django_db
POLICY = {
    "name": "Night", "enabled": "on", "stream": "", "source_pattern": "web-*", "metric_pattern": "",
    "priority": "0", "threshold": "0.9", "direction": "both", "min_absolute_deviation": "0",
    "min_relative_deviation": "0", "max_onsets_per_day": "", "medium_from": "0.85",
    "high_from": "0.9", "critical_from": "0.95",
}  # fmt: skip


def newest() -> AuditEntry:
    found = AuditEntry.objects.order_by("-pk").first()
    assert found is not None
    return found


def test_an_entry_is_neither_changed_nor_deleted_by_anybody() -> None:
    entry = audit.record("anna", Action.CREATED, builders.stream("shop"), None, {"name": "shop"})
    assert entry is not None
    rows, stays = AuditEntry.objects.filter(pk=entry.pk), "neither changed nor deleted"
    with pytest.raises(DatabaseError, match=stays), transaction.atomic():
        rows.update(actor_name="nobody")
    with pytest.raises(DatabaseError, match=stays), transaction.atomic():
        rows.delete()
    assert newest().actor_name == "anna"


def test_an_entry_outlives_its_user_and_needs_a_change() -> None:
    anna = builders.user("anna")
    stream = builders.stream("shop")
    assert audit.record(anna, Action.CHANGED, stream, {"a": 1}, {"a": 1}) is None
    audit.record(anna, Action.CHANGED, stream, {"a": 1}, {"a": 2})
    anna.delete()
    assert (newest().actor_name, newest().before, newest().after) == ("anna", {"a": 1}, {"a": 2})


def test_nobody_changes_or_deletes_entries_in_the_admin(admin_client: Client) -> None:
    entry = audit.record("anna", Action.CREATED, builders.stream("shop"))
    assert entry is not None
    assert admin_client.get("/admin/streams/auditentry/").status_code == 200
    path = f"/admin/streams/auditentry/{entry.pk}"
    assert admin_client.get(f"{path}/change/").status_code == 200
    assert admin_client.post(f"{path}/change/", {"actor_name": "x"}).status_code == 403
    assert admin_client.post(f"{path}/delete/", {"post": "yes"}).status_code == 403


def test_policies_of_the_admin_are_written_down_with_before_and_after(admin_client: Client) -> None:
    admin_client.post("/admin/detection/thresholdpolicy/add/", POLICY)
    policy = ThresholdPolicy.objects.get(name="Night")
    assert (newest().action, newest().via, newest().actor_name) == ("created", "admin", "admin")
    path = f"/admin/detection/thresholdpolicy/{policy.pk}/change/"
    admin_client.post(path, POLICY | {"threshold": "0.95"})
    entry = newest()
    assert (entry.before["threshold"], entry.after["threshold"]) == (0.9, 0.95)
    assert list(entry.before) == list(entry.after)
    admin_client.post(path.replace("change", "delete"), {"post": "yes"})
    assert (newest().action, newest().before["name"]) == ("deleted", "Night")


def test_a_threshold_taken_from_labels_is_written_down() -> None:
    series = builders.series()
    anna = builders.user("anna")
    made = proposals.apply(series, 0.9, anna)
    proposals.apply(series, 0.92, anna)
    entry = newest()
    assert (entry.object_id, entry.actor_name) == (str(made.pk), "anna")
    assert (entry.before["threshold"], entry.after["threshold"]) == (0.9, 0.92)


def test_weights_by_page_and_command_say_which_way_they_came(admin_client: Client) -> None:
    stream = builders.stream("shop")
    row = LearntWeights.objects.create(
        stream=stream, method="max", weights={"online": 1.0}, gain=1.0, metrics={}, settings={},
        created_by="anna",
    )  # fmt: skip
    call_command("weights", "--use", str(row.pk))
    assert (newest().via, newest().after["weights_in_use"]) == ("command", row.pk)
    admin_client.post(f"/models/weights/{row.pk}/leave")
    assert (newest().via, newest().actor_name) == ("page", "admin")
    assert (newest().before["weights_in_use"], newest().after["weights_in_use"]) == (row.pk, None)
    learnt_weights.use(row.pk, "vigil")
    assert newest().via == "system"


def test_what_the_configuration_changes_of_a_stream_is_written_down_once() -> None:
    config = settings.VIGIL
    ensure_stream(config, config.streams[0])
    ensure_stream(config, config.streams[0])
    assert AuditEntry.objects.count() == 1
    given = config.streams[0].model_copy(update={"time_zone": "Europe/Berlin"})
    ensure_stream(config, given)
    assert (newest().actor_name, newest().after["time_zone"]) == ("config.yaml", "Europe/Berlin")


def test_a_change_that_fails_leaves_no_entry() -> None:
    with pytest.raises(ValueError, match="a threshold of the levels"):
        proposals.apply(builders.series(), 0.123456, "anna")
    assert not AuditEntry.objects.exists()
