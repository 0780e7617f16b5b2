"""The preview equals what is then really sent, on a replayed week; and what it counts."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from alerts import past, rehearsal
from alerts.evaluator import Evaluator
from alerts.models import Notification, Rule
from alerts.preview import LEAD, replay
from alerts.rehearsal import of_rule, of_silence
from alerts.rules import keep_solved, live_spec, make_live
from alerts.silences import quiet
from alerts.spec import RuleSpec
from anomalies.models import Anomaly, Outbox
from streams.models import ConsumerStatus, PartitionOffset
from tests import builders
from tests.alerts import week

pytestmark = pytest.mark.django_db
END = datetime(2026, 3, 16, tzinfo=UTC)
START = END - timedelta(days=7)


@pytest.fixture(autouse=True)
def fresh() -> None:
    rehearsal.forget()


def evaluate(rounds: int = 56) -> None:
    """Live as it was: the evaluator runs while the week passes, in rounds of a few hours."""
    now = timezone.now()
    streams = {life.stream_id: life for life in map(builders.incarnation, [
        builders.stream("webshop"), builders.stream("servers")])}  # fmt: skip
    ConsumerStatus.objects.create(
        instance="c1", started_at=now, beat_at=now,
        partitions=[{"topic": life.stream.topic, "partition": 0, "next_offset": 0,
                     "end_offset": 9_000} for life in streams.values()],
    )  # fmt: skip
    at = START
    evaluator = Evaluator("test", now=lambda: at)
    for i in range(1, rounds + 1):
        at = START + i * (END - START) / rounds - timedelta(microseconds=1)
        for life in streams.values():
            PartitionOffset.objects.update_or_create(
                incarnation=life, partition=0,
                defaults={"watermark": at},
            )  # fmt: skip
            PartitionOffset.objects.update(updated_at=at)
        ConsumerStatus.objects.update(beat_at=at)
        assert evaluator.step() is not None
    assert not Outbox.objects.filter(evaluated_at=None).exists()


def sent() -> set[tuple[str, str, str, datetime]]:
    """(incident, receiver, reason, event time) of what was written."""
    rows = Notification.objects.select_related("incident", "receiver")
    return {
        (str(n.incident.key), n.receiver.name, n.reason, n.event_at)
        for n in rows if n.incident is not None
    }  # fmt: skip


def foretold(rule: Rule, spec: RuleSpec) -> set[tuple[str, str, str, datetime]]:
    found = of_rule(rule, spec, 7, now=END - timedelta(seconds=1))
    assert found.run is not None
    assert (found.run.start, found.run.end) == (START, END)
    words = set()
    for said in found.run.said:
        words |= {(said.key, name, said.reason, said.at) for name in said.to}
        words |= {(said.key, name, "escalated", said.at) for name, _ in said.later}
    return words


RULES: dict[str, dict[str, Any]] = {
    "together": {"match": {"min_severity": "medium"}, "group": {"by": "incident", "wait_s": 30}},
    "each source": {"group": {"by": "source"}, "cooldown_s": 3_600, "at_once_if_worse": False},
    "twice": {"when": {"count": 2, "within_s": 120, "on": "source"}, "group": {"by": "stream"}},
    "long ones": {"when": {"min_duration_s": 300}, "group": {"by": "series"}},
    "budget": {"when": {"budget_per_day": 2}, "group": {"by": "source"}},
}


@pytest.mark.parametrize("name", list(RULES))
def test_the_preview_equals_what_is_then_really_sent(name: str) -> None:
    week.seed(END)
    week.seed(END, stream="servers", sources=4, number=2)
    week.receiver()
    week.receiver("Pager", kind="webhook")
    night = START + timedelta(hours=1)
    week.silence("Nightly", night, night + timedelta(hours=4), "FREQ=DAILY", streams=["webshop"])
    week.silence("Once", START + timedelta(days=2), START + timedelta(days=3), sources=["*-1"])
    rule = week.rule(**RULES[name], send=[
        {"receiver": "Mail on-call"}, {"receiver": "Pager", "min_severity": "critical"},
    ])  # fmt: skip
    spec = live_spec(rule)
    assert spec is not None
    said = foretold(rule, spec)
    solved = of_rule(rule, spec, 7, now=END - timedelta(seconds=1)).solved
    if solved is not None:
        assert solved.kept
        assert solved.score > 0
        keep_solved(rule, solved.score)
    evaluate()
    assert sent() == said
    reasons = {reason for _, _, reason, _ in said}
    assert {"opened", "resolved"} <= reasons, reasons
    # And afterwards the page counts what was sent as what would have been.
    again = of_rule(rule, spec, 7, now=END - timedelta(seconds=1))
    assert again.run is not None
    assert again.really == again.run.sent > 5


def test_silences_and_their_ends_are_foretold() -> None:
    """Something fires on as a silence ends."""
    one, *_ = week.seed(END, sources=1, metrics=1, each=0)
    week.receiver()
    at = START + timedelta(days=1)
    row = builders.anomaly(one, at=at, end_at=at + timedelta(hours=3), score=0.97)
    week.say(row, "onset", at)
    row.state = "closed"
    week.say(row, "closed", at + timedelta(hours=3, minutes=2))
    row.save()
    until = at + timedelta(hours=1)
    week.silence("Works", at - timedelta(hours=1), until)
    rule = week.rule()
    said = foretold(rule, live_spec(rule) or RuleSpec())
    evaluate()
    assert sent() == said
    assert sorted((reason, at) for _, _, reason, at in said)[1] == ("still_firing", until)


def test_the_funnel_only_narrows_and_ends_at_what_is_sent() -> None:
    week.seed(END)
    week.receiver()
    now = START + timedelta(hours=2)
    week.silence("Nightly", now, now + timedelta(hours=6), "FREQ=DAILY")
    rule = week.rule(group={"by": "source"})
    run = of_rule(rule, live_spec(rule) or RuleSpec(), 7, now=END - timedelta(seconds=1)).run
    assert run is not None
    assert run.matched >= run.reached >= run.grouped >= run.cooled >= run.sent > 0
    assert run.cooled - run.silenced - run.unwanted == run.sent
    assert run.silenced == run.by_silence["Nightly"] > 0
    assert sum(bar.sent for bar in run.bars) == run.sent
    assert sum(bar.silenced for bar in run.bars) == run.silenced


def test_what_is_labelled_is_caught_or_missed_with_a_reason() -> None:
    one, two, three, *_ = week.seed(END, sources=3, metrics=1, each=0)
    week.receiver()
    at = START + timedelta(days=3)
    for series, score, label in ((one, 0.97, "real"), (two, 0.82, "real"), (three, 0.97, "real"),
                                 (three, 0.96, "false_alarm")):  # fmt: skip
        later = timedelta(hours=12 if label != "real" else 0)
        row = builders.anomaly(series, at=at + later, score=score, label=label)
        week.say(row, "onset", at + later)
    week.silence("Works", at - timedelta(hours=1), at + timedelta(hours=1), sources=["*-2"])
    rule = week.rule(match={"min_severity": "high"}, group={"by": "source"})
    found = of_rule(rule, live_spec(rule) or RuleSpec(), 7, now=END - timedelta(seconds=1))
    assert sorted((v.of.name[-1], v.caught, v.why) for v in found.real) == [
        ("0", True, ""), ("1", False, "does not match"), ("2", True, ""),
    ]  # fmt: skip
    assert len(found.false_alarms) == 1
    # With nothing open as the window ends, the third one falls in it.
    Anomaly.objects.filter(series=three).update(state="closed")
    Outbox.objects.filter(anomaly__series=three).delete()
    rehearsal.forget()
    found = of_rule(rule, live_spec(rule) or RuleSpec(), 7, now=END - timedelta(seconds=1))
    assert sorted(v.why for v in found.missed) == ["does not match", "falls in Works"]
    assert any("only the end is stored" in note for note in found.notes)


def test_a_score_below_the_policies_says_that_it_changes_nothing() -> None:
    week.seed(END)
    week.receiver()
    rule = week.rule(when={"min_score": 0.7})
    found = of_rule(rule, live_spec(rule) or RuleSpec(), 7, now=END - timedelta(seconds=1))
    assert any("Policies make anomalies from 0.80 on" in note for note in found.notes)
    low = of_rule(rule, RuleSpec.read({"when": {"min_score": 0.3}}), 7,
                  now=END - timedelta(seconds=1))  # fmt: skip
    assert any("can't be known" in note for note in low.notes)


def test_a_budget_that_cannot_be_kept_says_so() -> None:
    week.seed(END, sources=1, metrics=1, each=0)
    week.receiver()
    for i in range(20):
        at = START + timedelta(hours=8 * i)
        row = builders.anomaly(None, at=at, score=0.9, origin="manual", kind="manual")
        Anomaly.objects.filter(pk=row.pk).update(score=None, state="closed")
        row.score = None
        week.say(row, "manual", at)
    rule = week.rule(when={"budget_per_day": 1}, group={"by": "series", "reopen_within_s": 0})
    solved = of_rule(rule, live_spec(rule) or RuleSpec(), 7, now=END - timedelta(seconds=1)).solved
    assert solved is not None
    assert not solved.kept
    assert solved.per_day > 1


def test_what_cannot_be_known_in_advance_is_said() -> None:
    week.receiver()
    rule = week.rule(when={"kind": "no_events"})
    found = of_rule(rule, live_spec(rule) or RuleSpec())
    assert found.run is None
    assert "can't be known" in found.notes[0]


def test_a_silence_hides_what_it_matches_and_no_more() -> None:
    week.seed(END)
    week.receiver()
    week.rule(group={"by": "source"})
    row = week.silence("All of one", START, END, sources=["checkout-1"])
    found = of_silence(quiet(row), now=END - timedelta(seconds=1))
    assert found.hidden
    assert {h.said.sources for h in found.hidden} == {("checkout-1",)}
    assert len(found.hidden) < found.words
    assert found.series == 2
    assert found.open_now is not None


def test_a_preview_in_the_middle_knows_incidents_from_before() -> None:
    """What was told before the stretch is not told as new at its beginning."""
    week.seed(END, days=9)
    week.receiver()
    rule = week.rule(group={"by": "stream", "reopen_within_s": 86_400}, cooldown_s=86_400)
    spec = live_spec(rule) or RuleSpec()
    start = END - timedelta(days=3)
    whole = replay(spec, past.read(END - timedelta(days=9), END).signals, START, END, ident="1")
    part = replay(spec, past.read(start - LEAD, END).signals, start, END, ident="1")
    assert [(s.reason, s.at) for s in part.said][:3] == [
        (s.reason, s.at) for s in whole.said if s.at >= start
    ][:3]


def test_a_new_version_is_a_new_preview() -> None:
    week.seed(END)
    week.receiver()
    rule = week.rule()
    make_live(rule, RuleSpec.read({"match": {"min_severity": "critical"}}), None)
    rule.refresh_from_db()
    found = of_rule(rule, RuleSpec.read({"send": [{"receiver": "Mail on-call"}]}), 7,
                    now=END - timedelta(seconds=1), with_live=True)  # fmt: skip
    assert found.run is not None
    assert found.live is not None
    assert found.run.matched > found.live.matched
    assert (found.run.sent, found.live.sent) != (0, 1)


@pytest.mark.slow
def test_a_week_of_a_thousand_series_prints_how_long_it_takes() -> None:
    """`pytest -s` shows the seconds; a busy machine makes no test fail."""
    week.seed(END, sources=100, metrics=10, each=12)
    week.receiver()
    night = START + timedelta(hours=1)
    week.silence("Nightly", night, night + timedelta(hours=4), "FREQ=DAILY", sources=["*-1?"])
    rule = week.rule(match={"min_severity": "medium"}, group={"by": "source"})
    for text in ("stored anomalies read and replayed", "the same again, as a draft is edited"):
        began, used = time.perf_counter(), time.process_time()
        found = of_rule(rule, live_spec(rule) or RuleSpec(), 7, now=END - timedelta(seconds=1))
        wall, cpu = time.perf_counter() - began, time.process_time() - used
        assert found.run is not None
        assert found.run.matched > 5_000
        print(f"\n{text}: {Anomaly.objects.count():,} anomalies, {Outbox.objects.count():,} rows,"
              f" {found.run.sent:,} sent: {wall:.1f} s, {cpu:.1f} s CPU")  # fmt: skip
