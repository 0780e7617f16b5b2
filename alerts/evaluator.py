"""The one evaluator: reads what the rules have not judged yet, judges it, and stores the outcome.

A round is one transaction that begins by holding the lease: it stores incidents, members, timeline,
messages, notifications, the rules' states and what was judged, or nothing. A repeated round meets
the same rows. Rules, silences and receivers are read anew in each round, so a change counts within
seconds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from pydantic import ValidationError

from alerts import clocks, leases, silences, waiting
from alerts.conditions import Conditions
from alerts.errors import FencedError
from alerts.hours import Timetable
from alerts.ledger import Ledger
from alerts.machine import Machine, Signal, lane, lasted
from alerts.models import Incident, Receiver, Rule, RuleState, RuleVersion
from alerts.quieting import Quiet
from alerts.routing import Router, decide
from alerts.spec import RuleSpec
from anomalies.models import Anomaly, Outbox
from streams.clock import to_us

log = logging.getLogger(__name__)

LEASE = "evaluator"
LEASE_S = 10.0
ROUND_S = 0.5
GONE_S = 3_600.0
"""An open anomaly whose series has had no event for so long counts as ended."""
_LOOK_S = 30.0


@dataclass(slots=True)
class Round:
    """What one round did."""

    judged: int = 0
    held: int = 0
    incidents: int = 0
    notifications: int = 0
    more: bool = False


@dataclass(slots=True)
class _Surroundings:
    """What every rule of a round is judged by."""

    now: datetime
    clocks: dict[str, int]
    signals: list[Signal]
    cut_us: int | None
    silences: Sequence[Quiet]
    hours: Mapping[str, Timetable]
    receivers: Mapping[str, Receiver]

    def until(self, name: str) -> int:
        """How far a lane's time has come."""
        if name:
            at = self.clocks.get(name, to_us(self.now))
        else:
            at = min(self.clocks.values(), default=to_us(self.now))
        return at if self.cut_us is None else min(at, self.cut_us)


@dataclass(slots=True)
class Evaluator:
    """Judges in rounds while it holds the lease.

    Args:
        owner: names this process, one name in all of the installation.
    """

    owner: str
    now: Callable[[], datetime] = timezone.now
    _held: leases.Held | None = None
    _looked: datetime | None = None
    _rules: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether the lease was ours when we last looked."""
        return self._held is not None

    def step(self) -> Round | None:
        """One round; None while another evaluator holds the lease.

        Raises:
            django.db.DatabaseError: nothing was stored; the next step begins anew.
        """
        if self._held is None:
            self._held = leases.take(LEASE, self.owner, LEASE_S)
            if self._held is None:
                return None
            log.info("evaluator.leads owner=%s epoch=%s", self.owner, self._held.epoch)
        try:
            with transaction.atomic():
                leases.hold(self._held)
                return self._round()
        except FencedError as error:
            log.warning("evaluator.fenced error=%s", error)
            self._held = None
            return None

    def release(self) -> None:
        """Let another one lead at once."""
        if self._held is not None:
            leases.release(self._held)
            self._held = None

    def run(self, stop: threading.Event, after: Callable[[], object] = lambda: None) -> None:
        """Rounds until ``stop`` is set; ``after`` is called after each one that was led."""
        while not stop.is_set():
            more = False
            try:
                done = self.step()
                more = done is not None and done.more
                if done is not None:
                    after()
            except DatabaseError as error:
                log.warning("evaluator.postponed error=%s", " ".join(str(error).split())[:300])
                connection.close()
            stop.wait(0.0 if more else ROUND_S)
        try:
            self.release()
        except DatabaseError:
            connection.close()

    # -- one round -----------------------------------------------------------------------------

    def _round(self) -> Round:
        now = self.now()
        # First the clocks, then what waits: a change below a clock is then sure to be seen.
        at = clocks.read(now)
        found = waiting.read(at, now)
        around = _Surroundings(
            now, at, found.signals, found.cut_us, silences.enabled(), silences.timetables(),
            {r.name: r for r in Receiver.objects.all()},
        )  # fmt: skip
        done = Round(len(found.rows), found.held, more=found.cut_us is not None)
        look = self._looked is None or (now - self._looked).total_seconds() >= _LOOK_S
        for rule in Rule.objects.exclude(live=None).select_related("live").order_by("pk"):
            ledger = self._judge(rule, around, look)
            if ledger is not None:
                done.notifications += ledger.notifications
        if look:
            self._looked = now
        for first in range(0, len(found.rows), 5_000):
            Outbox.objects.filter(pk__in=found.rows[first : first + 5_000]).update(evaluated_at=now)
        return done

    def _judge(self, rule: Rule, around: _Surroundings, look: bool) -> Ledger | None:
        version = rule.live
        if version is None:
            return None
        try:
            spec = RuleSpec.read(version.spec)
        except ValidationError as error:
            log.error("rule.unreadable rule=%s version=%s error=%s", rule, version, error)
            return None
        stored, _ = RuleState.objects.get_or_create(rule=rule, defaults={"version": version})
        judging = _Judging(rule, version, spec, stored.state, around)
        if not rule.enabled and not judging.live():
            return None
        judging.heed_people()
        signals = around.signals
        if not rule.enabled:
            signals = [s for s in signals if s.change == "closed"]
        if rule.enabled and spec.when.kind != "anomaly":
            signals = judging.conditions.signals(around.clocks, around.now)
        ledger = judging.run(signals, rule.enabled, look)
        state = judging.state()
        if stored.version_id != version.pk or _settled(state) != _settled(stored.state):
            stored.version, stored.state, stored.evaluated_at = version, state, around.now
            stored.save()
        return ledger


class _Judging:
    """One rule in one round: a machine and a router for each lane."""

    def __init__(
        self,
        rule: Rule,
        version: RuleVersion,
        spec: RuleSpec,
        state: dict[str, Any],
        around: _Surroundings,
    ) -> None:
        self._rule, self._version, self._spec, self._around = rule, version, spec, around
        self._lanes: dict[str, tuple[Machine, Router]] = {}
        for name, stored in state.get("lanes", {}).items():
            self._lanes[name] = self._lane(stored)
        self.conditions = Conditions(spec, state.get("conditions"))
        self._incidents: dict[str, Incident] = {}

    def _lane(self, stored: dict[str, Any]) -> tuple[Machine, Router]:
        around = self._around
        machine = Machine(
            self._spec, str(self._rule.pk), stored.get("machine"),
            min_score=self._rule.solved_score if self._spec.when.budget_per_day else None,
        )  # fmt: skip
        return machine, Router(
            self._rule.name, self._spec, around.silences, around.hours, stored.get("router")
        )

    def live(self) -> list[str]:
        """Incidents that are not resolved."""
        return [key for machine, _ in self._lanes.values() for key in machine.live()]

    def state(self) -> dict[str, Any]:
        """For the next round; a lane of which nothing is left is left out."""
        lanes = {}
        for name, (machine, router) in sorted(self._lanes.items()):
            state = machine.state()
            if state["incidents"] or state["waiting"] or state["windows"]:
                lanes[name] = {"machine": state, "router": router.state(machine.known())}
        found: dict[str, Any] = {"lanes": lanes}
        if self._spec.when.kind != "anomaly":
            found["conditions"] = self.conditions.state()
        return found

    def heed_people(self) -> None:
        """Lock the incidents that may change, and tell the machines what people did to them."""
        keys = [key for machine, _ in self._lanes.values() for key in machine.known()]
        if not keys:
            return
        rows = Incident.objects.select_for_update(of=("self",)).select_related(
            "rule", "rule_version", "assignee", "acknowledged_by", "resolved_by", "merged_into"
        )
        self._incidents = {str(i.key): i for i in rows.filter(key__in=keys).order_by("pk")}
        for machine, _ in self._lanes.values():
            for key in machine.known():
                self._heed(machine, key, self._incidents.get(key))

    def _heed(self, machine: Machine, key: str, incident: Incident | None) -> None:
        resolved = Incident.State.RESOLVED
        if incident is None:
            machine.merge(key, "")
        elif incident.merged_into is not None:
            machine.merge(key, str(incident.merged_into.key))
        elif incident.state == resolved and key in machine.live():
            machine.resolve(key)
        elif incident.state != resolved and key not in machine.live():
            machine.reopen(key)

    def run(self, signals: Iterable[Signal], enabled: bool, look: bool) -> Ledger | None:
        """Judge; of a disabled rule only what its incidents still wait for."""
        batches: dict[str, list[Signal]] = {name: [] for name in self._lanes}
        for signal in signals:
            if signal.what == self._spec.when.kind:
                batches.setdefault(lane(self._spec, signal), []).append(signal)
        ledger = Ledger(
            self._rule, self._version, self._incidents, self._around.receivers, self._around.now
        )
        seen = False
        owners: dict[str, Machine] = {}
        for name, batch in sorted(batches.items()):
            if name not in self._lanes:
                self._lanes[name] = self._lane({})
            machine, router = self._lanes[name]
            until = self._around.until(name)
            batch += self._progress(machine, look, until)
            for decision in decide(machine, router, batch, until, now=lambda _: self._around.now):
                seen = True
                ledger.see(decision)
            owners |= dict.fromkeys(machine.known(), machine)
        if not seen:
            return None
        ledger.write(owners)
        return ledger

    def _progress(self, machine: Machine, look: bool, until: int) -> list[Signal]:
        """What no change says: that an anomaly lasts by now, or that its series is gone."""
        found: list[Signal] = []
        short = machine.too_short()
        if short:
            rows = Anomaly.objects.filter(pk__in=[s.anomaly for s in short]).values_list(
                "pk", "end_at", "kind", "state"
            )
            # an open silence has lasted until now: no event says so
            by_text = {
                str(pk): until if (kind, state) == ("missing", "open") else to_us(end)
                for pk, end, kind, state in rows
            }
            late = (lasted(self._spec, s, by_text.get(s.anomaly, 0)) for s in short)
            found += [s for s in late if s is not None]
        if look and self._spec.when.kind == "anomaly":
            found += [_gone(a, until) for a in _left(machine.open_anomalies(), until)]
        return found


# A silence goes on where no event comes: only another anomaly ends by that.
_LEFT = """
SELECT w.id::text FROM unnest(%s::uuid[]) AS w (id)
  LEFT JOIN anomalies_anomaly a ON a.id = w.id
  LEFT JOIN streams_series s ON s.id = a.series_id
 WHERE a.id IS NULL OR (a.kind <> 'missing'
    AND s.last_event_at < to_timestamp(%s / 1e6) - make_interval(secs => %s))
"""


def _left(anomalies: Sequence[str], until: int) -> list[str]:
    """Of these open anomalies those that nothing more will come of."""
    if not anomalies:
        return []
    with connection.cursor() as cursor:
        cursor.execute(_LEFT, [list(anomalies), until, GONE_S])
        return [row[0] for row in cursor.fetchall()]


def _gone(anomaly: str, at_us: int) -> Signal:
    return Signal(at_us, "closed", anomaly, "", "", "", "", 1, end_us=None)


def _settled(state: dict[str, Any]) -> Any:
    """A state but for its clocks: those alone are no reason to store it."""
    lanes = {
        name: {**of, "machine": {**of["machine"], "clock": 0}}
        for name, of in state.get("lanes", {}).items()
    }
    return {**state, "lanes": lanes}
