"""Whether a challenger may become champion: no worse on labels and on injected faults, no more
alerts than the budget, and long enough beside the champion to know.

`gate_faults.measure` reads history and takes seconds, so background work does it; `judge` reads
what is stored, and may be asked by a page.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from django.conf import settings
from django.db.models import Count, Sum

from detection import gate_faults, model_store
from detection.ensemble import oddness_from_score, score_from_oddness
from detection.features import row_names
from detection.models import Evaluation, ModelVersion, ShadowHour
from detection.versions import ensemble_of
from streams.models import Stream
from streams.vectors import is_vector

KIND_GATE = "gate"
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
    most = most_alerts(before, rules)
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


def most_alerts(before: float, rules: Any) -> float:
    """How many alerts a day a challenger may have where the champion has so many."""
    return float(max(before * rules.max_alerts_per_day_ratio, before + rules.spare_alerts_per_day))


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
    reasons += labels_against(figures)
    return figures


def labels_against(figures: Mapping[str, Any]) -> list[str]:
    """What speaks against a challenger in the figures on labels, in sentences."""
    reasons = []
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
    return reasons


def _columns(model: ModelVersion) -> Sequence[str]:
    """What a model is given: features of a series, or the values of wide events."""
    return row_names(model.manifest)


def _flagged(
    model: ModelVersion | None, algorithm: str, rows: Sequence[Labelled], stream: Stream
) -> Any:
    """bool [rows]: the ensemble of then with this model in its algorithm's place, or without it."""
    payload = gate_faults.payload_of_now(stream)
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


# -- injected faults -----------------------------------------------------------------------------


def _injected(
    model: ModelVersion, champion: ModelVersion | None, reasons: list[str]
) -> dict[str, Any]:
    measured = gate_faults.of_model(model, champion)
    if measured is None:
        reasons.append(
            "It has not been tested on injected faults yet; a worker does that once it has scored"
            " long enough."
        )
        return {}
    found: dict[str, Any] = measured.metrics
    reasons += gate_faults.reasons_against(found)
    return found
