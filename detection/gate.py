"""Whether a challenger may become champion: no worse on labels and on injected faults, no more
alerts than the budget, and long enough beside the champion to know.

`measure_injected` reads history and takes seconds, so background work does it; `judge` reads what
is stored, and may be asked by a page.
"""

from __future__ import annotations

import datetime as dt
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from django.conf import settings
from django.db.models import Count, Sum

from detection import challengers, injection, metrics, model_store, wide_injection
from detection.base import FloatArray, IntArray
from detection.ensemble import oddness_from_score, score_from_oddness
from detection.errors import DetectionError
from detection.features import row_names
from detection.history import read_events
from detection.models import Evaluation, ModelVersion, ScoringVersion, ShadowHour
from detection.scoring import LoadedModel, ScoringEngine
from detection.versions import compile_version, ensemble_of
from streams.batch import NARROW, EventBatch
from streams.codec import Codec
from streams.models import Stream
from streams.series import SeriesIndex
from streams.vectors import is_vector

KIND_INJECTED = "gate injected"
KIND_GATE = "gate"

HISTORY_EVENTS = 200_000
MOST_SERIES = 20
EVENTS_OF_A_SERIES = (2_000, 6_000)  # fewer say nothing, more are cut to the newest
HEALTHY = 1_000  # events before the first fault: the detectors have warmed up
HELD_OUT = 1_500  # events after the training that make a test of their own
RECALL_TOLERANCE = 0.02
FALSE_TOLERANCE = 0.5  # onsets per 10,000 normal events
MOST_LABELS = 5_000


@dataclass(frozen=True, slots=True)
class GateResult:
    """``reasons`` says what speaks against promotion, in sentences; none where it passed."""

    passed: bool
    reasons: tuple[str, ...]
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Labelled:
    """An onset that somebody judged: what every model can be asked again."""

    metric: str
    features: Mapping[str, float]
    scores: Mapping[str, float | None]  # of each detector, then
    threshold: float
    real: bool


LabelProvider = Callable[[str, dt.datetime, int], Iterable[Labelled]]  # stream, since, at most
_providers: list[LabelProvider] = []


def labels_from(provider: LabelProvider) -> None:
    """Let an app downstream hand in labelled anomalies; each provider counts once."""
    if provider not in _providers:
        _providers.append(provider)


def labels_of(stream: str, since: dt.datetime) -> list[Labelled]:
    """The stream's labelled onsets since then, the newest of each provider."""
    return [row for provider in _providers for row in provider(stream, since, MOST_LABELS)]


def judge(model: ModelVersion, now: dt.datetime | None = None) -> GateResult:
    """Ask all of the gate's questions, and store the answer with the version and as an evaluation.

    Raises:
        DetectionError: the version or its champion can't be loaded.
    """
    now = now or dt.datetime.now(dt.UTC)
    rules = settings.VIGIL.anomaly_detection.registry
    champion = model_store.champion(model.stream, model.metric, model.algorithm)
    reasons: list[str] = []
    shadow = _shadow(model, rules, reasons)
    injected = _injected(model, champion, reasons)
    labels = _labels(model, champion, now - dt.timedelta(days=rules.labels_days), reasons)
    figures = {
        "champion": None if champion is None else champion.version,
        "shadow": shadow,
        "injected": injected,
        "labels": labels,
    }
    result = GateResult(not reasons, tuple(reasons), figures)
    model.gate = {
        "passed": result.passed,
        "reasons": list(reasons),
        "figures": figures,
        "at": now.isoformat(),
    }
    ModelVersion.objects.filter(pk=model.pk).update(gate=model.gate)
    Evaluation.objects.update_or_create(
        model=model,
        kind=KIND_GATE,
        settings={"champion": champion and champion.pk},
        defaults={"stream": model.stream, "metrics": model.gate},
    )
    return result


def long_enough(model: ModelVersion) -> bool:
    """Whether it scored beside the champion for as long as the settings ask."""
    reasons: list[str] = []
    _shadow(model, settings.VIGIL.anomaly_detection.registry, reasons, only_length=True)
    return not reasons


def _shadow(
    model: ModelVersion, rules: Any, reasons: list[str], *, only_length: bool = False
) -> dict[str, Any]:
    """Alerts a day of the two, from the hours of events they scored together."""
    total = ShadowHour.objects.filter(challenger=model).aggregate(
        hours=Count("hour", distinct=True),
        events=Sum("events", default=0),
        champion=Sum("champion_onsets", default=0),
        challenger=Sum("challenger_onsets", default=0),
    )
    hours, events = int(total["hours"]), int(total["events"])
    if hours < rules.shadow_hours:
        reasons.append(
            f"It has scored {hours} of {rules.shadow_hours:g} hours of events beside the champion."
        )
    if events < rules.shadow_events:
        reasons.append(
            f"It has scored {events:,} of {rules.shadow_events:,} events beside the champion."
        )
    figures: dict[str, Any] = {"hours": hours, "events": events}
    if not hours or only_length:
        return figures
    before, after = (24.0 * total[side] / hours for side in ("champion", "challenger"))
    most = max(before * rules.max_alerts_per_day_ratio, before + rules.spare_alerts_per_day)
    if after > most:
        reasons.append(
            f"It would send {after:.1f} alerts a day, the champion {before:.1f}: at most"
            f" {most:.1f} are allowed."
        )
    return figures | {
        "champion_alerts_per_day": round(before, 3),
        "challenger_alerts_per_day": round(after, 3),
        "most_alerts_per_day": round(most, 3),
    }


# -- labels --------------------------------------------------------------------------------------


def _labels(
    model: ModelVersion, champion: ModelVersion | None, since: dt.datetime, reasons: list[str]
) -> dict[str, Any]:
    """What either ensemble would have said of the onsets that people have judged.

    Only what some ensemble flagged can have been labelled: a fault that all missed is not here.
    """
    columns = _columns(model)
    rows = [
        row
        for row in labels_of(model.stream.name, since)
        if model.metric in ("", row.metric) and set(row.features) >= set(columns)
    ]
    if not rows:
        return {"real": 0, "false_alarms": 0}
    challenger = _flagged(model, model.algorithm, rows, model.stream)
    present = _flagged(champion, model.algorithm, rows, model.stream)
    real = np.array([row.real for row in rows])
    figures = {
        "real": int(real.sum()),
        "false_alarms": int((~real).sum()),
        "champion_found": int((present & real).sum()),
        "challenger_found": int((challenger & real).sum()),
        "champion_false": int((present & ~real).sum()),
        "challenger_false": int((challenger & ~real).sum()),
    }
    if figures["challenger_found"] < figures["champion_found"]:
        reasons.append(
            f"Of {figures['real']} anomalies confirmed as real it would flag"
            f" {figures['challenger_found']}, the champion {figures['champion_found']}."
        )
    if figures["challenger_false"] > figures["champion_false"]:
        reasons.append(
            f"Of {figures['false_alarms']} labelled false alarms it would repeat"
            f" {figures['challenger_false']}, the champion {figures['champion_false']}."
        )
    return figures


def _columns(model: ModelVersion) -> Sequence[str]:
    """What a model is given: features of a series, or the values of wide events."""
    return row_names(model.manifest)


def _flagged(
    model: ModelVersion | None, algorithm: str, rows: Sequence[Labelled], stream: Stream
) -> Any:
    """bool [rows]: the ensemble of then with this model in its algorithm's place, or without it."""
    payload = _payload(stream)
    names = sorted({name for row in rows for name in row.scores} | {algorithm})
    score = np.array(
        [[np.nan if (s := row.scores.get(n)) is None else s for n in names] for row in rows]
    )
    votes = oddness_from_score(score)
    column = names.index(algorithm)
    # Where the champion of then abstained, the series was too young for any model.
    ready = [algorithm not in row.scores or row.scores[algorithm] is not None for row in rows]
    votes[:, column] = np.nan
    if model is not None:
        _, detector = model_store.load(model.pk)
        columns = _columns(model)
        features = np.array([[row.features[name] for name in columns] for row in rows])
        votes[ready, column] = detector.oddness(np.ascontiguousarray(features[ready]))
    ensemble = ensemble_of(payload, of_vectors=model is not None and is_vector(model.metric))
    scored = score_from_oddness(ensemble.oddness(votes, names))
    return scored >= np.array([row.threshold for row in rows])


def _payload(stream: Stream) -> dict[str, Any]:
    """What counts for a stream now: ensemble, policies, limits.

    Raises:
        DetectionError: no consumer has ever worked on the stream.
    """
    row = ScoringVersion.objects.filter(stream=stream).order_by("-pk").first()
    if row is None:
        raise DetectionError(f"no consumer has worked on {stream.name} yet: start one")
    payload: dict[str, Any] = row.payload
    return payload


# -- injected faults -----------------------------------------------------------------------------


def _injected(
    model: ModelVersion, champion: ModelVersion | None, reasons: list[str]
) -> dict[str, Any]:
    measured = (
        Evaluation.objects.filter(
            model=model, kind=KIND_INJECTED, settings__champion=champion and champion.pk
        )
        .order_by("-pk")
        .first()
    )
    if measured is None:
        reasons.append(
            "It has not been tested on injected faults yet; a worker does that once it has scored"
            " long enough."
        )
        return {}
    found: dict[str, Any] = measured.metrics
    if not found.get("series"):
        reasons.append(
            "There is too little history for the test on injected faults: it takes"
            f" {EVENTS_OF_A_SERIES[0]:,} events of a series."
        )
        return found
    ours, theirs = found["challenger"], found["champion"]
    if (ours["recall"] or 0.0) < (theirs["recall"] or 0.0) - RECALL_TOLERANCE:
        reasons.append(
            f"It finds {ours['recall'] or 0:.0%} of the injected faults, the champion"
            f" {theirs['recall'] or 0:.0%}."
        )
    most = (theirs["false_onsets_per_10000"] or 0.0) + FALSE_TOLERANCE
    if (ours["false_onsets_per_10000"] or 0.0) > most:
        reasons.append(
            f"On history with injected faults it has {ours['false_onsets_per_10000']:.1f} false"
            f" onsets per 10,000 events, the champion {theirs['false_onsets_per_10000'] or 0:.1f}."
        )
    return found


def measure_injected(
    model: ModelVersion, client: Mapping[str, Any], *, seed: int = 0, share: float = 0.5
) -> Evaluation:
    """Put faults into the stream's own newest history and see what either ensemble finds.

    The last events of the series with the most of them; where enough came after the model's
    training, faults are put into those only.

    Raises:
        BrokerError: the broker doesn't answer.
        ArtefactError: a model can't be loaded.
    """
    stream = model.stream
    index = SeriesIndex()
    codec = Codec(index, stream.mapping, stream.naive_time_zone or None)
    batches = read_events(
        client, stream.topic, codec, max_events=HISTORY_EVENTS, share=share, metric=model.metric
    )
    series = _longest(batches, index, model.metric)
    champion = model_store.champion(stream, model.metric, model.algorithm)
    figures = compare_injected(model, series, seed=seed)
    return Evaluation.objects.create(
        model=model,
        stream=stream,
        kind=KIND_INJECTED,
        settings={"champion": champion and champion.pk, "seed": seed, "kinds": _kinds(model)},
        metrics=figures,
    )


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """The newest events of a series in order: ``time_us`` int64 [n], ``value`` float64 [n].

    Of wide events ``columns`` names the values, and ``value`` is float64 [n, k].
    """

    source: str
    metric: str
    time_us: IntArray
    value: FloatArray
    columns: tuple[str, ...] = NARROW

    @property
    def wide(self) -> bool:
        """Whether its events hold several values."""
        return self.columns != NARROW

    def with_faults(self, seed: int, start: int) -> tuple[FloatArray, Sequence[injection.Fault]]:
        """Its values [n, k] with faults in them from event ``start`` on, and where those are.

        Raises:
            ValueError: no room for one fault, or nothing that moves.
        """
        salt = zlib.crc32(f"{self.source}\0{self.metric}".encode())
        if self.wide:
            found = wide_injection.inject(self.value, seed=seed + salt, start=start)
            return found.values, found.faults
        narrow = injection.inject(self.value, seed=seed + salt, start=start)
        return narrow.value.reshape(-1, 1), narrow.faults


def _longest(batches: Iterable[EventBatch], index: SeriesIndex, metric: str) -> list[History]:
    least, most = EVENTS_OF_A_SERIES
    parts: dict[int, list[tuple[IntArray, FloatArray]]] = {}
    columns: tuple[str, ...] = NARROW
    for batch in batches:
        if len(batch):
            columns = batch.columns
        order = np.argsort(batch.series, kind="stable")
        codes = batch.series[order]
        cuts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
        for start, end in pairwise(cuts):
            if start == end or metric not in ("", index.names[codes[start]][1]):
                continue
            rows = order[start:end]
            mine = parts.setdefault(int(codes[start]), [])
            values = batch.values[rows]
            mine.append((batch.event_time[rows], values if columns != NARROW else values[:, 0]))
    found = []
    for code, pieces in parts.items():
        time_us, value = (np.concatenate(column) for column in zip(*pieces, strict=True))
        if len(value) >= least:
            source, name = index.names[code]
            found.append(History(source, name, time_us[-most:], value[-most:], columns))
    found.sort(key=lambda h: (-len(h.value), h.source, h.metric))
    return found[:MOST_SERIES]


def compare_injected(
    model: ModelVersion, series: Sequence[History], *, seed: int = 0
) -> dict[str, Any]:
    """Figures of the champion's and the challenger's ensemble on these series with faults in them.

    Raises:
        ArtefactError: a model can't be loaded.
    """
    payload = dict(_payload(model.stream))
    payload["models"] = [
        {"id": m.pk, "algorithm": m.algorithm} for m in model_store.champions(model.stream)
    ]
    payload["challengers"] = [{"id": model.pk, "algorithm": model.algorithm}]
    version = compile_version(0, payload, _load)
    sides = {"champion": metrics.Tally(grace=20), "challenger": metrics.Tally(grace=20)}
    trained_until_us = _trained_until_us(model)
    used = held_out = 0
    for history in series:
        later = int(np.searchsorted(history.time_us, trained_until_us, side="right"))
        start = HEALTHY
        if len(history.value) - later >= HELD_OUT:
            start = max(start, later)
        try:
            faulty, faults = history.with_faults(seed, start)
        except ValueError:
            continue  # no room for one fault
        engine = ScoringEngine(SeriesIndex(), capacity=1)
        engine.attach(0)
        code = engine.index.code(history.source, history.metric)
        n = len(faulty)
        batch = EventBatch(
            history.time_us,
            np.full(n, code, dtype=np.int32),
            faulty,
            np.zeros(n, dtype=np.int32),
            np.arange(n, dtype=np.int64),
            history.columns,
            {0: n},
        )
        scored = engine.process(batch, version, {})
        if not scored.shadows:
            continue
        shadow = scored.shadows[0]
        intervals = np.array([(f.start, f.end) for f in faults], dtype=np.int64)
        # A vector tells nothing while it learns: events by their offset, their number here.
        told = scored.events.offset
        score = np.full(n, np.nan)
        score[told] = scored.score
        at = told[shadow.at]
        for name, over, onset in (
            ("champion", challengers.CHAMPION, challengers.CHAMPION_ONSET),
            ("challenger", challengers.CHALLENGER, challengers.CHALLENGER_ONSET),
        ):
            flagged, onsets = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
            flagged[at] = shadow.flags & over > 0
            onsets[at] = shadow.flags & onset > 0
            if name == "challenger":
                score[at] = shadow.score
            sides[name].add(score, onsets, flagged, intervals, history.time_us / 1e6, start=HEALTHY)
        used += 1
        held_out += start == max(HEALTHY, later)
    return {
        "series": used,
        "held_out": held_out,
        **{name: side.figures().as_dict() for name, side in sides.items()},
    }


def _kinds(model: ModelVersion) -> tuple[str, ...]:
    """The faults that it is asked to find."""
    wide = model.manifest.get("space") == "vector"
    return wide_injection.KINDS if wide else injection.KINDS


def _trained_until_us(model: ModelVersion) -> int:
    last = model.manifest.get("last_event")
    return 0 if last is None else round(dt.datetime.fromisoformat(last).timestamp() * 1e6)


def _load(identity: int) -> LoadedModel:
    row, detector = model_store.load(identity)
    return LoadedModel(row.algorithm, row.metric, row.version, row.sha256, detector, row.pk)
