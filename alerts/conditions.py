"""What rules watch besides anomalies, in the form of signals: silence, drift, the pipeline.

Each condition is an anomaly of its own kind that opens when it begins to hold and closes when it
does not any more. :class:`Conditions` remembers which ones hold, with the rule's state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from alerts.machine import Choice, Signal, What
from alerts.spec import RuleSpec
from alerts.waiting import Tags
from anomalies.models import Severity
from anomalies.queries import pulse
from detection.models import DriftReport, ModelVersion
from streams.clock import from_us, to_us
from streams.models import DeadLetter

SEVERITIES: Mapping[What, int] = {
    "no_events": Severity.HIGH, "drift": Severity.MEDIUM, "pipeline": Severity.HIGH,
}  # fmt: skip
_S = 1_000_000

# Silence of a series counts in its stream's clock: what fell silent long before a rule was made is
# nobody's news.
_SILENT = """
SELECT s.id, s.source, s.metric, (extract(epoch FROM s.last_event_at) * 1e6)::int8
  FROM streams_series s JOIN streams_stream t ON t.id = s.stream_id
 WHERE t.name = %s AND s.last_event_at > %s AND s.last_event_at <= %s
 ORDER BY s.id
"""


@dataclass(frozen=True, slots=True)
class _Found:
    """One condition that holds."""

    ident: str
    stream: str
    source: str
    metric: str
    since_us: int
    value: float | None = None


class Conditions:
    """The conditions of one rule.

    Args:
        spec: of a rule whose ``when.kind`` is not ``anomaly``.
        state: what :meth:`state` gave.
    """

    def __init__(self, spec: RuleSpec, state: dict[str, Any] | None = None) -> None:
        self._spec = spec
        self._choice = Choice(spec.match)
        given = state or {}
        # Of which kind they are; what holds by ident; since when; each stream's clock at the start.
        same = given.get("kind") == spec.when.kind
        self._open: dict[str, list[Any]] = dict(given.get("open", {})) if same else {}
        self._since: dict[str, int] = dict(given.get("since", {})) if same else {}
        self._began: dict[str, int] = dict(given.get("began", {})) if same else {}

    def state(self) -> dict[str, Any]:
        """As JSON data."""
        return {"kind": self._spec.when.kind, "open": self._open, "since": self._since,
                "began": self._began}  # fmt: skip

    def signals(self, clocks: Mapping[str, int], now: datetime) -> list[Signal]:
        """What began and what ended since the last call."""
        kinds: dict[str, Callable[[Mapping[str, int], datetime], Iterator[_Found]]] = {
            "no_events": self._silent, "drift": self._drifting, "pipeline": self._pipeline,
        }  # fmt: skip
        found = {f.ident: f for f in kinds[self._spec.when.kind](clocks, now)}
        tags = Tags()
        signals = []
        for ident, stored in list(self._open.items()):
            if ident not in found:
                del self._open[ident]
                signals.append(self._signal(_Found(*stored), "closed", clocks, now, tags))
        for ident, one in found.items():
            if ident in self._open:
                continue
            signal = self._signal(one, "onset", clocks, now, tags)
            if self._spec.when.kind == "pipeline" or self._choice.holds(signal):
                self._open[ident] = [one.ident, one.stream, one.source, one.metric, one.since_us,
                                     one.value]  # fmt: skip
                signals.append(signal)
        return signals

    def _signal(
        self, found: _Found, change: Any, clocks: Mapping[str, int], now: datetime, tags: Tags
    ) -> Signal:
        at = clocks.get(found.stream, to_us(now))
        what = self._spec.when.kind
        return Signal(
            at, change, found.ident, found.stream, found.source, found.metric, what,
            int(SEVERITIES[what]), found.value,
            tags=tags.of(found.stream, found.source, found.metric), what=what,
            onset_us=min(found.since_us, at), end_us=at,
        )  # fmt: skip

    def _silent(self, clocks: Mapping[str, int], now: datetime) -> Iterator[_Found]:
        limit = int(self._spec.when.for_s * _S)
        for stream, clock in clocks.items():
            began = self._began.setdefault(stream, clock)
            with connection.cursor() as cursor:
                cursor.execute(
                    _SILENT, [stream, from_us(began - limit), from_us(max(0, clock - limit))]
                )
                rows = cursor.fetchall()
            for series, source, metric, last in rows:
                yield _Found(f"no_events/{series}/{last}", stream, source, metric, last)

    def _drifting(self, clocks: Mapping[str, int], now: datetime) -> Iterator[_Found]:
        champions = ModelVersion.objects.filter(state=ModelVersion.State.CHAMPION)
        latest = (
            DriftReport.objects.filter(model__in=champions)
            .order_by("model_id", "metric", "-created_at").distinct("model_id", "metric")
            .select_related("model__stream").defer("model__artefact")
        )  # fmt: skip
        for report in latest:
            if report.worst_psi >= self._spec.when.at_least:
                ident = f"drift/{report.model_id}/{report.metric}"
                yield _Found(ident, report.model.stream.name, report.model.algorithm,
                             report.metric, to_us(report.to_hour), report.worst_psi)  # fmt: skip

    def _pipeline(self, clocks: Mapping[str, int], now: datetime) -> Iterator[_Found]:
        when = self._spec.when
        value = _figure(when.metric, now)
        holds = value is not None and (
            value > when.value if when.compare == "above" else value < when.value
        )
        if not holds:
            self._since.pop(when.metric, None)
            return
        since = self._since.setdefault(when.metric, to_us(now))
        if to_us(now) - since >= when.for_s * _S:
            yield _Found(f"pipeline/{when.metric}/{since}", "", "pipeline", when.metric, since,
                         value)  # fmt: skip


def _figure(metric: str, now: datetime) -> float | None:
    """One of the pipeline's figures; None where nobody knows it."""
    if metric == "dead_letters":
        return float(DeadLetter.objects.filter(state=DeadLetter.State.WAITING).count())
    figures = pulse(now)
    if metric == "consumers":
        return float(figures.alive)
    if not figures.alive:
        return 0.0 if metric == "events_per_s" else None
    return {
        "lag": float(figures.lag),
        "events_per_s": float(figures.events_per_s),
        "latency_p95_ms": figures.latency_p95_ms,
    }[metric]
