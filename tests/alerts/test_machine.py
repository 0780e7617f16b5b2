"""What a rule decides: grouping, counts, durations, cool-downs, ends; whatever the order."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from alerts.machine import (
    Decision,
    Held,
    Joined,
    Machine,
    Matched,
    Opened,
    Reopened,
    Resolved,
    Signal,
    Tell,
    Worse,
    fits,
    lasted,
)
from alerts.spec import RuleSpec

S = 1_000_000
T = 1_700_000_000 * S


def rule(**said: Any) -> RuleSpec:
    return RuleSpec.read(said)


def onset(at: float, anomaly: str, source: str = "a", **more: Any) -> Signal:
    given: dict[str, Any] = {
        "stream": "shop", "metric": "cpu", "kind": "spike", "severity": 3, "score": 0.91,
        "direction": 1, "change": "onset",
    }  # fmt: skip
    return Signal(at_us=T + int(at * S), anomaly=anomaly, source=source, **given | more)


def closed(at: float, anomaly: str, source: str = "a", **more: Any) -> Signal:
    return onset(at, anomaly, source, change="closed", **more)


def judge(spec: RuleSpec, signals: Iterable[Signal], until: float = 0) -> list[Decision]:
    return list(Machine(spec, "1").run(signals, T + int(until * S)))


def told(decisions: Iterable[Decision]) -> list[tuple[float, str, int]]:
    return [((d.at_us - T) / S, d.reason, d.severity) for d in decisions if isinstance(d, Tell)]


def kinds(decisions: Iterable[Decision]) -> list[str]:
    return [type(d).__name__ for d in decisions]


def test_one_anomaly_opens_is_told_and_resolves_by_itself() -> None:
    decisions = judge(rule(), [onset(0, "x"), closed(60, "x")], until=2_000)

    assert kinds(decisions) == ["Matched", "Opened", "Tell", "Resolved", "Tell"]
    assert told(decisions) == [(0, "opened", 3), (960, "resolved", 3)]
    assert len({d.key for d in decisions if d.key}) == 1


def test_an_open_anomaly_keeps_its_incident_open() -> None:
    assert not [d for d in judge(rule(), [onset(0, "x")], until=50_000) if isinstance(d, Resolved)]


def test_sources_that_move_together_share_an_incident() -> None:
    found = judge(rule(), [onset(0, "x", "a"), onset(200, "y", "b"), onset(450, "z", "c")])

    assert Counter(kinds(found)) == {"Matched": 3, "Opened": 1, "Joined": 2, "Held": 2, "Tell": 1}
    assert {d.why for d in found if isinstance(d, Held)} == {"grouping"}


def test_a_source_that_begins_later_or_in_another_stream_is_another_incident() -> None:
    signals = [onset(0, "x", "a"), onset(301, "y", "b"), onset(1, "z", "c", stream="iot")]

    assert kinds(judge(rule(), signals)).count("Opened") == 3


def test_the_same_source_later_is_the_same_trouble() -> None:
    found = judge(
        rule(), [onset(0, "x"), closed(10, "x"), onset(800, "y"), closed(801, "y")], 1_700
    )

    assert kinds(found).count("Opened") == 1
    assert not [d for d in found if isinstance(d, Resolved)]


@pytest.mark.parametrize(
    ("by", "incidents"),
    [("incident", 1), ("source", 2), ("metric", 2), ("series", 4), ("stream", 1), ("rule", 1)],
)
def test_what_anomalies_of_an_incident_have_in_common(by: str, incidents: int) -> None:
    signals = [
        onset(i, f"{s}{m}", s, metric=m)
        for i, (s, m) in enumerate((s, m) for s in ("a", "b") for m in ("cpu", "mem"))
    ]

    assert kinds(judge(rule(group={"by": by}), signals)).count("Opened") == incidents


def test_nobody_is_told_before_the_count_is_reached() -> None:
    spec = rule(when={"count": 3, "within_s": 60, "on": "source"})
    few = judge(spec, [onset(0, "x"), onset(50, "y"), onset(70, "z"), onset(200, "w")])
    enough = judge(spec, [onset(0, "x"), onset(50, "y"), onset(55, "o", "b"), onset(59, "z")])

    assert {d.why for d in few if isinstance(d, Held)} == {"count"}
    assert not told(few)
    assert told(enough) == [(59, "opened", 3)]
    assert [d.signal.anomaly for d in enough if isinstance(d, Opened | Joined)] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("on", "reached"), [("series", 0), ("source", 0), ("stream", 1), ("rule", 2)]
)
def test_what_is_counted_on(on: str, reached: int) -> None:
    spec = rule(when={"count": 2, "on": on}, group={"by": "source"})
    signals = [onset(0, "x", "a"), onset(1, "y", "b", stream="iot"), onset(2, "z", "c")]

    assert len(told(judge(spec, signals))) == {0: 0, 1: 2, 2: 3}[reached]


def test_a_share_of_a_sources_series() -> None:
    spec = rule(when={"share_of_series": 0.5, "within_s": 60})
    one = [onset(0, "x", metric="cpu", siblings=4), onset(1, "y", metric="cpu", siblings=4)]

    assert not told(judge(spec, one))
    assert told(judge(spec, [*one, onset(2, "z", metric="mem", siblings=4)])) == [(2, "opened", 3)]


def test_too_short_an_anomaly_is_nobodys_business() -> None:
    spec = rule(when={"min_duration_s": 60})
    short = [onset(0, "x"), closed(140, "x", onset_us=T, end_us=T + 59 * S)]
    long = [onset(0, "x"), closed(140, "x", onset_us=T, end_us=T + 60 * S)]

    assert judge(spec, short, 500) == []
    assert told(judge(spec, long)) == [(60, "opened", 3)]


def test_an_anomaly_that_lasts_is_told_while_it_lasts() -> None:
    machine = Machine(rule(when={"min_duration_s": 60}), "1")
    assert machine.feed(onset(0, "x")) == []
    (waiting,) = machine.too_short()

    assert lasted(machine.spec, waiting, T + 59 * S) is None
    due = lasted(machine.spec, waiting, T + 75 * S)
    assert due is not None
    assert told(machine.feed(due)) == [(60, "opened", 3)]


@pytest.mark.parametrize(
    ("said", "matches"),
    [
        ({"match": {"sources": ["check*"]}}, False),
        ({"match": {"sources": ["b", "?"]}}, True),
        ({"match": {"types": ["dip"]}}, False),
        ({"match": {"min_severity": "critical"}}, False),
        ({"match": {"max_severity": "medium"}}, False),
        ({"match": {"tags": {"team": "pay*"}}}, True),
        ({"match": {"tags": {"team": "pay*", "region": "*"}}}, False),
        ({"when": {"direction": "down"}}, False),
        ({"when": {"min_score": 0.92}}, False),
        ({"when": {"min_score": 0.91}}, True),
        ({"when": {"kind": "drift"}}, False),
    ],
)
def test_what_a_rule_chooses_by(said: dict[str, Any], matches: bool) -> None:
    found = judge(RuleSpec.read(said), [onset(0, "x", tags={"team": "payments"})])

    assert bool([d for d in found if isinstance(d, Matched)]) is matches


def test_a_pattern_is_literal_but_for_its_two_signs() -> None:
    assert fits("a[1].*", "a[1].cpu")
    assert not fits("a[1].*", "a1.cpu")
    assert not fits("a", "A")


def test_a_rise_makes_an_anomaly_match_that_did_not() -> None:
    spec = rule(match={"min_severity": "high"})
    signals = [onset(0, "x", severity=1), onset(5, "x", severity=3, change="update")]

    assert told(judge(spec, signals)) == [(5, "opened", 3)]


def test_worse_is_told_at_once_and_only_once_a_level() -> None:
    signals = [onset(0, "x"), onset(5, "x", severity=4, change="update"), onset(6, "y", severity=4)]
    found = judge(rule(), signals)

    assert told(found) == [(0, "opened", 3), (5, "worse", 4)]
    assert [d.severity for d in found if isinstance(d, Worse)] == [4]


def test_worse_waits_for_the_cool_down_where_the_rule_says_so() -> None:
    spec = rule(at_once_if_worse=False, cooldown_s=600)
    found = judge(spec, [onset(0, "x"), onset(5, "x", severity=4, change="update")], 601)

    assert [d.why for d in found if isinstance(d, Held)] == ["cooldown"]
    assert told(found) == [(0, "opened", 3), (600, "worse", 4)]


def test_what_goes_on_is_told_again_after_the_cool_down_only() -> None:
    found = judge(rule(cooldown_s=600), [onset(60 * i, f"x{i}") for i in range(21)])

    assert told(found) == [(0, "opened", 3), (600, "again", 3), (1_200, "again", 3)]


def test_a_resolved_incident_comes_back_and_says_so_once_it_has_cooled() -> None:
    signals = [onset(0, "x"), closed(1, "x"), onset(1_000, "y")]
    found = judge(rule(), signals, 2_000)

    assert kinds(found).count("Opened") == 1
    assert [d.at_us - T for d in found if isinstance(d, Reopened)] == [1_000 * S]
    assert told(found) == [(0, "opened", 3), (901, "resolved", 3), (1_800, "again", 3)]


def test_a_flapping_source_is_not_told_of_at_each_turn() -> None:
    signals = [
        s for i in range(20) for s in (onset(1_000 * i, f"x{i}"), closed(1_000 * i + 1, f"x{i}"))
    ]
    reasons = Counter(reason for _, reason, _ in told(judge(rule(), signals, 40_000)))

    assert reasons["opened"] == 1
    assert reasons["again"] <= 20_000 // 1_800 + 1


def test_long_after_it_is_a_new_incident() -> None:
    found = judge(rule(), [onset(0, "x"), closed(1, "x"), onset(4_502, "y")])

    assert kinds(found).count("Opened") == 2
    assert len({d.key for d in found if isinstance(d, Opened)}) == 2


def test_the_first_word_waits_for_what_belongs_to_it() -> None:
    signals = [onset(0, "x"), onset(3, "y", "b", severity=4), onset(9, "z", "c")]
    found = judge(rule(group={"wait_s": 10}), signals, 10)

    assert told(found) == [(10, "opened", 4)]


def test_a_burst_of_one_cause_is_one_incident_and_two_words() -> None:
    draw = random.Random(5)
    signals = []
    for i in range(1_000):
        at = draw.uniform(0, 9)
        signals += [onset(at, f"x{i}", f"s{i % 200}", severity=draw.randint(3, 4)),
                    closed(at + 90, f"x{i}", f"s{i % 200}")]  # fmt: skip
    found = judge(rule(group={"wait_s": 10}), signals, 3_000)

    assert kinds(found).count("Opened") == 1
    assert kinds(found).count("Joined") == 999
    assert [reason for _, reason, _ in told(found)] == ["opened", "resolved"]


def test_what_a_silence_held_back_is_told_by_the_next_anomaly() -> None:
    machine = Machine(rule(), "1")
    reasons = []
    for decision in machine.run([onset(0, "x", "quiet"), onset(5, "y", "b"), onset(6, "z", "c")]):
        if isinstance(decision, Tell):
            reasons.append((decision.signal.source, decision.reason, decision.number))
            if decision.signal.source == "quiet":
                machine.untold(decision)

    assert reasons == [("quiet", "opened", 1), ("b", "opened", 2)]


def test_by_hand_an_incident_is_resolved_opened_and_merged() -> None:
    machine = Machine(rule(group={"by": "source"}), "1")
    machine.feed(onset(0, "x", "a"))
    machine.feed(onset(1, "y", "b"))
    first, second = machine.live()

    machine.resolve(first)
    assert machine.live() == [second]
    assert machine.advance(T + 100 * S) == []
    machine.reopen(first)
    machine.merge(second, first)
    assert machine.live() == [first]
    machine.feed(closed(200, "x", "a"))
    assert not machine.advance(T + 5_000 * S), "the merged one's anomaly is still open"
    machine.feed(closed(5_001, "y", "b"))
    assert kinds(machine.advance(T + 6_000 * S))[0] == "Resolved"


def test_an_anomaly_that_lies_in_the_past_is_judged_by_its_own_time() -> None:
    machine = Machine(rule(), "1")
    machine.feed(onset(0, "x"))
    machine.advance(T + 10_000 * S)
    decisions = machine.feed(onset(5, "y", "b"))

    assert kinds(decisions) == ["Matched", "Joined", "Held"]
    assert machine.clock_us == T + 10_000 * S


SPECS = [
    {},
    {"group": {"by": "source", "wait_s": 20, "resolve_after_s": 60, "reopen_within_s": 200}},
    {"when": {"count": 3, "within_s": 120}, "cooldown_s": 100, "group": {"resolve_after_s": 90}},
    {"when": {"share_of_series": 0.5, "within_s": 90}, "at_once_if_worse": False},
    {"when": {"min_duration_s": 30}, "group": {"join_s": 15, "resolve_after_s": 30}},
]


def storm(seed: int) -> list[Signal]:
    """Anomalies of ten sources over an hour, with equal times, rises and ends among them."""
    draw = random.Random(seed)
    signals = []
    for i in range(250):
        at, name, source = draw.randint(0, 3_600), f"x{i}", f"s{draw.randint(0, 9)}"
        first = onset(at, name, source, metric=draw.choice("mn"), severity=draw.randint(1, 3),
                      siblings=2, onset_us=T + at * S, end_us=T + at * S)  # fmt: skip
        end = at + draw.randint(1, 120)
        signals += [first, replace(first, at_us=T + end * S, change="closed", end_us=T + end * S)]
        if draw.random() < 0.3:
            signals.append(
                replace(first, at_us=T + (at + end) // 2 * S, change="update", severity=4)
            )
    return signals


@pytest.mark.parametrize("said", SPECS)
def test_the_order_of_arrival_decides_nothing(said: dict[str, Any]) -> None:
    signals = storm(1)
    expected = judge(RuleSpec.read(said), signals, 10_000)
    random.Random(2).shuffle(signals)

    assert told(expected)
    assert judge(RuleSpec.read(said), signals, 10_000) == expected


@pytest.mark.parametrize("said", SPECS)
@pytest.mark.parametrize("step", [7, 37, 600])
def test_cutting_into_batches_and_restarts_decide_nothing(said: dict[str, Any], step: int) -> None:
    signals = sorted(storm(3), key=lambda s: s.order)
    expected = judge(RuleSpec.read(said), signals, 10_000)
    state: dict[str, Any] = {}
    found: list[Decision] = []
    at, until = 0, T
    while until < T + 10_000 * S:
        until = min(until + step * S, T + 10_000 * S)
        batch = []
        while at < len(signals) and signals[at].at_us <= until:
            batch.append(signals[at])
            at += 1
        machine = Machine(RuleSpec.read(said), "1", state)
        found += machine.run(batch, until)
        state = json.loads(json.dumps(machine.state()))

    assert found == expected
