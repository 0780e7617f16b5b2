"""One rule's judgement: changes of anomalies in, incidents and what to tell of them out.

Pure: no database, no clock, no chance. The evaluator, the previews and the tests run this very
code. Time is event time in µs; :meth:`Machine.run` puts the signals of one batch into an order of
their own, so that the order of their arrival decides nothing, and cutting a sequence into batches
by time changes no decision.
"""

from __future__ import annotations

import fnmatch
import heapq
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, Final, Literal

from alerts.spec import Matcher, RuleSpec

RANKS: Final = {"low": 1, "medium": 2, "high": 3, "critical": 4}
"""Severities by name, as ``anomalies.models.Severity`` ranks them."""
_NAMESPACE = uuid.UUID("0a8f2f8e-52a5-5b0c-9c1a-6c9a2b6d1f40")
_ORDER: Final = {"onset": 0, "update": 1, "closed": 2}
_SECOND: Final = 1_000_000
_METRIC: Final = 5  # its place in a stored signal

FOREIGN: Final = "alertmanager:"
"""Streams whose names begin so are no topics, but Alertmanagers whose alerts are taken in."""

Change = Literal["onset", "update", "closed"]
What = Literal["anomaly", "no_events", "drift", "pipeline"]
Reason = Literal["opened", "worse", "again", "still_firing", "resolved"]
Why = Literal["count", "grouping", "cooldown", "silence"]


@dataclass(frozen=True, slots=True)
class Signal:
    """One change of one anomaly; silence, drift and the pipeline's figures take the same form.

    ``at_us`` is the event time at which the change was known: of a closing that is the event that
    ended the episode. ``onset_us`` and ``end_us`` are the first and the latest event time over the
    threshold so far. ``siblings`` is how many series the source has.
    """

    at_us: int
    change: Change
    anomaly: str
    stream: str
    source: str
    metric: str
    kind: str
    severity: int
    score: float | None = None
    direction: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    what: What = "anomaly"
    onset_us: int | None = None
    end_us: int | None = None
    siblings: int = 1

    @property
    def order(self) -> tuple[Any, ...]:
        """What a batch is sorted by: time, then everything that tells two signals apart."""
        return (self.at_us, _ORDER[self.change], self.stream, self.source, self.metric,
                self.anomaly, self.severity)  # fmt: skip

    def stored(self) -> list[Any]:
        """As JSON data, by position."""
        return [dict(self.tags) if f.name == "tags" else getattr(self, f.name)
                for f in fields(self)]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decision:
    """Something that was decided at event time ``at_us``; ``key`` names the incident, or is ""."""

    key: str
    at_us: int
    signal: Signal


@dataclass(frozen=True, slots=True)
class Matched(Decision):
    """An anomaly fulfils the rule's conditions on itself; counts are looked at after that."""


@dataclass(frozen=True, slots=True)
class Opened(Decision):
    """A new incident, with its first anomaly."""

    group: str


@dataclass(frozen=True, slots=True)
class Joined(Decision):
    """An anomaly takes part in an incident that there was."""


@dataclass(frozen=True, slots=True)
class Worse(Decision):
    """The incident's severity rose to ``severity``."""

    severity: int


@dataclass(frozen=True, slots=True)
class Reopened(Decision):
    """A resolved incident came back; a :class:`Joined` follows where by a new anomaly."""

    severity: int


@dataclass(frozen=True, slots=True)
class Resolved(Decision):
    """Nothing of it was open for long enough."""


@dataclass(frozen=True, slots=True)
class Tell(Decision):
    """The receivers are to hear of it, unless a silence holds it back.

    ``number`` counts what was to be told of this incident: with the reason it makes a stable id.
    """

    reason: Reason
    severity: int
    number: int


@dataclass(frozen=True, slots=True)
class Held(Decision):
    """An anomaly that by itself would have been told, and why it was not."""

    why: Why


# ---- What a rule and a silence choose by ---------------------------------------------------------
@lru_cache(maxsize=4_096)
def _pattern(text: str) -> re.Pattern[str]:
    # fnmatch writes atomic groups: a pattern of many stars takes no exponential time.
    return re.compile(fnmatch.translate(text.replace("[", "[[]")))


def fits(pattern: str, text: str) -> bool:
    """Whether the text is as the pattern says: ``*`` any text, ``?`` any character, else itself.

    >>> fits("checkout-*", "checkout-eu"), fits("a?", "a")
    (True, False)
    """
    return _pattern(pattern).fullmatch(text) is not None


class Choice:
    """A :class:`~alerts.spec.Matcher` ready for many signals; its ``rules`` are not seen to.

    Args:
        foreign: whether any stream means alerts of Alertmanagers too; if not they must be named.
    """

    def __init__(self, matcher: Matcher, *, foreign: bool = True) -> None:
        self._matcher = matcher
        self._foreign = foreign or bool(matcher.streams)
        self._least = RANKS[matcher.min_severity]
        self._most = RANKS[matcher.max_severity]
        self._known: dict[tuple[str, str, str, str], bool] = {}

    def holds(self, signal: Signal) -> bool:
        """Whether the matcher means this signal, severity included."""
        return self._least <= signal.severity <= self._most and self.holds_for(signal)

    def holds_for(self, signal: Signal) -> bool:
        """Whether it means the signal's series, type and tags, whatever its severity."""
        key = (signal.stream, signal.source, signal.metric, signal.kind)
        known = self._known.get(key)
        if known is None:
            m = self._matcher
            known = ((self._foreign or not signal.stream.startswith(FOREIGN))
                     and _any(m.streams, signal.stream) and _any(m.sources, signal.source)
                     and _any(m.metrics, signal.metric) and _any(m.types, signal.kind))  # fmt: skip
            self._known[key] = known
        if not known:
            return False
        tags = signal.tags
        return all(
            name in tags and fits(value, tags[name]) for name, value in self._matcher.tags.items()
        )


def _any(patterns: tuple[str, ...], text: str) -> bool:
    return not patterns or any(fits(p, text) for p in patterns)


def lasted(spec: RuleSpec, onset: Signal, end_us: int) -> Signal | None:
    """What a machine must be fed once an open anomaly has lasted as long as the rule wants.

    Args:
        onset: the onset or rise that the machine was fed.
        end_us: event time of the anomaly's latest event over the threshold.

    Returns:
        an update at the very moment from which on it counts; None while it is too short, or where
        the rule doesn't ask.
    """
    began = onset.at_us if onset.onset_us is None else onset.onset_us
    due = began + int(spec.when.min_duration_s * _SECOND)
    if spec.when.min_duration_s <= 0 or end_us < due:
        return None
    values = {f.name: getattr(onset, f.name) for f in fields(onset)}
    return Signal(
        **values
        | {"at_us": max(due, onset.at_us), "change": "update", "onset_us": began, "end_us": end_us}
    )


# ---- The machine ---------------------------------------------------------------------------------
@dataclass(slots=True)
class _Incident:
    """One incident while it may still change. Times are event time in µs."""

    key: str
    group: str
    stream: str
    opened_us: int
    active_us: int  # latest onset or rise
    severity: int
    lead: list[Any]  # the signal that it is told by: the first of the worst
    sources: dict[str, None]
    open: dict[str, int] = field(default_factory=dict)  # anomaly -> severity
    quiet_us: int | None = None  # since when nothing is open
    resolved_us: int | None = None
    wait_us: int | None = None  # when the first word is due
    owed: str = ""  # what a cool-down keeps back
    told_us: int | None = None
    told_severity: int = 0
    told: bool = False  # since the last word that it was resolved
    tells: int = 0
    before: list[Any] | None = None  # told_us, told_severity, told: ahead of the last word


class Machine:
    """Judges one rule.

    Args:
        spec: what the rule says.
        ident: names the rule; part of the incidents' keys.
        state: what :meth:`state` gave, also under an earlier version of the rule: its incidents
            live on, and new anomalies are grouped as the new one says.
        min_score: in place of the rule's own, where that is solved from a budget.
    """

    def __init__(
        self,
        spec: RuleSpec,
        ident: str,
        state: dict[str, Any] | None = None,
        *,
        min_score: float | None = None,
    ) -> None:
        self.spec = spec
        self._ident = ident
        self._choice = Choice(spec.match, foreign=False)
        self._min_score = spec.when.min_score if min_score is None else min_score
        self._clock = 0
        self._incidents: dict[str, _Incident] = {}
        self._groups: dict[str, list[str]] = {}
        self._member: dict[str, str] = {}  # open anomaly -> incident
        self._waiting: dict[str, list[Any]] = {}  # anomaly -> its signal; too short so far
        # By what is counted on: [at, anomaly, signal, open, placed].
        self._windows: dict[str, list[list[Any]]] = {}
        self._counting: dict[str, list[Any]] = {}  # open anomaly -> its entry in a window
        self._due: list[tuple[int, str, str]] = []  # a heap; what has moved since is passed over
        if state:
            self._restore(state)

    # -- state ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything that the next batch needs, as JSON data."""
        names = [f.name for f in fields(_Incident)]
        for window in self._windows.values():
            self._prune(window)
        return {
            "clock": self._clock,
            "incidents": [
                {n: list(v) if n == "sources" else dict(v) if n == "open" else v
                 for n in names if (v := getattr(i, n)) not in (None, "")}
                for i in self._incidents.values()
            ],
            "waiting": dict(self._waiting),
            "windows": {k: [list(e) for e in w] for k, w in self._windows.items() if w},
        }  # fmt: skip

    def _restore(self, state: dict[str, Any]) -> None:
        self._clock = state["clock"]
        for stored in state["incidents"]:
            incident = _Incident(**{**stored, "sources": dict.fromkeys(stored["sources"]),
                                    "open": dict(stored.get("open", {}))})  # fmt: skip
            self._add(incident)
            self._member |= dict.fromkeys(incident.open, incident.key)
        self._waiting = dict(state["waiting"])
        self._windows = {k: [list(e) for e in w] for k, w in state["windows"].items()}
        self._counting = {e[1]: e for w in self._windows.values() for e in w if e[3]}

    @property
    def clock_us(self) -> int:
        """Event time that it has come to."""
        return self._clock

    def live(self) -> list[str]:
        """Keys of the incidents that are not resolved."""
        return [i.key for i in self._incidents.values() if i.resolved_us is None]

    def known(self) -> list[str]:
        """Keys of all incidents that may still change, those that may be opened again included."""
        return list(self._incidents)

    def sources(self, key: str) -> list[str]:
        """The sources that take part in an incident, in the order in which they came."""
        incident = self._incidents.get(key)
        return [] if incident is None else list(incident.sources)

    def open_anomalies(self) -> list[str]:
        """Anomalies whose end it waits for: members of incidents, and those counted or timed."""
        return list(dict.fromkeys([*self._member, *self._waiting, *self._counting]))

    def too_short(self) -> list[Signal]:
        """Anomalies that have not lasted long enough so far: see :func:`lasted`."""
        return [_signal(s) for s in self._waiting.values()]

    # -- what comes in -------------------------------------------------------------------------

    def run(self, signals: Iterable[Signal], until_us: int | None = None) -> Iterator[Decision]:
        """Feed a batch in its own order, then advance.

        A caller that finds a :class:`Tell` held back by a silence calls :meth:`untold` before it
        takes the next decision.
        """
        for signal in sorted(signals, key=lambda s: s.order):
            yield from self._steps(signal)
        if until_us is not None:
            yield from self._advance(until_us)

    def feed(self, signal: Signal) -> list[Decision]:
        """Decisions upon one signal; one from before the clock counts by its own time."""
        return list(self._steps(signal))

    def advance(self, at_us: int) -> list[Decision]:
        """Event time moves on: what is due until then."""
        return list(self._advance(at_us))

    def untold(self, tell: Tell) -> None:
        """Nobody was told: the next of this incident's anomalies is told as if it were the first.

        To be called before the machine is fed anything else.
        """
        incident = self._incidents.get(tell.key)
        if incident is None or tell.reason == "resolved" or incident.before is None:
            return
        incident.told_us, incident.told_severity, incident.told = incident.before
        incident.before = None

    def still_firing(self, key: str, at_us: int) -> Iterator[Tell]:
        """A silence that kept it back is over: a word, if something of it is still open."""
        incident = self._incidents.get(key)
        if incident is not None and incident.resolved_us is None and incident.open:
            yield self._tell(incident, at_us, "still_firing", _signal(incident.lead))

    def resolve(self, key: str) -> None:
        """Somebody resolved it; new anomalies open it again as they would otherwise."""
        incident = self._incidents.get(key)
        if incident is not None and incident.resolved_us is None:
            incident.resolved_us = max(self._clock, incident.active_us)
            incident.wait_us, incident.owed, incident.told = None, "", False
            self._plan(incident)

    def reopen(self, key: str) -> None:
        """Somebody opened it again: it stays open for as long as a new one would."""
        incident = self._incidents.get(key)
        if incident is not None and incident.resolved_us is not None:
            incident.resolved_us = None
            incident.quiet_us = None if incident.open else self._clock
            self._plan(incident)

    def merge(self, key: str, into: str) -> None:
        """Two incidents are one from here on; an unknown target only lets go of the first."""
        gone, target = self._incidents.pop(key, None), self._incidents.get(into)
        if gone is None:
            return
        self._groups[gone.group].remove(key)
        for anomaly in gone.open:
            if target is None:
                self._member.pop(anomaly, None)
            else:
                self._member[anomaly] = into
        if target is not None:
            target.sources |= gone.sources
            target.open |= gone.open
            target.active_us = max(target.active_us, gone.active_us)
            if gone.severity > target.severity:
                target.severity, target.lead = gone.severity, gone.lead
            target.told_severity = max(target.told_severity, gone.told_severity)
            if target.open and target.resolved_us is None:
                target.quiet_us = None

    # -- one signal ----------------------------------------------------------------------------

    def _steps(self, signal: Signal) -> Iterator[Decision]:
        if signal.at_us > self._clock:
            yield from self._advance(signal.at_us)
        if signal.what != self.spec.when.kind:
            return
        if signal.change == "closed":
            yield from self._closed(signal)
        elif signal.anomaly in self._member:
            yield from self._risen(self._incidents[self._member[signal.anomaly]], signal)
        elif signal.anomaly in self._waiting:
            if self._long_enough(signal):
                del self._waiting[signal.anomaly]
                yield from self._matched(signal)
            else:
                self._waiting[signal.anomaly] = signal.stored()
        elif (entry := self._counted(signal.anomaly)) is not None:
            if signal.severity > _signal(entry[2]).severity:
                entry[2] = signal.stored()
        elif self._chosen(signal):
            if self._long_enough(signal):
                yield from self._matched(signal)
            else:
                self._waiting[signal.anomaly] = signal.stored()

    def _chosen(self, signal: Signal) -> bool:
        if not self._choice.holds(signal):
            return False
        # A report by hand may have no score: somebody meant it.
        least, score = self._min_score, signal.score
        scored = signal.what == "anomaly" and least is not None and score is not None
        if scored and (score or 0.0) < (least or 0.0):
            return False
        wanted = self.spec.when.direction
        return wanted == "both" or signal.direction == (1 if wanted == "up" else -1)

    def _long_enough(self, signal: Signal) -> bool:
        least = self.spec.when.min_duration_s
        if least <= 0 or signal.what != "anomaly":
            return True
        began = signal.at_us if signal.onset_us is None else signal.onset_us
        end = signal.at_us if signal.end_us is None else signal.end_us
        return end - began >= least * _SECOND

    def _closed(self, signal: Signal) -> Iterator[Decision]:
        anomaly = signal.anomaly
        waiting = self._waiting.pop(anomaly, None)
        if waiting is not None and signal.end_us is not None:
            late = lasted(self.spec, _signal(waiting), signal.end_us)
            if late is not None:
                yield from self._matched(late)
        entry = self._counting.pop(anomaly, None)
        if entry is not None:
            entry[3] = False
        key = self._member.pop(anomaly, None)
        if key is None:
            return
        incident = self._incidents[key]
        incident.open.pop(anomaly, None)
        if not incident.open:
            incident.quiet_us = max(signal.at_us, incident.active_us)
            self._plan(incident)

    def _risen(self, incident: _Incident, signal: Signal) -> Iterator[Decision]:
        if signal.severity <= incident.open.get(signal.anomaly, 0):
            return
        incident.open[signal.anomaly] = signal.severity
        at = max(signal.at_us, incident.opened_us)
        if incident.resolved_us is not None:
            yield from self._reopened(incident, signal, at)
            return
        incident.active_us = max(incident.active_us, at)
        if signal.severity > incident.severity:
            yield from self._got_worse(incident, signal, at)

    def _matched(self, signal: Signal) -> Iterator[Decision]:
        yield Matched("", signal.at_us, signal)
        when = self.spec.when
        if when.count <= 1 and when.share_of_series is None:
            yield from self._place(signal, True)
            return
        name = _counted_on(signal, "source" if when.share_of_series else when.on)
        window = self._windows.setdefault(name, [])
        entry = [signal.at_us, signal.anomaly, signal.stored(), True, False]
        window.append(entry)
        self._counting[signal.anomaly] = entry
        self._prune(window)
        if not self._enough(window, signal.siblings):
            yield Held("", signal.at_us, signal, "count")
            return
        for held in sorted((e for e in window if not e[4]), key=lambda e: (e[0], e[1])):
            held[4] = True
            yield from self._place(_signal(held[2]), held[3], signal.at_us)

    def _prune(self, window: list[list[Any]]) -> None:
        since = self._since()
        for entry in window:
            if entry[0] <= since:
                self._counting.pop(entry[1], None)
        window[:] = [e for e in window if e[0] > since]

    def _since(self) -> int:
        return self._clock - int(self.spec.when.within_s * _SECOND)

    def _counted(self, anomaly: str) -> list[Any] | None:
        entry = self._counting.get(anomaly)
        return None if entry is None or entry[0] <= self._since() else entry

    def _enough(self, window: list[list[Any]], siblings: int) -> bool:
        when = self.spec.when
        if len(window) < when.count:
            return False
        if when.share_of_series is None:
            return True
        metrics = {e[2][_METRIC] for e in window}
        return len(metrics) >= when.share_of_series * max(siblings, 1)

    # -- incidents -----------------------------------------------------------------------------

    def _place(self, signal: Signal, is_open: bool, at_us: int | None = None) -> Iterator[Decision]:
        """Into an incident. ``at_us``: when that was decided, where later than the signal."""
        at = signal.at_us if at_us is None else at_us
        group = _group(signal, self.spec.group.by)
        incident = self._find(group, signal, at)
        if incident is None:
            yield from self._open(group, signal, is_open, at)
            return
        incident.sources[signal.source] = None
        if is_open:
            incident.open[signal.anomaly] = signal.severity
            self._member[signal.anomaly] = incident.key
        at = max(at, incident.opened_us)
        if incident.resolved_us is not None:
            yield from self._reopened(incident, signal, at)
            yield Joined(incident.key, at, signal)
            return
        yield Joined(incident.key, at, signal)
        incident.active_us = max(incident.active_us, at)
        incident.quiet_us = None if incident.open else incident.active_us
        self._plan(incident)
        if signal.severity > incident.severity:
            yield from self._got_worse(incident, signal, at, joins=True)
        elif incident.wait_us is not None:
            yield Held(incident.key, at, signal, "grouping")
        elif not incident.told_severity:
            yield self._tell(incident, at, "opened", signal)
        elif self._cooled(incident, at):
            yield self._tell(incident, at, "again", signal)
        else:
            yield Held(incident.key, at, signal, "grouping")

    def _find(self, group: str, signal: Signal, at: int) -> _Incident | None:
        """The incident of this group that the signal belongs to: see ``alerts.spec.Group``."""
        found = [self._incidents[k] for k in self._groups.get(group, ())]
        if self.spec.group.by == "incident":
            join = int(self.spec.group.join_s * _SECOND)
            found = [
                i for i in found
                if signal.source in i.sources
                or (i.resolved_us is None and i.opened_us - join <= at <= i.active_us + join)
            ]  # fmt: skip
        return min(
            found,
            key=lambda i: (i.resolved_us is not None, signal.source not in i.sources,
                           -i.active_us, i.key),
            default=None,
        )  # fmt: skip

    def _open(self, group: str, signal: Signal, is_open: bool, at: int) -> Iterator[Decision]:
        key = str(uuid.uuid5(_NAMESPACE, f"{self._ident}/{group}/{signal.anomaly}"))
        if key in self._incidents:  # the same anomaly once more: its incident was merged or left
            return
        incident = _Incident(key, group, signal.stream, at, at, signal.severity, signal.stored(),
                             {signal.source: None})  # fmt: skip
        if is_open:
            incident.open[signal.anomaly] = signal.severity
            self._member[signal.anomaly] = key
        else:
            incident.quiet_us = at
        self._add(incident)
        yield Opened(key, at, signal, group)
        if self.spec.group.wait_s > 0:
            incident.wait_us = at + int(self.spec.group.wait_s * _SECOND)
            self._plan(incident)
        else:
            self._plan(incident)
            yield self._tell(incident, at, "opened", signal)

    def _reopened(self, incident: _Incident, signal: Signal, at: int) -> Iterator[Decision]:
        incident.resolved_us = None
        incident.active_us = max(incident.active_us, at)
        incident.quiet_us = None if incident.open else incident.active_us
        incident.severity, incident.lead = signal.severity, signal.stored()
        yield Reopened(incident.key, at, signal, signal.severity)
        if self._cooled(incident, at):
            yield self._tell(incident, at, "again", signal)
        else:
            incident.owed = "again"
            yield Held(incident.key, at, signal, "cooldown")
        self._plan(incident)

    def _got_worse(
        self, incident: _Incident, signal: Signal, at: int, joins: bool = False
    ) -> Iterator[Decision]:
        incident.severity, incident.lead = signal.severity, signal.stored()
        yield Worse(incident.key, at, signal, signal.severity)
        if incident.wait_us is not None:
            if joins:
                yield Held(incident.key, at, signal, "grouping")
        elif not incident.told_severity:
            yield self._tell(incident, at, "opened", signal)
        elif signal.severity <= incident.told_severity:
            pass  # told as bad before it was resolved; that it is back is owed
        elif self.spec.at_once_if_worse or self._cooled(incident, at):
            yield self._tell(incident, at, "worse", signal)
        else:
            incident.owed = incident.owed or "worse"
            self._plan(incident)
            yield Held(incident.key, at, signal, "cooldown")

    def _cooled(self, incident: _Incident, at: int) -> bool:
        return incident.told_us is None or at >= self._cool_at(incident)

    def _cool_at(self, incident: _Incident) -> int:
        return (incident.told_us or 0) + int(self.spec.cooldown_s * _SECOND)

    def _tell(self, incident: _Incident, at: int, reason: Reason, signal: Signal) -> Tell:
        incident.tells += 1
        if reason == "resolved":
            incident.told = False
        else:
            incident.before = [incident.told_us, incident.told_severity, incident.told]
            incident.told_us, incident.told = at, True
            incident.told_severity = incident.severity
            incident.wait_us, incident.owed = None, ""
        return Tell(incident.key, at, signal, reason, incident.severity, incident.tells)

    def _add(self, incident: _Incident) -> None:
        self._incidents[incident.key] = incident
        self._groups.setdefault(incident.group, []).append(incident.key)
        self._plan(incident)

    # -- time ----------------------------------------------------------------------------------

    def _advance(self, at_us: int) -> Iterator[Decision]:
        while self._due and self._due[0][0] <= at_us:
            due, key, step = heapq.heappop(self._due)
            incident = self._incidents.get(key)
            if incident is None or (due, key, step) not in self._dues(incident):
                continue
            self._clock = max(self._clock, due)
            lead = _signal(incident.lead)
            if step == "wait":
                yield self._tell(incident, due, "opened", lead)
            elif step == "owed":
                reason: Reason = "worse" if incident.owed == "worse" else "again"
                yield self._tell(incident, due, reason, lead)
            elif step == "resolve":
                yield from self._resolve(incident, due, lead)
            else:
                self._forget(incident)
                continue
            self._plan(incident)
        self._clock = max(self._clock, at_us)

    def _dues(self, incident: _Incident) -> Iterator[tuple[int, str, str]]:
        group = self.spec.group
        if incident.resolved_us is not None:
            again_until = incident.resolved_us + int(group.reopen_within_s * _SECOND) + 1
            yield again_until, incident.key, "forget"
            return
        if incident.wait_us is not None:
            yield incident.wait_us, incident.key, "wait"
        elif incident.owed:
            yield self._cool_at(incident), incident.key, "owed"
        if incident.quiet_us is not None:
            yield incident.quiet_us + int(group.resolve_after_s * _SECOND), incident.key, "resolve"

    def _resolve(self, incident: _Incident, at: int, lead: Signal) -> Iterator[Decision]:
        if incident.wait_us is not None:
            yield self._tell(incident, at, "opened", lead)
        incident.resolved_us, incident.owed = at, ""
        yield Resolved(incident.key, at, lead)
        if incident.told and self.spec.tell_resolved:
            yield self._tell(incident, at, "resolved", lead)

    def _forget(self, incident: _Incident) -> None:
        del self._incidents[incident.key]
        keys = self._groups[incident.group]
        keys.remove(incident.key)
        if not keys:
            del self._groups[incident.group]
        for anomaly in incident.open:
            self._member.pop(anomaly, None)

    def _plan(self, incident: _Incident) -> None:
        for due in self._dues(incident):
            heapq.heappush(self._due, due)


def _signal(stored: list[Any]) -> Signal:
    return Signal(*stored)


def lane(spec: RuleSpec, signal: Signal) -> str:
    """Which machine of the rule judges a signal: streams have clocks of their own.

    One machine for each stream; a single one, "", where the rule groups or counts across streams.
    """
    return "" if spec.group.by == "rule" or spec.when.on == "rule" else signal.stream


def _group(signal: Signal, by: str) -> str:
    parts = {
        "incident": (signal.stream,),
        "stream": (signal.stream,),
        "source": (signal.stream, signal.source),
        "metric": (signal.stream, signal.metric),
        "series": (signal.stream, signal.source, signal.metric),
        "rule": (),
    }[by]
    return ":".join((by, "/".join(parts)))


def _counted_on(signal: Signal, on: str) -> str:
    parts = {
        "series": (signal.stream, signal.source, signal.metric),
        "source": (signal.stream, signal.source),
        "stream": (signal.stream,),
        "rule": (),
    }[on]
    return "\x1f".join((on, *parts))
