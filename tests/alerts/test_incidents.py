"""What people do with incidents, and that the timeline, the topic and the anomalies tell of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from alerts import incidents
from alerts.errors import ActionError
from alerts.models import Incident, IncidentMessage, Notification
from anomalies.models import Anomaly
from tests import builders
from tests.alerts import scene

pytestmark = pytest.mark.django_db


@pytest.fixture
def anna() -> User:
    return builders.user("anna")


def word(of: Incident, due_s: float, **more: Any) -> Notification:
    number = Notification.objects.count()
    return Notification.objects.create(
        id=uuid.uuid4(),
        incident=of, receiver=scene.receiver(f"r{number}"), reason="opened", severity=3,
        event_at=of.first_at, payload={}, due_at=timezone.now() + timedelta(seconds=due_s), **more,
    )  # fmt: skip


def told(of: Incident) -> list[tuple[str, str]]:
    return list(of.timeline.order_by("id").values_list("kind", "text"))[1:]


def changes() -> list[tuple[int, str, str]]:
    rows = IncidentMessage.objects.order_by("id")
    return [(m.sequence, m.payload["change"], m.payload["state"]) for m in rows]


def test_its_life_by_hand(anna: User) -> None:
    one = scene.incident()
    incidents.acknowledge(one.pk, anna)
    incidents.acknowledge(one.pk, anna)
    incidents.resolve(one.pk, anna)
    incidents.resolve(one.pk, anna)
    again = incidents.reopen(one.pk, anna)

    assert told(one) == [
        ("acknowledged", "anna acknowledged it."),
        ("resolved", "anna resolved it."),
        ("reopened", "anna opened it again."),
    ]
    assert changes() == [
        (1, "acknowledged", "acknowledged"), (2, "resolved", "resolved"), (3, "reopened", "open"),
    ]  # fmt: skip
    assert (again.state, again.acknowledged_by, again.resolved_at) == ("open", None, None)


def test_acknowledging_ends_escalations_and_resolving_all_that_waits(anna: User) -> None:
    one = scene.incident()
    escalation = word(one, 600, only_if_unacknowledged=True)
    reminder = word(one, 900)
    due = word(one, -1)
    good_news = word(one, 900)
    Notification.objects.filter(pk=good_news.pk).update(reason="resolved")

    def states() -> list[str]:
        rows = (escalation, reminder, due, good_news)
        return [Notification.objects.get(pk=n.pk).state for n in rows]

    incidents.acknowledge(one.pk, anna)
    assert states() == ["cancelled", "waiting", "waiting", "waiting"]
    incidents.resolve(one.pk, anna)
    assert states() == ["cancelled", "cancelled", "waiting", "waiting"]


def test_assigning_and_commenting(anna: User) -> None:
    bert = builders.user("bert")
    one = scene.incident()
    incidents.assign(one.pk, bert, anna)
    incidents.comment(one.pk, "  the pump hums  ", bert)
    incidents.assign(one.pk, None, anna)

    assert told(one) == [
        ("assigned", "anna assigned it to bert."),
        ("comment", "the pump hums"),
        ("assigned", "anna assigned it to nobody."),
    ]
    assert one.timeline.get(kind="comment").actor == bert
    assert [c[1] for c in changes()] == ["assigned", "assigned"]


def test_snoozing_moves_what_waits_to_its_end_and_back(anna: User) -> None:
    one = scene.incident()
    soon, later = word(one, 60), word(one, 90_000)
    until = timezone.now() + timedelta(hours=1)
    incidents.snooze(one.pk, until, anna)
    soon.refresh_from_db()
    assert soon.due_at == until
    incidents.snooze(one.pk, None, anna)
    soon.refresh_from_db()
    assert soon.due_at <= timezone.now()
    assert Notification.objects.get(pk=later.pk).due_at == later.due_at


def test_a_label_flows_to_its_anomalies_but_not_over_what_somebody_said(anna: User) -> None:
    one = scene.incident(members=3)
    own = Anomaly.objects.order_by("pk")[0]
    own.label = "false_alarm"
    own.save()
    incidents.label(one.pk, "real", anna)
    labels = list(Anomaly.objects.order_by("pk").values_list("label", "labelled_by__username"))
    assert labels == [("false_alarm", None), ("real", "anna"), ("real", "anna")]
    assert told(one)[0][1] == "anna labelled it real, with 2 anomalies; 1 keep labels of their own."

    incidents.label(one.pk, "", anna)
    assert list(Anomaly.objects.order_by("pk").values_list("label", flat=True)) == [
        "false_alarm", "", "",
    ]  # fmt: skip


def test_merging_moves_anomalies_and_leads_to_the_other(anna: User) -> None:
    one, other = scene.incident(1, members=2, severity=4), scene.incident(2)
    incidents.merge(one.pk, other.pk, anna)
    one.refresh_from_db()
    other.refresh_from_db()

    assert (one.state, one.merged_into, one.members.count()) == ("resolved", other, 0)
    assert (other.anomaly_count, other.members.count(), other.severity) == (3, 3, 4)
    assert other.first_at == one.first_at
    assert other.sources == ["web-2", "web-1"]
    for act in (incidents.acknowledge, incidents.resolve, incidents.reopen):
        with pytest.raises(ActionError, match=f"merged into INC-{other.pk}"):
            act(one.pk, anna)


MISTAKES: list[tuple[str, Callable[[int], object]]] = [
    ("text", lambda pk: incidents.comment(pk, "  ", None)),
    ("text", lambda pk: incidents.comment(pk, "x" * 4_001, None)),
    ("until", lambda pk: incidents.snooze(pk, timezone.now() - timedelta(1), None)),
    ("until", lambda pk: incidents.snooze(pk, timezone.now() + timedelta(31), None)),
    ("label", lambda pk: incidents.label(pk, "odd", None)),
    ("into", lambda pk: incidents.merge(pk, pk, None)),
    ("into", lambda pk: incidents.merge(pk, 10**12, None)),
]


@pytest.mark.parametrize(("field", "act"), MISTAKES)
def test_a_mistake_names_its_field_and_changes_nothing(
    field: str, act: Callable[[int], object]
) -> None:
    one = scene.incident()
    with pytest.raises(ActionError) as error:
        act(one.pk)

    assert error.value.field == field
    assert not told(one)


def test_what_does_not_go_with_its_state() -> None:
    one = scene.incident(state="resolved")
    with pytest.raises(ActionError, match="is resolved"):
        incidents.acknowledge(one.pk, None)
    with pytest.raises(ActionError, match="is resolved"):
        incidents.snooze(one.pk, timezone.now() + timedelta(1), None)
