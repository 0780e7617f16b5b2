"""`evaluate gate`: how often the gate refuses models as good as the champion, and worse ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from django.core.management.base import CommandError, CommandParser, OutputWrapper

from config.evaluations import report, series
from config.offline import trained_detectors
from config.schema import VigilConfig
from config.wiring import load_model, scoring_base
from detection import gate_faults
from detection.base import FloatArray, IntArray, RowScorer
from detection.gate_faults import History
from detection.registry import MODEL_DETECTORS
from detection.scoring import TRUSTED_AFTER, CompiledVersion, LoadedModel, ScoringEngine
from detection.training import train
from detection.versions import FORMAT, compile_version, configured_policy
from streams.batch import EventBatch
from streams.connectors.demo import demo_world
from streams.series import SeriesIndex

HELP = "how often the gate refuses equal models, and how often worse ones"
MINUTE_US = 60_000_000
START_US = 1_704_067_200_000_000
CHAMPIONS = 1_000  # their seeds: each challenger has a champion of its own
WEAKER = (0.9, 0.8, 0.7, 0.5)
"""By which an equal's oddness is multiplied, to be worse by more and more."""
LOST = ((-1.0, 0.0), (0.0, 0.02), (0.02, 0.05), (0.05, 0.1), (0.1, 1.0))
"""Groups of models by the share of faults that they find less than the champion."""


def add_arguments(parser: CommandParser) -> None:
    """What is trained on what, and how often."""
    parser.add_argument("--algorithm", default="isolation_forest", choices=sorted(MODEL_DETECTORS))
    parser.add_argument("--weight", type=float, metavar="W", help="its weight (the configured one)")
    parser.add_argument(
        "--alone", action="store_true", help="nothing else votes: all depends on the model"
    )
    parser.add_argument("--sources", type=int, default=6, metavar="N",
                        help="of the demo, with three series each (6)")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=50, metavar="N",
                        help="equals; a tenth as many of each worse kind (50)")  # fmt: skip
    parser.add_argument("--events", type=int, default=6_000, metavar="N",
                        help="events a series (6,000)")  # fmt: skip
    parser.add_argument("--held-out", type=int, default=2_000, metavar="N",
                        help="events of a series after the training (2,000)")  # fmt: skip
    report.add_arguments(parser)


def run(config: VigilConfig, options: dict[str, Any], out: OutputWrapper) -> None:
    """Train a champion, equals and worse ones; ask the gate of each; say what it said."""
    began = time.monotonic()
    trial = _Trial.of(config, options)
    verdicts = []
    for kind, seed, detector in trial.challengers(options["seeds"]):
        started = time.monotonic()
        found = trial.compared(detector, seed)
        why = gate_faults.reasons_against(found)
        verdicts.append(
            {
                "kind": kind,
                "lost": found["paired"]["lost"],
                "least_lost": found["paired"]["least_lost"],
                "faults": found["challenger"]["faults"],
                "quiet": found["quiet"],
                "refused": bool(why),
                "s": round(time.monotonic() - started, 2),
            }
        )
        if options["verbosity"] > 1:
            out.write(f"{kind} {seed}: {verdicts[-1]} {' '.join(why)}")
    kinds = list(dict.fromkeys(v["kind"] for v in verdicts))
    metrics = {kind: _curve([v for v in verdicts if v["kind"] == kind]) for kind in kinds}
    by_loss = {
        f"{100 * low:g} to {100 * high:g} points": _curve(group)
        for low, high in LOST
        if (group := [v for v in verdicts if low <= v["lost"] < high])
    }
    report.table(
        out,
        ["challengers", "number", "refused, %", "points lost", "from", "to", "faults", "s"],
        [
            [name, *(row[c] for c in ("models", "refused", "lost", "from", "to", "faults", "s"))]
            for name, row in (*metrics.items(), *by_loss.items())
        ],
    )
    out.write(f"\n{len(trial.histories)} series; {time.monotonic() - began:.0f} s")
    settings = {
        name: options[name]
        for name in ("algorithm", "weight", "alone", "sources", "held_out", "seeds", "events")
    }
    report.deliver("gate", settings, {"kinds": metrics, "by_loss": by_loss}, options)


class _Weaker:
    """A model that finds everything less odd by a factor."""

    def __init__(self, inner: RowScorer, factor: float) -> None:
        self._inner, self._factor, self.name = inner, factor, inner.name

    @property
    def columns(self) -> int:
        return self._inner.columns

    def oddness(self, features: FloatArray) -> FloatArray:
        return self._factor * self._inner.oddness(features)

    def contributions(self, features: FloatArray) -> FloatArray:
        return self._inner.contributions(features)

    def nearest(self, features: FloatArray) -> FloatArray:
        return self._inner.nearest(features)


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """A stream's history, and its features in order of time."""

    version: CompiledVersion
    histories: list[History]
    rows: FloatArray
    row_time: IntArray
    until_us: int
    algorithm: str
    params: Mapping[str, Any]

    @classmethod
    def of(cls, config: VigilConfig, options: dict[str, Any]) -> _Trial:
        algorithm, events = options["algorithm"], options["events"]
        base = scoring_base(config)
        weight = base["weights"].get(algorithm, 1.0)
        if options["weight"] is not None:
            weight = options["weight"]
        others = dict.fromkeys(base["weights"], 0.0) if options["alone"] else base["weights"]
        base["weights"] = {**others, algorithm: weight}
        payload = {
            "format": FORMAT, **base, "time_zone": "UTC", "models": [],
            "policies": [configured_policy(base).as_dict()],
        }  # fmt: skip
        version = compile_version(0, payload, load_model)
        histories = _histories(options["sources"], events)
        trained = events - options["held_out"]
        if not histories or trained < TRUSTED_AFTER:
            raise CommandError("too few events for a training before those held out")
        found = [_features(version, history) for history in histories]
        rows = np.concatenate(found)
        row_time = np.concatenate([h.time_us[TRUSTED_AFTER:] for h in histories])
        order = np.argsort(row_time, kind="stable")
        until_us = int(histories[0].time_us[trained - 1])
        params = trained_detectors(series.with_all_detectors(config))[algorithm]
        return cls(version, histories, rows[order], row_time[order], until_us, algorithm, params)

    def model(self, seed: int, first: float = 0.0, **params: Any) -> RowScorer:
        """Trained on the rows before the held-out events, but for the ``first`` share of them."""
        until = int(np.searchsorted(self.row_time, self.until_us, side="right"))
        rows = self.rows[int(first * until) : until]
        settings = {**self.params, **params}
        return train(self.algorithm, rows, seed=seed, params=settings).detector

    def challengers(self, count: int) -> Iterator[tuple[str, int, RowScorer]]:
        """(kind, seed, model): equals first, then ever weaker ones."""
        makers: dict[str, Callable[[int], RowScorer]] = {
            "equal: another seed": lambda seed: self.model(seed),
            "equal: newer four fifths": lambda seed: self.model(seed, first=0.2),
        }
        for part, (kind, make) in enumerate(makers.items()):
            for seed in range(1 + part, count + 1, 2):
                yield kind, seed, make(seed)
        for factor in WEAKER:
            for seed in range(1, max(1, count // 10) + 1):
                yield f"{factor:g} × as odd", seed, _Weaker(self.model(seed), factor)
        for chosen in ("event", "forecast", "course"):
            for seed in range(1, max(1, count // 10) + 1):
                yield f"features: {chosen}", seed, self.model(seed, features=chosen)

    def compared(self, detector: RowScorer, seed: int) -> dict[str, Any]:
        """What the gate measures of it beside the champion, with faults of this seed."""
        champion, challenger = (
            LoadedModel(self.algorithm, "", number, "", model, number)
            for number, model in ((1, self.model(CHAMPIONS + seed)), (2, detector))
        )
        version = replace(self.version, models=(champion,), challengers=(challenger,))
        return gate_faults.compare_versions(version, self.histories, self.until_us, seed)


def _histories(sources: int, events: int) -> list[History]:
    """The demo's fleet, an event a minute, with its faults now and then."""
    world = demo_world(sources, MINUTE_US, 7, None)
    columns = world.columns(START_US, START_US + events * MINUTE_US)
    found = []
    for number, line in enumerate(world.lines):
        mine = columns.line == number
        found.append(
            History(line.source, line.profile.name, columns.time_us[mine], columns.value[mine])
        )
    return found


def _features(version: CompiledVersion, history: History) -> FloatArray:
    """Of its events that models would learn from, [n − TRUSTED_AFTER, features]."""
    engine = ScoringEngine(SeriesIndex(), capacity=1)
    engine.attach(0)
    n = len(history.value)
    batch = EventBatch(
        history.time_us.copy(),
        np.full(n, engine.index.code(history.source, history.metric), dtype=np.int32),
        history.rows.copy(),
        np.zeros(n, dtype=np.int32),
        np.arange(n, dtype=np.int64),
        history.columns,
        {0: n},
    )
    return engine.process(batch, version, {}).detail.features[TRUSTED_AFTER:]


def _curve(verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    lost = [100 * v["lost"] for v in verdicts]
    return {
        "models": len(verdicts),
        "refused": round(100 * float(np.mean([v["refused"] for v in verdicts])), 1),
        "lost": round(float(np.mean(lost)), 2),
        "from": round(min(lost), 2),
        "to": round(max(lost), 2),
        "faults": int(np.mean([v["faults"] for v in verdicts])),
        "s": round(float(np.mean([v["s"] for v in verdicts])), 2),
    }
