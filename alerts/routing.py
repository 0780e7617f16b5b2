"""Who hears of what a machine wants told: silences, then the rule's receivers. Pure.

:func:`decide` is the one way from signals to notifications. The evaluator and the preview both run
it, so what a preview shows is what is sent. Event time decides silences; wall-clock decides hours
and escalation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from alerts.hours import Timetable
from alerts.machine import RANKS, Decision, Held, Machine, Reopened, Resolved, Signal, Tell
from alerts.quieting import Quiet, holding, quiet_until
from alerts.spec import RuleSpec, Step
from streams.clock import from_us

Kept = Literal["", "silence", "receivers"]


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification to write.

    (``key``, ``receiver``, ``reason``, ``number``) are what its id is made of. With ``after_s``
    above 0 it is an escalation: due that much later by the wall clock, and only if nobody has
    acknowledged by then. ``if_told``: only where this receiver's escalation was sent before, as
    nobody is told of the end of what they never heard of.
    """

    key: str
    receiver: str
    reason: str
    severity: int
    at_us: int
    number: int
    after_s: float = 0.0
    if_told: bool = False


@dataclass(frozen=True, slots=True)
class Routed(Decision):
    """What became of a :class:`Tell`: notices, or why there are none.

    ``kept`` is "silence" (``by`` names it), "receivers" (no step of the rule wants it) or "".
    """

    tell: Tell
    notices: tuple[Notice, ...]
    kept: Kept = ""
    by: str = ""


class Router:
    """Routes one rule's words.

    Args:
        rule: the rule's name, which silences may choose by.
        spec: what the rule says.
        silences: those that are enabled.
        hours: timetables by name; a step that names an unknown one counts always, since being told
            once too often is better than never.
        state: what :meth:`state` gave.
    """

    def __init__(
        self,
        rule: str,
        spec: RuleSpec,
        silences: Sequence[Quiet] = (),
        hours: Mapping[str, Timetable] | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:
        self.rule, self.spec = rule, spec
        self._silences, self._hours = tuple(silences), hours or {}
        stored = state or {}
        # incident -> [event time from which on it was held, the signal that it was held for]
        self._held: dict[str, list[Any]] = dict(stored.get("held", {}))
        # incident -> {receiver: whether only as an escalation}
        self._told: dict[str, dict[str, bool]] = dict(stored.get("told", {}))
        # incident -> when no silence keeps it back any more, by the silences of now
        self._ends = {key: self._until(at, Signal(*s)) for key, (at, s) in self._held.items()}

    def state(self, known: Iterable[str]) -> dict[str, Any]:
        """As JSON data, of the incidents that the machine still knows."""
        keys = set(known)
        return {
            "held": {k: v for k, v in self._held.items() if k in keys},
            "told": {k: v for k, v in self._told.items() if k in keys},
        }

    def holds(self) -> bool:
        """Whether anything is kept back by a silence."""
        return bool(self._held)

    def next_end(self) -> tuple[int, str] | None:
        """Event time and incident of the first silence to end, of those that keep a word back."""
        return min(((end, key) for key, end in self._ends.items()), default=None)

    def let_go(self, key: str) -> None:
        """Nothing of this incident is kept back any more."""
        self._held.pop(key, None)
        self._ends.pop(key, None)

    def route(self, tell: Tell, now: datetime) -> Routed:
        """What becomes of a word at wall-clock time ``now``."""
        if tell.reason == "resolved":
            return self._over(tell)
        found = holding(self._silences, tell.signal, tell.at_us, self.rule, self.spec.silences)
        if found is not None:
            self._held[tell.key] = [tell.at_us, tell.signal.stored()]
            self._ends[tell.key] = self._until(tell.at_us, tell.signal)
            return Routed(tell.key, tell.at_us, tell.signal, tell, (), "silence", found[0].name)
        self.let_go(tell.key)
        told = self._told.setdefault(tell.key, {})
        notices: dict[str, Notice] = {}
        for step in sorted(self.spec.send, key=lambda s: s.after_s):
            if step.receiver in notices or not self._wants(step, tell, now):
                continue
            if step.after_s > 0 and step.receiver in told:
                continue
            notices[step.receiver] = Notice(
                tell.key, step.receiver, "escalated" if step.after_s > 0 else tell.reason,
                tell.severity, tell.at_us, tell.number, step.after_s,
            )  # fmt: skip
        for name, notice in notices.items():
            told[name] = told.get(name, True) and notice.after_s > 0
        kept: Kept = "" if notices else "receivers"
        return Routed(tell.key, tell.at_us, tell.signal, tell, tuple(notices.values()), kept)

    def saw(self, decision: Decision) -> None:
        """Keep up with the machine."""
        if isinstance(decision, Resolved):
            self.let_go(decision.key)
        elif isinstance(decision, Reopened):
            self._told.pop(decision.key, None)

    def _until(self, at_us: int, signal: Signal) -> int:
        return quiet_until(self._silences, signal, at_us, self.rule, self.spec.silences)

    def _over(self, tell: Tell) -> Routed:
        """Good news go to those who had the bad ones, silence or not."""
        told = self._told.pop(tell.key, {})
        notices = tuple(
            Notice(tell.key, name, "resolved", tell.severity, tell.at_us, tell.number,
                   if_told=only_escalated)
            for name, only_escalated in told.items()
        )  # fmt: skip
        kept: Kept = "" if notices else "receivers"
        return Routed(tell.key, tell.at_us, tell.signal, tell, notices, kept)

    def _wants(self, step: Step, tell: Tell, now: datetime) -> bool:
        if tell.severity < RANKS[step.min_severity]:
            return False
        table = self._hours.get(step.hours) if step.hours else None
        if table is None:
            return True
        return table.within(now + timedelta(seconds=step.after_s)) != step.outside


def decide(
    machine: Machine,
    router: Router,
    signals: Iterable[Signal],
    until_us: int | None = None,
    *,
    now: Callable[[int], datetime] = from_us,
) -> Iterator[Decision]:
    """Run one rule over a batch: the machine's decisions, each Tell as the Routed that it became.

    Ends of silences take their place among the signals by event time: an incident that was kept
    back and still fires is told then, with reason ``still_firing``.

    Args:
        until_us: event time has come so far, also where no signal says so.
        now: wall-clock time for an event time; the event time itself in a preview.
    """
    for signal in sorted(signals, key=lambda s: s.order):
        yield from _ends(machine, router, signal.at_us, now)
        yield from _routed(machine, router, machine.run((signal,)), now)
    if until_us is not None:
        yield from _ends(machine, router, until_us, now)
        yield from _routed(machine, router, machine.run((), until_us), now)


def _ends(
    machine: Machine, router: Router, until_us: int, now: Callable[[int], datetime]
) -> Iterator[Decision]:
    while (first := router.next_end()) is not None and first[0] <= until_us:
        at = max(first[0], machine.clock_us)
        yield from _routed(machine, router, machine.run((), at), now)
        if router.next_end() != first:
            continue  # it was resolved meanwhile, or a word of it was kept back again
        router.let_go(first[1])
        yield from _routed(machine, router, machine.still_firing(first[1], at), now)


def _routed(
    machine: Machine, router: Router, decisions: Iterable[Decision],
    now: Callable[[int], datetime],
) -> Iterator[Decision]:  # fmt: skip
    for decision in decisions:
        router.saw(decision)
        if not isinstance(decision, Tell):
            yield decision
            continue
        routed = router.route(decision, now(decision.at_us))
        if routed.kept == "silence":
            machine.untold(decision)
            yield Held(decision.key, decision.at_us, decision.signal, "silence")
        yield routed
