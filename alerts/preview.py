"""What a rule would have sent in a stretch of the past: the evaluator's own code on stored signals.

Pure: nothing is scored again and nothing is stored. ``alerts.past`` reads what it needs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from alerts.hours import Timetable
from alerts.machine import Decision, Held, Joined, Machine, Matched, Opened, Signal, lane
from alerts.quieting import Quiet
from alerts.routing import Routed, Router, decide
from alerts.spec import RuleSpec
from streams.clock import from_us, to_us

STEPS_S = {1: 1_800, 7: 14_400, 30: 86_400}
"""Days of a preview, and how long one bar of its chart is."""
LEAD = timedelta(days=2)
"""A preview begins so long before its stretch, so that incidents from before are known."""


@dataclass(frozen=True, slots=True)
class Said:
    """One thing that would have been told: an incident's word, with its receivers."""

    key: str
    reason: str
    severity: int
    at: datetime
    number: int
    title: str
    sources: tuple[str, ...]
    anomalies: int
    to: tuple[str, ...]
    later: tuple[tuple[str, float], ...]  # receivers and seconds, if nobody acknowledges
    kept: str = ""  # "", "silence", "receivers"
    by: str = ""
    label: str = ""

    @property
    def over(self) -> bool:
        """Whether it tells that an incident is over."""
        return self.reason == "resolved"


@dataclass(slots=True)
class Bar:
    """One bar of the chart, from ``start`` on."""

    start: datetime
    sent: int = 0
    held: int = 0  # by grouping or cool-down
    silenced: int = 0

    @property
    def total(self) -> int:
        """Its height."""
        return self.sent + self.held + self.silenced


@dataclass(slots=True)
class Replay:
    """What a rule did with the signals of ``[start, end)``.

    ``matched`` counts anomalies that the rule means, and their rises in severity; ``reached`` those
    of them that came together as the rule wants; ``grouped`` what was left with one word for each
    incident and each repeat; ``cooled`` after the cool-down; ``sent`` after silences and steps.
    """

    start: datetime
    end: datetime
    matched: int = 0
    reached: int = 0
    grouped: int = 0
    cooled: int = 0
    silenced: int = 0
    unwanted: int = 0
    said: list[Said] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    by_silence: Counter[str] = field(default_factory=Counter)
    members: dict[str, set[str]] = field(default_factory=dict)  # incident -> anomalies
    placed: dict[str, str] = field(default_factory=dict)  # anomaly -> incident
    matches: dict[str, int] = field(default_factory=dict)  # anomaly -> since when
    seconds: float = 0.0

    @property
    def days(self) -> float:
        """How long the stretch is."""
        return (self.end - self.start) / timedelta(days=1)

    @property
    def notifications(self) -> list[Said]:
        """What speaks of trouble and reaches somebody, in order of time."""
        return [s for s in self.said if not s.kept and not s.over]

    @property
    def sent(self) -> int:
        """How many those are."""
        return len(self.notifications)

    @property
    def overs(self) -> int:
        """How many words that an incident is over."""
        return sum(not s.kept and s.over for s in self.said)

    @property
    def per_day(self) -> float:
        """Notifications a day."""
        return self.sent / self.days if self.days else 0.0

    def told_keys(self) -> set[str]:
        """Incidents that somebody would have heard of."""
        return {s.key for s in self.notifications}


def replay(
    spec: RuleSpec,
    signals: Iterable[Signal],
    start: datetime,
    end: datetime,
    *,
    rule: str = "",
    ident: str = "preview",
    silences: Sequence[Quiet] = (),
    hours: Mapping[str, Timetable] | None = None,
    min_score: float | None = None,
    step_s: int = 14_400,
    labels: Mapping[str, str] | None = None,
) -> Replay:
    """Run a rule over signals; those before ``start`` only warm it up.

    Args:
        ident: what the evaluator names the rule by: part of the incidents' keys.
        min_score: in place of the rule's own, where that is solved from a budget.
        labels: {anomaly: label}, for the words' labels.
    """
    began = time.perf_counter()
    first_us, last_us = to_us(start), to_us(end)
    out = Replay(start, end)
    out.bars = _bars(start, end, step_s)
    watch = _Watch(out, first_us, step_s, labels or {})
    ordered = [s for s in signals if s.at_us < last_us]
    # Each lane has a machine of its own, as the evaluator has it.
    lanes: dict[str, list[Signal]] = {}
    for signal in ordered:
        lanes.setdefault(lane(spec, signal), []).append(signal)
    for _, batch in sorted(lanes.items()):
        machine = Machine(spec, ident, min_score=min_score)
        router = Router(rule, spec, silences, hours)
        for decision in decide(machine, router, batch, last_us - 1):
            watch.see(decision)
    out.said.sort(key=lambda said: (said.at, said.key, said.number))
    watch.rises(ordered)
    out.seconds = time.perf_counter() - began
    return out


class _Watch:
    """Counts decisions."""

    def __init__(self, out: Replay, first_us: int, step_s: int, labels: Mapping[str, str]) -> None:
        self._out, self._first_us, self._step_us = out, first_us, step_s * 1_000_000
        self._labels = labels
        self._sources: dict[str, dict[str, None]] = {}
        # incident -> severity that a silence keeps back by now
        self._kept: dict[str, int] = {}
        self._bars_from_us = to_us(out.bars[0].start) if out.bars else first_us

    def see(self, decision: Decision) -> None:
        """One decision, in order."""
        out, counts = self._out, decision.at_us >= self._first_us
        if isinstance(decision, Matched):
            out.matches.setdefault(decision.signal.anomaly, decision.at_us)
            out.matched += counts
        elif isinstance(decision, Opened | Joined):
            self._place(decision, counts)
        elif isinstance(decision, Held):
            if counts and decision.why == "cooldown":
                out.grouped += 1
        elif isinstance(decision, Routed) and counts:
            self._say(decision)

    def _place(self, decision: Decision, counts: bool) -> None:
        out, signal = self._out, decision.signal
        out.members.setdefault(decision.key, set()).add(signal.anomaly)
        out.placed[signal.anomaly] = decision.key
        self._sources.setdefault(decision.key, {})[signal.source] = None
        if counts:
            out.reached += 1
            self._bar(signal.at_us).held += 1

    def _say(self, routed: Routed) -> None:
        out, tell = self._out, routed.tell
        if routed.kept == "silence":
            # The machine offers each further anomaly of what nobody was told of; but for the
            # silence, one word would have stood for all of them.
            if tell.severity <= self._kept.get(tell.key, 0):
                return
            self._kept[tell.key] = tell.severity
        else:
            self._kept.pop(tell.key, None)
        sources = tuple(self._sources.get(tell.key, {}))
        members = out.members.get(tell.key, set())
        out.said.append(Said(
            tell.key, tell.reason, tell.severity, from_us(tell.at_us), tell.number,
            title_of(tell.signal, len(sources)), sources, len(members),
            tuple(n.receiver for n in routed.notices if n.after_s <= 0),
            tuple((n.receiver, n.after_s) for n in routed.notices if n.after_s > 0),
            routed.kept, routed.by, label_of(self._labels.get(a, "") for a in members),
        ))  # fmt: skip
        if tell.reason == "resolved":
            return
        out.cooled += 1
        # What a cool-down owed was counted when it was held.
        if tell.at_us <= tell.signal.at_us or tell.reason in ("opened", "still_firing"):
            out.grouped += 1
        bar = self._bar(tell.at_us)
        bar.held = max(0, bar.held - 1)
        if routed.kept == "silence":
            out.silenced += 1
            out.by_silence[routed.by] += 1
            bar.silenced += 1
        elif routed.kept:
            out.unwanted += 1
        else:
            bar.sent += 1

    def rises(self, signals: Sequence[Signal]) -> None:
        """Rises in severity of what matched would have been told as well, before anything."""
        out = self._out
        for signal in signals:
            since = out.matches.get(signal.anomaly)
            if signal.change != "update" or since is None:
                continue
            if signal.at_us < self._first_us or signal.at_us <= since:
                continue
            out.matched += 1
            if signal.anomaly in out.placed:
                out.reached += 1
        out.grouped = max(out.grouped, out.cooled)
        out.reached = max(out.reached, out.grouped)
        out.matched = max(out.matched, out.reached)

    def _bar(self, at_us: int) -> Bar:
        at = (at_us - self._bars_from_us) // self._step_us
        return self._out.bars[min(max(at, 0), len(self._out.bars) - 1)]


def _bars(start: datetime, end: datetime, step_s: int) -> list[Bar]:
    """Bars on round times, the first one may begin before ``start``."""
    step_us = step_s * 1_000_000
    first = to_us(start) // step_us * step_us
    count = max(1, -((first - to_us(end)) // step_us))
    return [Bar(from_us(first + i * step_us)) for i in range(count)]


def title_of(signal: Signal, sources: int) -> str:
    """What an incident is called by the signal that it is told by."""
    more = f" and {sources - 1} more" if sources > 1 else ""
    return f"{signal.metric} on {signal.source}{more}"


def label_of(labels: Iterable[str]) -> str:
    """Of an incident by its anomalies: real where one is, else a false alarm, else expected."""
    found = set(labels)
    return next((x for x in ("real", "false_alarm", "expected") if x in found), "")
