"""One evaluator judges what is stored: in the order of events, once, and whoever else tries."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from alerts import first_rule, incidents, leases
from alerts.errors import FencedError
from alerts.evaluator import LEASE, Evaluator, Round
from alerts.models import (
    Incident,
    IncidentAnomaly,
    IncidentMessage,
    Lease,
    Notification,
    RuleState,
    Silence,
    Tag,
    TimelineEntry,
)
from anomalies.models import Anomaly, Outbox, Severity
from detection.models import DriftReport
from streams.models import PartitionOffset, Series, TopicIncarnation
from tests import builders
from tests.alerts import scene
from tests.alerts.scene import second

pytestmark = pytest.mark.django_db


def judge(times: int = 1) -> Round:
    """A round of an evaluator that has just started."""
    evaluator = Evaluator("test")
    done = None
    for _ in range(times):
        done = evaluator.step()
    evaluator.release()
    assert done is not None
    return done


def told() -> list[tuple[str, str, int]]:
    rows = Notification.objects.order_by("event_at", "reason")
    return list(rows.values_list("receiver__name", "reason", "severity"))


def kinds(incident: Incident) -> list[str]:
    return list(incident.timeline.order_by("id").values_list("kind", flat=True))


def test_an_anomaly_becomes_an_incident_with_everything_around_it() -> None:
    scene.receiver("ops")
    scene.rule(send=[{"receiver": "ops"}])
    row = scene.anomaly(0, "web-1", ends=60)
    scene.watermark(100)
    scene.alive()

    done = judge()

    incident = Incident.objects.get()
    assert (done.judged, done.notifications) == (2, 1)
    assert incident.title == "Spike of cpu on web-1"
    assert (incident.state, incident.severity, incident.anomaly_count) == ("open", 3, 1)
    assert (incident.first_at, incident.sources) == (second(0), ["web-1"])
    assert [m.anomaly_id for m in incident.members.all()] == [row.pk]
    assert kinds(incident) == ["opened", "notified"]
    message = IncidentMessage.objects.get()
    assert message.payload["change"] == "opened"
    assert message.payload["message_id"] == f"{incident.key}:1"
    word = Notification.objects.get()
    assert (word.reason, word.payload["sources"]) == ("opened", ["web-1"])
    assert not Outbox.objects.filter(evaluated_at=None).exists()


def test_a_second_round_changes_nothing() -> None:
    scene.receiver("ops")
    scene.rule(send=[{"receiver": "ops"}])
    scene.anomaly(0)
    scene.watermark(100)
    judge()
    before = Incident.objects.get().updated_at

    assert judge(3) == Round()
    assert Incident.objects.get().updated_at == before
    assert Notification.objects.count() == 1


def test_it_resolves_by_event_time_and_tells_so() -> None:
    scene.receiver("ops")
    scene.rule(send=[{"receiver": "ops"}])
    scene.anomaly(0, ends=60)
    scene.watermark(959)
    judge()
    assert Incident.objects.get().state == "open"

    scene.watermark(960)
    judge()
    incident = Incident.objects.get()
    assert incident.state == "resolved"
    assert kinds(incident) == ["opened", "notified", "resolved", "notified"]
    assert told() == [("ops", "opened", 3), ("ops", "resolved", 3)]


def test_a_backlog_is_judged_as_live_traffic_would_be() -> None:
    """A partition that is ahead waits for the one behind: else 400 s of quiet would be seen."""
    scene.rule(group={"resolve_after_s": 300, "join_s": 300})
    scene.alive({0: 0, 1: 500})
    scene.anomaly(0, "a", ends=1)
    scene.anomaly(500, "c", ends=501)
    scene.watermark(600, 0)
    scene.watermark(10, 1)
    assert judge().held == 2
    assert Incident.objects.get().sources == ["a"]

    scene.anomaly(250, "b", ends=251, partition=1)
    scene.watermark(600, 1)
    judge()
    incident = Incident.objects.get()
    assert (incident.sources, incident.anomaly_count) == (["a", "b", "c"], 3)
    assert incident.state == "open"


def test_a_partition_that_stays_behind_holds_the_others_up_for_a_minute_only() -> None:
    scene.rule()
    scene.alive({0: 0, 1: 500})
    scene.anomaly(500)
    scene.watermark(600, 0)
    scene.watermark(10, 1)
    assert judge() == Round(held=1)

    Outbox.objects.update(created_at=timezone.now() - timedelta(seconds=61))
    assert judge().judged == 1
    assert Incident.objects.count() == 1


def test_a_stream_at_rest_moves_on_with_the_wall_clock_while_a_consumer_runs() -> None:
    scene.rule()
    scene.anomaly(0, ends=1)
    scene.watermark(5, idle_s=1_000)
    judge()
    assert Incident.objects.get().state == "open", "no consumer runs: silence says nothing"

    scene.alive()
    judge()
    assert Incident.objects.get().state == "resolved"


def test_what_is_cut_off_waits_in_the_order_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    scene.rule(group={"by": "source", "resolve_after_s": 30})
    for at in (300, 20, 100, 200, 0):
        scene.anomaly(at, ends=at + 10)
    scene.watermark(1_000)
    monkeypatch.setattr("alerts.waiting.read.__defaults__", (3,))
    evaluator = Evaluator("test")
    rounds = [evaluator.step() for _ in range(4)]

    assert [r.judged for r in rounds if r] == [3, 3, 3, 1]
    incident = Incident.objects.get()
    assert (incident.reopened, incident.anomaly_count, incident.state) == (3, 5, "resolved")


def test_a_thousand_anomalies_of_one_cause_are_one_incident_and_two_words() -> None:
    scene.receiver("ops")
    scene.rule(match={"min_severity": "high"}, group={"wait_s": 10}, send=[{"receiver": "ops"}])
    for i in range(1_000):
        rises = [(9.0, 4)] if i % 3 == 0 else []
        scene.anomaly(i / 125, f"s{i % 200}", metric=f"m{i // 200}", ends=60 + i / 125, rises=rises)
        if i == 400:
            scene.watermark(i / 125)
            judge()
    scene.watermark(100)
    judge()
    scene.watermark(2_000)
    judge()

    incident = Incident.objects.get()
    assert (incident.anomaly_count, incident.members.count()) == (1_000, 1_000)
    assert (incident.severity, incident.state) == (Severity.CRITICAL, "resolved")
    assert told() == [("ops", "opened", 4), ("ops", "resolved", 4)]


def test_a_report_by_hand_enters_the_rules(client: Client) -> None:
    user = builders.user("op", is_staff=True)
    client.force_login(user)
    scene.rule(match={"min_severity": "high"})
    body = {"source": "boiler", "metric": "pressure", "value": 9, "severity": "critical",
            "timestamp": "2024-01-01T12:00:00Z", "message": "it hisses"}  # fmt: skip
    answer = client.post("/api/alert", body, content_type="application/json")
    assert answer.status_code == 201, answer.content
    judge()

    incident = Incident.objects.get()
    assert incident.title == "Manual of pressure on boiler"
    assert str(incident.members.get().anomaly_id) == answer.json()["id"]
    assert incident.state == "open", "it is news as of now, whatever moment it speaks of"


def test_people_and_machines_agree() -> None:
    user = builders.user("op")
    scene.rule(group={"by": "source"})
    scene.anomaly(0, "a")
    scene.anomaly(1, "b")
    scene.watermark(5)
    judge()
    first, second_one = Incident.objects.order_by("first_at")
    incidents.resolve(first.pk, user)
    scene.anomaly(20, "a", metric="mem")
    scene.watermark(30)
    judge()
    first.refresh_from_db()
    assert (first.state, first.reopened) == ("open", 1), "a new anomaly opens it again"

    incidents.merge(second_one.pk, first.pk, user)
    scene.anomaly(40, "b", metric="mem")
    scene.watermark(50)
    judge()
    open_ones = Incident.objects.exclude(state="resolved")
    assert {i.group for i in open_ones} == {first.group, "source:shop/b"}


def test_a_new_version_goes_on_with_the_open_incidents() -> None:
    made = scene.rule(group={"by": "source"})
    scene.anomaly(0, "a", ends=5)
    scene.watermark(10)
    judge()
    scene.edit(made, group={"by": "stream", "resolve_after_s": 60})
    scene.watermark(70)
    judge()

    assert Incident.objects.get().state == "resolved"
    assert RuleState.objects.get().version.number == 2


def test_a_rule_that_is_switched_off_opens_nothing_and_ends_what_it_had() -> None:
    made = scene.rule()
    scene.anomaly(0, "a")
    scene.watermark(10)
    judge()
    made.enabled = False
    made.save()
    row = Anomaly.objects.get()
    scene._change(row, 1, "closed", {"at": second(20).isoformat()})
    scene.anomaly(30, "b")
    scene.watermark(2_000)
    judge()

    assert Incident.objects.get().state == "resolved"
    assert not Outbox.objects.filter(evaluated_at=None).exists()


def test_a_rule_that_cannot_be_read_stops_no_other() -> None:
    bad = scene.rule("bad")
    bad.live.spec = {"when": {"count": 0}}  # type: ignore[union-attr]
    bad.live.save()  # type: ignore[union-attr]
    scene.rule("good")
    scene.anomaly(0)
    scene.watermark(5)
    judge()

    assert [i.rule.name for i in Incident.objects.all() if i.rule] == ["good"]


def test_who_is_told_and_why_nobody_was() -> None:
    scene.receiver("ops")
    scene.receiver("off", enabled=False)
    scene.rule("sends", send=[{"receiver": "ops"}, {"receiver": "off"}, {"receiver": "gone"},
                              {"receiver": "ops", "after_s": 600}])  # fmt: skip
    scene.rule("mute")
    scene.anomaly(0)
    scene.watermark(5)
    judge()

    assert told() == [("ops", "opened", 3)]
    texts = set(TimelineEntry.objects.filter(kind="held").values_list("text", flat=True))
    assert texts == {
        "Off was not told: this receiver is switched off.",
        "Gone was not told: this receiver does not exist.",
        "Nobody was told: the rule has no receivers.",
    }


def test_a_silence_holds_words_back_but_no_incident() -> None:
    scene.receiver("ops")
    scene.rule(send=[{"receiver": "ops"}])
    Silence.objects.create(
        name="works", matcher={"sources": ["web-*"]}, starts_at=second(-60), ends_at=second(600)
    )
    scene.anomaly(0, "web-1")
    scene.watermark(5)
    judge()
    incident = Incident.objects.get()
    assert told() == []
    assert kinds(incident) == ["opened", "held"]

    scene.anomaly(10, "db-1")
    scene.watermark(20)
    judge()
    assert told() == [("ops", "opened", 3)], "another source of it is not silenced"


def test_tags_choose() -> None:
    Tag.objects.create(key="team", value="pay", source="checkout-*")
    Tag.objects.create(key="team", value="web")
    scene.rule(match={"tags": {"team": "pay"}})
    scene.anomaly(0, "checkout-eu")
    scene.anomaly(1, "blog")
    scene.watermark(5)
    judge()

    assert [i.sources for i in Incident.objects.all()] == [["checkout-eu"]]


def test_an_anomaly_that_lasts_counts_once_it_has() -> None:
    scene.rule(when={"min_duration_s": 60})
    row = scene.anomaly(0)
    scene.watermark(61)
    judge()
    assert not Incident.objects.exists()

    Anomaly.objects.filter(pk=row.pk).update(end_at=second(75))
    judge()
    entry = Incident.objects.get().timeline.get(kind="opened")
    assert entry.data["event_at"] == second(60).isoformat()


def test_an_open_anomaly_whose_series_is_gone_ends_at_last() -> None:
    scene.rule()
    scene.anomaly(0)
    scene.watermark(3_600)
    judge()
    assert Incident.objects.get().state == "open"

    scene.watermark(3_601)
    judge()
    scene.watermark(3_601 + 900)
    judge()
    assert Incident.objects.get().state == "resolved"


def test_no_events_of_a_series() -> None:
    scene.rule(when={"kind": "no_events", "for_s": 300}, match={"sources": ["pump-*"]})
    scene.series("pump-1", last_event_at=second(0))
    scene.series("fan-1", last_event_at=second(0))
    scene.series("pump-old", last_event_at=second(-9_000))
    scene.watermark(200)
    judge()
    assert not Incident.objects.exists()

    scene.watermark(301)
    judge()
    incident = Incident.objects.get()
    assert (incident.title, incident.sources) == ("No events of cpu on pump-1", ["pump-1"])
    assert not IncidentAnomaly.objects.exists()

    Series.objects.filter(source="pump-1").update(last_event_at=second(400))
    scene.watermark(401)
    judge()
    scene.watermark(401 + 900)
    Series.objects.filter(source="pump-1").update(last_event_at=second(1_300))
    judge()
    assert Incident.objects.get().state == "resolved"


def test_drift_of_a_metric() -> None:
    scene.rule(when={"kind": "drift", "at_least": 0.25})
    model = builders.model()
    for psi in (0.5, 0.1):
        DriftReport.objects.create(
            model=model, metric="cpu", from_hour=second(0), to_hour=second(3_600), events=500,
            psi={}, ks={}, worst_psi=psi,
        )  # fmt: skip
        judge()
        assert Incident.objects.count() == 1

    assert Incident.objects.get().title.startswith("Drift of cpu on ")
    assert not RuleState.objects.get().state["conditions"]["open"]


def test_the_pipelines_figures() -> None:
    scene.rule(when={"kind": "pipeline", "metric": "consumers", "compare": "below", "value": 1,
                     "for_s": 0})  # fmt: skip
    judge()

    assert Incident.objects.get().title == "Pipeline: consumers"


def test_only_one_leads_and_a_new_epoch_fences_the_old_one() -> None:
    one, other = Evaluator("one"), Evaluator("other")
    assert one.step() is not None
    assert other.step() is None
    Lease.objects.filter(name=LEASE).update(until=timezone.now() - timedelta(seconds=1))
    assert other.step() is not None
    scene.rule()
    scene.anomaly(0)

    assert one.step() is None, "it woke up too late"
    assert not Incident.objects.exists()
    assert not one.holds


def test_a_lease_is_held_only_by_its_epoch() -> None:
    held = leases.take("x", "me", 10)
    assert held is not None
    with transaction.atomic():
        leases.hold(held)
    leases.release(held)
    assert leases.take("x", "you", 10) is not None
    with pytest.raises(FencedError), transaction.atomic():
        leases.hold(held)


def test_a_new_installation_has_a_rule_and_one_that_was_deleted_stays_away() -> None:
    assert first_rule.ensure()
    scene.anomaly(0, severity=Severity.MEDIUM)
    scene.anomaly(1, "b")
    scene.watermark(50)
    judge()
    incident = Incident.objects.get()
    assert incident.sources == ["b"]
    assert incident.rule is not None
    assert not Notification.objects.exists()

    incident.rule.live = None
    incident.rule.save()
    incident.rule.delete()
    assert not first_rule.ensure()
    incident.refresh_from_db()
    assert incident.rule is None


def test_a_round_without_work_asks_little() -> None:
    scene.rule()
    scene.watermark(5)
    evaluator = Evaluator("test")
    evaluator.step()
    with CaptureQueries() as captured:
        evaluator.step()

    assert len(captured) < 16, captured


class CaptureQueries(list[str]):
    """The statements of a block."""

    def __enter__(self) -> CaptureQueries:
        self._before = connection.execute_wrapper(self._see)
        self._before.__enter__()
        return self

    def __exit__(self, *of: Any) -> None:
        self._before.__exit__(*of)

    def _see(self, execute: Any, sql: str, *rest: Any) -> Any:
        self.append(sql)
        return execute(sql, *rest)


def test_partitions_of_an_earlier_life_of_the_topic_do_not_count() -> None:
    scene.watermark(5)
    TopicIncarnation.objects.create(stream=scene.stream(), topic_id="later")
    assert PartitionOffset.objects.count() == 1
    scene.rule()
    scene.anomaly(100)

    assert judge().judged == 1
