"""From signals to notices: receivers, silences and their ends, hours, escalation, good news."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from alerts.hours import Timetable
from alerts.machine import Decision, Machine, Resolved, Signal
from alerts.quieting import NAMED_ONLY, Quiet, quiet_until
from alerts.recurrence import Recurrence
from alerts.routing import Notice, Routed, Router, decide
from alerts.spec import Matcher, RuleSpec
from streams.clock import from_us, to_us

START = datetime(2026, 11, 22, tzinfo=UTC)  # a Sunday
MINUTE = 60_000_000


def at(minute: float) -> int:
    return to_us(START) + int(minute * MINUTE)


def signal(minute: float, change: Any = "onset", name: str = "a", **more: Any) -> Signal:
    given = {"stream": "shop", "source": "web-1", "metric": "cpu", "kind": "spike", "severity": 3}
    return Signal(at(minute), change, name, **given | more)


def silence(
    start: float, end: float, ident: str = "s1", name: str = "works", **match: Any
) -> Quiet:
    span = Recurrence(from_us(at(start)), from_us(at(end)))
    return Quiet(ident, name, Matcher.model_validate(match), span)


def rule(**more: Any) -> RuleSpec:
    return RuleSpec.read({"send": [{"receiver": "mail"}], "group": {"by": "source"}} | more)


def run(
    spec: RuleSpec,
    signals: Sequence[Signal],
    silences: Sequence[Quiet] = (),
    until: float = 600,
    **more: Any,
) -> list[Decision]:
    machine, router = Machine(spec, "1"), Router("r", spec, silences, **more)
    return list(decide(machine, router, signals, at(until)))


def words(decisions: Sequence[Decision]) -> list[tuple[str, float, str]]:
    """(reason, minute, why it was kept or who heard) of each word."""
    return [
        (d.tell.reason, (d.at_us - at(0)) / MINUTE,
         d.kept or "+".join(n.receiver for n in d.notices))
        for d in decisions if isinstance(d, Routed)
    ]  # fmt: skip


EPISODE = [signal(10), signal(20, "closed", end_us=at(20))]


def test_a_word_and_its_end_go_to_the_receiver() -> None:
    assert words(run(rule(), EPISODE)) == [("opened", 10, "mail"), ("resolved", 35, "mail")]
    assert words(run(rule(tell_resolved=False), EPISODE)) == [("opened", 10, "mail")]


def test_severity_chooses_receivers_and_a_rise_finds_new_ones() -> None:
    spec = rule(send=[{"receiver": "mail"}, {"receiver": "pager", "min_severity": "critical"}])
    found = words(run(spec, [*EPISODE, signal(12, "update", severity=4)]))
    assert found[:2] == [("opened", 10, "mail"), ("worse", 12, "mail+pager")]
    alone = rule(send=[{"receiver": "pager", "min_severity": "critical"}])
    assert words(run(alone, EPISODE)) == [
        ("opened", 10, "receivers"),
        ("resolved", 35, "receivers"),
    ]


def test_what_fires_in_a_silence_is_told_at_its_end_only_if_it_still_does() -> None:
    long = [signal(10), signal(90, "closed", end_us=at(90))]
    found = words(run(rule(), long, [silence(5, 60)]))
    assert found == [
        ("opened", 10, "silence"),
        ("still_firing", 60, "mail"),
        ("resolved", 105, "mail"),
    ]
    # Over before the end: nobody hears of it, nor that it is over.
    found = words(run(rule(), EPISODE, [silence(5, 60)]))
    assert found == [("opened", 10, "silence")]


def test_the_end_comes_by_time_alone() -> None:
    """No signal after the onset: the evaluator's tick moves time on."""
    spec = rule()
    machine, router = Machine(spec, "1"), Router("r", spec, [silence(5, 60)])
    assert words(list(decide(machine, router, [signal(10)], at(59.9)))) == [
        ("opened", 10, "silence")
    ]
    assert words(list(decide(machine, router, [], at(60.1)))) == [("still_firing", 60, "mail")]
    assert words(list(decide(machine, router, [], at(61)))) == []


def test_windows_that_follow_each_other_are_one_silence() -> None:
    both = [silence(5, 60), silence(50, 120, "s2", sources=["web-*"])]
    assert quiet_until(both, signal(10), at(10), "r") == at(120)
    assert words(run(rule(), [signal(10)], both, until=125)) == [
        ("opened", 10, "silence"), ("still_firing", 120, "mail"),
    ]  # fmt: skip


def test_another_source_of_the_incident_is_told_during_the_silence() -> None:
    spec = rule(group={"by": "stream"})
    found = words(run(spec, [signal(10), signal(11, name="b", source="db-1")],
                      [silence(5, 60, sources=["web-*"])], until=200))  # fmt: skip
    assert found == [("opened", 10, "silence"), ("opened", 11, "mail")]


def test_good_news_pass_a_silence() -> None:
    found = words(run(rule(), EPISODE, [silence(15, 60)]))
    assert found == [("opened", 10, "mail"), ("resolved", 35, "mail")]


def test_a_silence_chooses_rules_and_a_rule_names_silences() -> None:
    assert words(run(rule(), EPISODE, [silence(5, 60, rules=["other"])]))[0][2] == "mail"
    assert words(run(rule(), EPISODE, [silence(5, 60, rules=["r"])]))[0][2] == "silence"
    named_only = silence(5, 60, rules=[NAMED_ONLY])
    assert words(run(rule(), EPISODE, [named_only]))[0][2] == "mail"
    assert words(run(rule(silences=["works"]), EPISODE, [named_only]))[0][2] == "silence"


def test_a_silence_that_is_ended_early_lets_the_word_go() -> None:
    spec = rule()
    machine, router = Machine(spec, "1"), Router("r", spec, [silence(5, 600)])
    assert words(list(decide(machine, router, [signal(10)], at(20)))) == [("opened", 10, "silence")]
    kept = json.loads(json.dumps([machine.state(), router.state(machine.known())]))
    machine, router = Machine(spec, "1", kept[0]), Router("r", spec, [], state=kept[1])
    assert words(list(decide(machine, router, [], at(21)))) == [("still_firing", 20, "mail")]


def test_escalation_waits_and_is_said_once() -> None:
    spec = rule(send=[{"receiver": "mail"}, {"receiver": "boss", "after_s": 600}], cooldown_s=60)
    rise = signal(12, "update", severity=4)
    routed = [d for d in run(spec, [*EPISODE, rise]) if isinstance(d, Routed)]
    first, worse, over = routed
    assert [(n.receiver, n.reason, n.after_s) for n in first.notices] == [
        ("mail", "opened", 0.0), ("boss", "escalated", 600.0),
    ]  # fmt: skip
    assert [n.receiver for n in worse.notices] == ["mail"]
    assert {n.receiver: n.if_told for n in over.notices} == {"mail": False, "boss": True}


def test_hours_choose_by_wall_clock_and_an_escalation_by_its_own_time() -> None:
    work = Timetable.read({"weekly": [{"days": ["sun"], "from": "00:00", "to": "00:15"}]})
    spec = rule(send=[
        {"receiver": "day", "hours": "work"},
        {"receiver": "night", "hours": "work", "outside": True},
        {"receiver": "later", "hours": "work", "after_s": 600},
    ])  # fmt: skip
    found = run(spec, [signal(10)], until=11, hours={"work": work})
    assert words(found) == [("opened", 10, "day")]
    assert words(run(spec, [signal(20)], until=21, hours={"work": work})) == [
        ("opened", 20, "night")
    ]


def test_a_timetable_that_is_gone_holds_nothing_back() -> None:
    spec = rule(send=[{"receiver": "day", "hours": "gone"}])
    assert words(run(spec, [signal(10)], until=11)) == [("opened", 10, "day")]


def test_cutting_the_stream_into_batches_changes_nothing() -> None:
    spec = rule(cooldown_s=300, send=[{"receiver": "mail"}, {"receiver": "boss", "after_s": 60}])
    signals = []
    for i in range(60):
        name, source = f"n{i}", f"web-{i % 5}"
        signals.append(signal(i * 3, name=name, source=source, severity=1 + i % 4))
        signals.append(signal(i * 3 + 7, "closed", name=name, source=source, end_us=at(i * 3 + 7)))
    signals.sort(key=lambda s: s.order)
    silences = [silence(20, 50, sources=["web-1"]), silence(80, 100, "s2"), silence(99, 130, "s3")]
    whole = run(spec, signals, silences)
    for size in (1, 7, 40):
        machine, router = Machine(spec, "1"), Router("r", spec, silences)
        found: list[Decision] = []
        for i in range(0, len(signals), size):
            batch = signals[i : i + size]
            found += decide(machine, router, batch, batch[-1].at_us)
            kept = json.loads(json.dumps([machine.state(), router.state(machine.known())]))
            machine, router = (
                Machine(spec, "1", kept[0]),
                Router("r", spec, silences, state=kept[1]),
            )
        found += decide(machine, router, [], at(600))
        assert found == whole
    assert any(isinstance(d, Resolved) for d in whole)
    reasons = {d.tell.reason for d in whole if isinstance(d, Routed) and not d.kept}
    assert reasons >= {"opened", "again", "still_firing", "resolved"}


def test_a_notice_names_what_its_id_is_made_of() -> None:
    notices = [n for d in run(rule(cooldown_s=0), [
        signal(10), signal(11, name="b"), signal(12, name="c"),
    ]) if isinstance(d, Routed) for n in d.notices]  # fmt: skip
    assert len({(n.key, n.receiver, n.reason, n.number) for n in notices}) == len(notices) >= 3
    assert all(isinstance(n, Notice) for n in notices)


def test_the_range_of_a_silence_is_asked_by_the_moment() -> None:
    one = silence(5, 60)
    assert one.at(from_us(at(5))) is not None
    assert one.at(from_us(at(60))) is None
    assert one.at(START - timedelta(days=1)) is None
