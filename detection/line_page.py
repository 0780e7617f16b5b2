"""What the page of one line shows: its champion beside the challenger, drift, scores, versions.

A line is the versions that stand for one another. All of it is read from what is stored; nothing is
measured and no model loaded, so the page asks the same few queries however long the line is.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from django.conf import settings
from django.db.models import Case, Exists, OuterRef, When

from detection import bins, gate_faults, model_store
from detection.catalogue import ACTIVE, runs
from detection.drift import Counts, live_scores, settings_of, shown
from detection.ensemble import score_from_oddness
from detection.forecast import next_training
from detection.gate import labels_against, most_alerts
from detection.models import DriftReport, ModelTransition, ModelVersion, TrainingRun
from detection.shadow import Compared, beside
from streams.models import Series
from streams.vectors import PREFIX

State = ModelVersion.State
VERSIONS, RUNS = 60, 20
DRIFT_SHOWN = dt.timedelta(days=30)
SCORES_SHOWN = dt.timedelta(days=7)
FEATURES_SHOWN = 3
GAP = dt.timedelta(hours=3)  # drift is measured each hour: a longer pause is a gap of the line


# ---- The line and its versions -------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Version:
    """A row of the table; ``precision`` is told by the last gate that knew it, ``of`` by what."""

    model: ModelVersion
    params: str
    events: int | None
    precision: float | None
    of: str
    word: str
    since: dt.datetime | None = None

    @property
    def was_live(self) -> bool:
        return self.model.promoted_at is not None and self.model.state != State.CHAMPION


@dataclass(frozen=True, slots=True)
class Line:
    """The versions of one line, the newest first, with those that have a part in it."""

    models: list[ModelVersion]
    champion: ModelVersion | None
    challenger: ModelVersion | None
    told: Mapping[int, tuple[Any, Any, Any]]  # of manifests: events, settings, counts of scores

    @property
    def newest(self) -> ModelVersion:
        return self.models[0]

    @property
    def waits(self) -> ModelVersion | None:
        """The newest candidate that is younger than the champion."""
        top = self.champion.version if self.champion else 0
        found = (m for m in self.models if m.state == State.CANDIDATE and m.version > top)
        return next(found, None)


def line_with(pk: int) -> Line | None:
    """The line of any of its versions, or None; an address names one of them, and none is ever
    deleted."""
    mine = ModelVersion.objects.filter(
        pk=pk, stream=OuterRef("stream"), metric=OuterRef("metric"), algorithm=OuterRef("algorithm")
    )
    rows = ModelVersion.objects.filter(Exists(mine)).select_related("stream")
    # A manifest holds counts of each metric, so of many versions only what is shown is read of it.
    models = list(rows.defer("artefact", "manifest").order_by("-version"))
    if not models:
        return None
    of = {state: next((m for m in models if m.state == state), None) for state in State}
    champion = of[State.CHAMPION]
    read = [*models[:VERSIONS], *([champion] if champion else [])]
    told = ModelVersion.objects.filter(pk__in=[m.pk for m in read]).values_list(
        "pk", "manifest__events", "manifest__params", "manifest__score_counts"
    )
    return Line(models, champion, of[State.CHALLENGER], {row[0]: row[1:] for row in told})


def versions(line: Line, changes: Sequence[ModelTransition]) -> list[Version]:
    """The table's rows, the newest ones."""
    ended, precision = _ends(line.models, changes), _precisions(line.models)
    rows = []
    for model in line.models[:VERSIONS]:
        events, params, _ = line.told[model.pk]
        word, since = _standing(model, ended.get(model.pk, ""))
        value, of = precision.get(model.version, (None, ""))
        rows.append(
            Version(
                model,
                ", ".join(f"{name} {given}" for name, given in (params or {}).items()),
                events if isinstance(events, int) else None,
                value,
                of,
                word,
                since,
            )
        )
    return rows


def _standing(model: ModelVersion, ended: str) -> tuple[str, dt.datetime | None]:
    """In words; with a moment it is "… for so long"."""
    if model.state == State.CHAMPION:
        return "Live", model.promoted_at
    if model.state == State.CHALLENGER:
        return "In shadow", model.challenged_at
    if model.state == State.CANDIDATE:
        return "Candidate, scores nothing", None
    return ended or "Retired", None


def _ends(models: Iterable[ModelVersion], changes: Iterable[ModelTransition]) -> dict[int, str]:
    """Why each version that scores no more left, told by the changes from the oldest on."""
    names = {m.pk: f"v{m.version}" for m in models}
    ended: dict[int, str] = {}
    crowned: set[int] = set()
    present: int | None = None
    for change in changes:
        pk, reason = change.model_id, change.reason
        if change.to_state == State.CHAMPION:
            if present not in (None, pk):
                by = names.get(pk, "another")
                why = reason if reason not in ("", "rolled back") else f"to {by}"
                ended[present] = f"Rolled back: {why}" if pk in crowned else f"Replaced by {by}"
            present = pk
            crowned.add(pk)
            ended.pop(pk, None)
        elif change.to_state == State.RETIRED and change.from_state != State.CHAMPION:
            ended[pk] = f"Retired: {reason}" if reason else "Retired, never live"
        elif change.from_state == State.CHAMPION and pk == present:  # nobody took its place
            ended[pk] = f"Taken out: {reason}" if reason else "Taken out"
            present = None
    return ended


def _precisions(models: Iterable[ModelVersion]) -> dict[int, tuple[float, str]]:
    """(precision, of what) by version: as the gate found it for the version itself, else when it
    was the champion that another one was held against; on labels where there are some."""
    found: dict[int, tuple[float, str]] = {}
    for model in models:  # the newest first, and the newest gate tells most
        figures = (model.gate or {}).get("figures") or {}
        own = _precision(figures, "challenger")
        if own is not None:
            found[model.version] = own
        theirs = _precision(figures, "champion")
        if theirs is not None and figures.get("champion") is not None:
            found.setdefault(figures["champion"], theirs)
    return found


def _precision(figures: Mapping[str, Any], side: str) -> tuple[float, str] | None:
    labels, injected = figures.get("labels") or {}, figures.get("injected") or {}
    told, _ = _of_labels(labels, side)
    if told is not None:
        return told, "labels"
    value = (injected.get(side) or {}).get("precision")
    return None if value is None else (value, "injected faults")


# ---- Champion and challenger ---------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Check:
    """One of the gate's questions: ``state`` is ok, wait or no, ``said`` the figures."""

    name: str
    state: str
    said: str
    at: dt.datetime | None = None  # when it is answered at the present rate
    today: bool = True  # so that the time alone says when


def compared(shadow: Mapping[str, Any], figures: Mapping[str, Any]) -> list[Compared]:
    """The table: what the gate measured, then what the two did on the same live events."""
    labels, injected = figures.get("labels") or {}, figures.get("injected") or {}
    ours, theirs = (injected.get(side) or {} for side in ("challenger", "champion"))
    (before, recalled), (after, recalls) = (_of_labels(labels, side) for side in _SIDES)
    rows = [
        _figures("Precision on labels", before, after),
        _figures("Recall on labels", recalled, recalls),
        _figures("Precision on test faults", theirs.get("precision"), ours.get("precision")),
        _figures("Recall on test faults", theirs.get("recall"), ours.get("recall")),
    ]
    if shadow["onsets_a_day"] is not None:
        before, after = shadow["onsets_a_day"]
        rows.append(_figures("Alerts a day", before, after, digits=1, more_is_better=False))
    live = [replace(row, name=_SHOWN[row.name]) for row in shadow["compared"] if row.name in _SHOWN]
    return [row for row in rows if row is not None] + live


_SIDES = ("champion", "challenger")
# The challenger's own page has more.
_SHOWN = {"Agreement on all events": "Agreement", "Time per event": "Time per event"}


def _of_labels(labels: Mapping[str, Any], side: str) -> tuple[float | None, float | None]:
    """Precision and recall, None without a label to count."""
    found, real = labels.get(f"{side}_found", 0), labels.get("real", 0)
    flagged = found + labels.get(f"{side}_false", 0)
    return found / flagged if flagged else None, found / real if real else None


def _figures(
    name: str,
    before: float | None,
    after: float | None,
    digits: int = 2,
    *,
    more_is_better: bool = True,
) -> Compared | None:
    """None where neither is known."""
    if before is None and after is None:
        return None
    old, new = ("–" if value is None else f"{value:.{digits}f}" for value in (before, after))
    if before is None or after is None or old == new:
        return Compared(name, old, new, "the same" if old == new else "")
    change = f"{after - before:+.{digits}f}".replace("-", "−")
    return Compared(name, old, new, change, (after > before) == more_is_better)


def checks(shadow: Mapping[str, Any], figures: Mapping[str, Any], now: dt.datetime) -> list[Check]:
    """What the gate asks, by its stored verdict and the live counts."""
    rules = settings.VIGIL.anomaly_detection.registry
    return [
        _labels(figures, rules),
        _injected(figures),
        _alerts(shadow, rules),
        _watched(shadow, now),
    ]


def _labels(figures: Mapping[str, Any], rules: Any) -> Check:
    name, found = "Your labels: no worse", figures.get("labels")
    if found is None:
        return Check(name, "wait", "A worker asks every ten minutes.")
    if not found.get("real") and not found.get("false_alarms"):
        return Check(name, "ok", f"Nothing was labelled in {rules.labels_days:g} days.")
    said = (
        f"{found['challenger_found']:,} of {found['real']:,} real found, champion"
        f" {found['champion_found']:,}; {found['challenger_false']:,} of"
        f" {found['false_alarms']:,} false alarms again, champion {found['champion_false']:,}"
    )
    return Check(name, "no" if labels_against(found) else "ok", said)


def _injected(figures: Mapping[str, Any]) -> Check:
    name, found = "Injected faults: no worse", figures.get("injected") or {}
    if not found or not {"series", "challenger", "champion", "paired", "quiet"} <= set(found):
        return Check(name, "wait", "A worker tests it once it was watched long enough.")
    against = gate_faults.reasons_against(found)
    if not found["series"]:
        return Check(name, "no", against[0])
    ours, theirs, quiet = found["challenger"], found["champion"], found["quiet"]
    said = (
        f"{ours['found']:,} of {ours['faults']:,} found, champion {theirs['found']:,};"
        f" {quiet['challenger']:,} onsets without faults, champion {quiet['champion']:,}"
    )
    return Check(name, "no" if against else "ok", said)


def _alerts(shadow: Mapping[str, Any], rules: Any) -> Check:
    name = "Alerts within the budget"
    if shadow["onsets_a_day"] is None:
        return Check(name, "wait", "No event was scored by both yet.")
    before, after = shadow["onsets_a_day"]
    most = most_alerts(before, rules)
    said = f"{after:.1f} a day, champion {before:.1f}, at most {most:.1f}"
    return Check(name, "no" if after > most else "ok", said)


def _watched(shadow: Mapping[str, Any], now: dt.datetime) -> Check:
    """Long enough; when it will be is told only while events come."""
    hours, events = shadow["hours"], shadow["events"]
    hours_left = max(0.0, shadow["needs_hours"] - hours)
    events_left = max(0, shadow["needs_events"] - events)
    told = [f"{hours:,} of {shadow['needs_hours']:g} hours" if hours_left else f"{hours:,} hours"]
    told.append(f"{events:,} of {shadow['needs_events']:,} events" if events_left
                else f"{events:,} events")  # fmt: skip
    said = ", ".join(told)
    if not hours_left and not events_left:
        return Check("Watched long enough", "ok", said)
    at = None
    if events and abs(now - shadow["until"]) < dt.timedelta(hours=2):
        # The hour that runs is counted, and the last one counts from its first event on.
        by_hours = shadow["until"] + dt.timedelta(hours=max(0.0, hours_left - 1))
        by_events = now + dt.timedelta(hours=min(events_left * hours / events, 24.0 * 365))
        at = max(by_hours if hours_left else by_events, by_events if events_left else by_hours)
    today = at is None or at - now < dt.timedelta(hours=20)
    return Check("Watched long enough", "wait", said, at, today)


# ---- Charts --------------------------------------------------------------------------------------
def drift_chart(line: Line, now: dt.datetime) -> dict[str, Any] | None:
    """The features that moved most by the newest report, over 30 days and all champions of the
    time; with what is marked in it. None where nothing was measured."""
    rules, start = settings_of(settings.VIGIL), now - DRIFT_SHOWN
    retrains = settings.VIGIL.anomaly_detection.drift.retrain
    rows = list(
        DriftReport.objects.filter(
            model__in=[m.pk for m in line.models], metric=line.newest.metric, created_at__gte=start
        )
        .order_by("created_at", "pk")
        .values_list("created_at", "psi", "to_hour")
    )
    if not rows:
        return None
    newest = rows[-1][1]
    inputs = [name for name in newest if name != bins.SCORE]
    names = sorted(inputs, key=lambda name: (-newest[name], name))[:FEATURES_SHOWN]
    if not names:
        return None
    times: list[float] = []
    columns: list[list[float | None]] = [[] for _ in names]
    before = rows[0][0]
    for at, psi, _ in rows:
        if at - before > GAP:
            times.append((before + (at - before) / 2).timestamp())
            for column in columns:
                column.append(None)
        times.append(at.timestamp())
        for name, column in zip(names, columns, strict=True):
            column.append(psi.get(name))
        before = at
    marks = [(m.promoted_at, f"v{m.version} live") for m in line.models if m.promoted_at]
    if line.challenger and line.challenger.challenged_at:
        marks.append((line.challenger.challenged_at, f"v{line.challenger.version} in shadow"))
    return {
        "features": [(_words(name), newest[name]) for name in names],
        "alarm": rules.alarm_psi,
        "above": newest[names[0]] >= rules.alarm_psi,
        "highest": max((v for column in columns for v in column if v is not None), default=0.0),
        "until": rows[-1][2],
        "data": {
            "t": times, "from": times[0], "to": now.timestamp(), "alarm": rules.alarm_psi,
            "alarm_text": f"{'retrain' if retrains else 'drifted'} above {rules.alarm_psi:g}",
            "lines": [
                {"name": _words(name), "values": column}
                for name, column in zip(names, columns, strict=True)
            ],
            "marks": [{"t": at.timestamp(), "text": said} for at, said in sorted(marks)
                      if at.timestamp() >= times[0]],
        },
    }  # fmt: skip


def _words(feature: str) -> str:
    """A feature in words, a value of wide events by its own name."""
    name = shown(feature)
    return name if name != feature else name.replace("_", " ")


def score_chart(line: Line, until: dt.datetime) -> dict[str, Any] | None:
    """Share of events with a score of the champion above each bin's edge, of its held-out rows
    and of the last days before ``until``. None where neither was counted."""
    champion = line.champion
    if champion is None:
        return None
    given = line.told[champion.pk][2]
    sound = isinstance(given, list) and len(given) == bins.BINS
    training = np.array(given if sound else [0] * bins.BINS, dtype=np.int64)
    live = live_scores(champion, until - SCORES_SHOWN)
    if not training.any() and not live.any():
        return None
    edges = [0.0, *bins.edges_of((bins.SCORE,))[0].tolist()]
    level = float(score_from_oddness(np.array([1.0]))[0])
    at = int(np.argmin([abs(edge - level) for edge in edges]))
    shares = {"training": _above(training), "live": _above(live)}
    return {
        "level": level,
        "live_events": int(live.sum()),
        "live_above": shares["live"][at],
        "training_above": shares["training"][at],
        "data": {
            "t": edges, "axis": "score above", "level": level,
            "level_text": f"alarm level {level:.2f}",
            "lines": [
                {"name": "live, 7 days", "values": shares["live"]},
                {"name": "training", "values": shares["training"]},
            ],
        },
    }  # fmt: skip


def _above(counts: Counts) -> list[float | None]:
    """Of each bin and those after it the share of all; None for nothing, which no log axis has."""
    total = int(counts.sum())
    return [int(n) / total if n else None for n in np.cumsum(counts[::-1])[::-1]]


# ---- The run -------------------------------------------------------------------------------------
def run_context(line: Line, now: dt.datetime) -> dict[str, Any]:
    """The line's run at work, or the last one and when the schedule trains the next."""
    newest = line.newest
    mine = runs().filter(stream=newest.stream_id, metric=newest.metric, algorithm=newest.algorithm)
    at_work = Case(When(status__in=ACTIVE, then=0), default=1)
    rows = list(mine.order_by(at_work, "-pk")[:RUNS])
    active = [row for row in rows if row.status in ACTIVE]
    running = [row for row in active if row.status == TrainingRun.Status.RUNNING]
    run = next(iter(running or active or rows), None)
    found: dict[str, Any] = {"line": line, "run": run, "active": bool(active), "now": now}
    found["before"] = next((row for row in rows if row.status not in ACTIVE), None)
    if not active:
        enabled = settings.VIGIL.anomaly_detection.detectors.enabled
        found["next_at"] = next_training(newest, served=line.champion is not None, enabled=enabled)
        made = (m for m in line.models if run is not None and m.run_id == run.pk)
        found["made"] = next(made, None)
        if run is not None and run.finished_at:
            found["took_s"] = max(0.0, (run.finished_at - run.started_at).total_seconds())
    return found


# ---- All of it -----------------------------------------------------------------------------------
def versions_context(line: Line) -> dict[str, Any]:
    """The table of versions, and where a rollback would lead."""
    changes = list(
        ModelTransition.objects.filter(model__in=[m.pk for m in line.models])
        .order_by("pk")
        .only("model_id", "from_state", "to_state", "reason")
    )
    champions = [
        (c.model_id, c.to_state) for c in changes if State.CHAMPION in (c.from_state, c.to_state)
    ]
    crowned = {pk for pk, to in champions if to == State.CHAMPION}
    unrecorded = sorted(
        (m.promoted_at, m.pk) for m in line.models if m.promoted_at and m.pk not in crowned
    )
    present = line.champion.pk if line.champion else None
    before = model_store.came_before([pk for _, pk in unrecorded], champions, present)
    return {
        "line": line,
        "versions": versions(line, changes),
        "previous": next((m for m in line.models if m.pk == before), None),
    }


def page_context(line: Line, now: dt.datetime) -> dict[str, Any]:
    """For `detection/line.html`."""
    newest = line.newest
    drift = drift_chart(line, now)
    found = versions_context(line) | run_context(line, now) | {
        "series": _series(newest),
        "drift": drift,
        "scores": score_chart(line, drift["until"] if drift else now),
        "rules": settings_of(settings.VIGIL),
    }  # fmt: skip
    if line.challenger is not None:
        shadow = beside(line.challenger, line.champion)
        gate = line.challenger.gate or {}
        figures = gate.get("figures") or {}
        if figures.get("champion") != (line.champion and line.champion.version):
            figures = {}  # of another champion: asked anew within minutes
        asked = checks(shadow, figures, now)
        found |= {
            "shadow": shadow,
            "compared": compared(shadow, figures),
            "checks": asked,
            "ready": all(check.state == "ok" for check in asked),
            "open": sum(check.state != "ok" for check in asked),
            "asked_at": _moment(gate.get("at")),
        }
    return found


def _series(newest: ModelVersion) -> int:
    """How many series the line serves."""
    rows = Series.objects.filter(stream=newest.stream_id)
    if newest.metric:
        return rows.filter(metric=newest.metric).count()
    return rows.exclude(metric__startswith=PREFIX).count()


def _moment(text: Any) -> dt.datetime | None:
    try:
        return dt.datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
