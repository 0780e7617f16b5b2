"""Previews with what is stored: a rule, a silence or a budget over the last days, and what people
said of those days."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.utils import timezone

from alerts import budgets, past, silences
from alerts.budgets import Solved
from alerts.machine import Signal
from alerts.models import Rule
from alerts.past import Labelled, Past
from alerts.preview import LEAD, STEPS_S, Replay, Said, replay
from alerts.quieting import Quiet, overlapping
from alerts.recurrence import Window
from alerts.rules import live_spec
from alerts.spec import RuleSpec

DAYS = (1, 7, 30)
KEPT_S = 60.0
KINDS = {
    "no_events": "Silence of a series is judged while it lasts, by the wall clock",
    "drift": "Drift is judged from reports that are made as time goes on",
    "pipeline": "The pipeline's figures are judged as they come",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A labelled incident or anomaly, and whether the rule would have told of it."""

    of: Labelled
    caught: bool
    why: str = ""


@dataclass(slots=True)
class Rehearsal:
    """All that a preview shows of a rule."""

    days: int
    start: datetime
    end: datetime
    run: Replay | None
    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    solved: Solved | None = None
    really: int = 0
    live: Replay | None = None
    seconds: float = 0.0

    @property
    def real(self) -> list[Verdict]:
        """What was labelled real."""
        return [v for v in self.verdicts if v.of.label == "real"]

    @property
    def missed(self) -> list[Verdict]:
        """What was labelled real and nobody would have heard of."""
        return [v for v in self.real if not v.caught]

    @property
    def false_alarms(self) -> list[Verdict]:
        """What was labelled a false alarm or expected, and somebody would have heard of."""
        return [v for v in self.verdicts if v.of.label != "real" and v.caught]


def of_rule(
    rule: Rule | None,
    spec: RuleSpec,
    days: int = 7,
    *,
    now: datetime | None = None,
    name: str = "",
    with_live: bool = False,
    quiets: Sequence[Quiet] | None = None,
) -> Rehearsal:
    """What a rule would have sent in the last days, if it had said this.

    Args:
        rule: the stored one, None for a new one.
        with_live: also what the version that is live would have sent.
        quiets: in place of the stored silences.
    """
    began = time.perf_counter()
    end = whole_minute(now or timezone.now())
    start = end - timedelta(days=days)
    found = Rehearsal(days, start, end, None)
    if spec.when.kind != "anomaly":
        found.notes.append(
            f"{KINDS[spec.when.kind]}: what it would have sent in the past can't be known."
        )
        return found
    stored = remembered(start - LEAD, end)
    quiets = silences.enabled() if quiets is None else quiets
    hours = silences.timetables()
    called = rule.name if rule is not None else name

    def run(said: RuleSpec, signals: Sequence[Signal], score: float | None) -> Replay:
        return replay(
            said, signals, start, end, rule=called, ident=str(rule.pk if rule else "new"),
            silences=quiets, hours=hours, min_score=score, step_s=STEPS_S.get(days, 14_400),
            labels=stored.labels,
        )  # fmt: skip

    found.solved = budgets.solve(spec, stored.signals, lambda s, score: run(spec, s, score))
    if found.solved is not None:
        found.run = run(spec, stored.signals, found.solved.score)
    else:
        found.run = run(spec, stored.signals, None)
    live = live_spec(rule) if rule is not None else None
    if with_live and live is not None and live.when.kind == "anomaly":
        found.live = run(live, stored.signals, rule.solved_score if rule else None)
    found.verdicts = judged(found.run, past.labelled(start, end))
    found.really = past.really_sent(rule.pk, start, end) if rule is not None else 0
    found.notes += _notes(spec, stored, start, end)
    found.seconds = time.perf_counter() - began
    return found


def judged(run: Replay, labelled: Sequence[Labelled]) -> list[Verdict]:
    """Which of those somebody would have heard of, and why not of the others."""
    told = run.told_keys()
    silenced: dict[str, str] = {}
    for said in run.said:
        if said.kept == "silence":
            silenced.setdefault(said.key, said.by)
    verdicts = []
    for one in labelled:
        keys = {run.placed[a] for a in one.anomalies if a in run.placed}
        if keys & told:
            verdicts.append(Verdict(one, True))
            continue
        by = next((silenced[k] for k in sorted(keys) if k in silenced), "")
        if by:
            why = f"falls in {by}"
        elif keys:
            why = "no receiver takes it"
        elif any(a in run.matches for a in one.anomalies):
            why = "too few came together"
        else:
            why = "does not match"
        verdicts.append(Verdict(one, False, why))
    return verdicts


@dataclass(frozen=True, slots=True)
class Hidden:
    """What one silence would have kept back of one rule."""

    rule: str
    said: Said


@dataclass(slots=True)
class SilencePreview:
    """A silence over the last days, and now."""

    start: datetime
    end: datetime
    windows: list[Window]
    hidden: list[Hidden]
    words: int  # of trouble, by all rules, without this silence
    series: int  # that it speaks of
    open_now: list[tuple[str, str]]  # source, metric of open anomalies that it means
    seconds: float = 0.0


def of_silence(one: Quiet, *, now: datetime | None = None, days: int = 7) -> SilencePreview:
    """What a silence would have hidden in the last days, and what it means now.

    The rules that are enabled run over the past with all other silences, and with this one besides.
    """
    began = time.perf_counter()
    end = whole_minute(now or timezone.now())
    start = end - timedelta(days=days)
    others = tuple(q for q in silences.enabled() if q.ident != one.ident)
    stored = remembered(start - LEAD, end)
    hours = silences.timetables()
    hidden: list[Hidden] = []
    words = 0
    for rule in Rule.objects.filter(enabled=True).select_related("live").order_by("name"):
        spec = live_spec(rule)
        if spec is None or spec.when.kind != "anomaly":
            continue
        # This one last: what others keep back is not its doing.
        run = replay(
            spec, stored.signals, start, end, rule=rule.name, ident=str(rule.pk),
            silences=(*others, one), hours=hours, min_score=rule.solved_score,
        )  # fmt: skip
        mine = [s for s in run.said if s.kept == "silence" and s.by == one.name]
        hidden += [Hidden(rule.name, s) for s in mine]
        words += run.sent + len(mine)
    windows = [w for _, w in overlapping([one], start, end)]
    preview = SilencePreview(
        start, end, windows, sorted(hidden, key=lambda h: h.said.at, reverse=True), words,
        past.series_meant(one), past.open_meant(one),
    )  # fmt: skip
    preview.seconds = time.perf_counter() - began
    return preview


def whole_minute(at: datetime) -> datetime:
    """Up to the next minute, so that previews of one minute read the same past."""
    return at.replace(second=0, microsecond=0) + timedelta(minutes=1)


_memory: dict[tuple[datetime, datetime], tuple[float, Past]] = {}
_lock = threading.Lock()


def remembered(start: datetime, end: datetime) -> Past:
    """``past.read``, kept for a minute, as a draft is previewed at each edit."""
    with _lock:
        kept = _memory.get((start, end))
        if kept is not None and time.monotonic() - kept[0] < KEPT_S:
            return kept[1]
    found = past.read(start, end)
    with _lock:
        while len(_memory) >= 3:
            _memory.pop(next(iter(_memory)))
        _memory[(start, end)] = (time.monotonic(), found)
    return found


def forget() -> None:
    """What is stored has changed, and the next preview is to see it."""
    with _lock:
        _memory.clear()


def _notes(spec: RuleSpec, stored: Past, start: datetime, end: datetime) -> list[str]:
    notes = []
    if stored.rough:
        notes.append(
            f"Of {stored.rough:,} older anomalies only the end is stored: they count with the"
            " severity that they reached."
        )
    if stored.cut:
        notes.append("There is more than can be read at once: the oldest anomalies are missing.")
    least = past.lowest_threshold(start, end)
    score = spec.when.min_score
    if score is not None and least is not None and score < least - 1e-9:
        text = (
            f"Policies make anomalies from {least:.2f} on, so the score {score:.2f} holds nothing"
            " back and lets nothing more through."
        )
        misses = past.near_misses(start, end, score)
        if misses is None:
            text += " What lies so far below is not stored: it can't be known."
        else:
            text += (
                f" Policies with {misses[0]:.3g} would have opened {misses[1]:,} episodes by"
                " themselves, before any rule; what this rule would make of those can't be known,"
                " since their ends are not stored."
            )
        notes.append(text)
    return notes
