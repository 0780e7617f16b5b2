"""`evaluate normal`: false onsets per 10,000 events on twenty shapes of normal data."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import numpy as np
from django.core.management.base import CommandParser, OutputWrapper

from config.evaluations import report, series
from config.offline import OfflineScorer, Scored
from config.schema import VigilConfig
from detection import shapes
from detection.base import IntArray
from detection.ensemble import score_from_oddness
from detection.metrics import onsets

HELP = "false alarms on twenty shapes of normal data"
AFTER = (2_000, 10_000)
"""Events of a series from which on onsets are counted."""
ENSEMBLE = "ensemble"


def add_arguments(parser: CommandParser) -> None:
    """How much of which shapes."""
    series.add_shapes(parser, seeds=5, events=shapes.EVENTS)
    series.add_arguments(parser)
    report.add_arguments(parser)


def run(config: VigilConfig, options: dict[str, Any], out: OutputWrapper) -> None:
    """Score every series; count onsets of the ensemble, and of each detector at its gain."""
    began = time.monotonic()
    scorer = series.scorer(config, options)
    chosen = series.chosen_shapes(options)
    settings = {"seeds": options["seeds"], "events": options["events"], **scorer.settings}
    metrics: dict[str, Any] = {}
    for name in chosen:
        counts: dict[str, IntArray] = defaultdict(lambda: np.zeros(len(AFTER), dtype=np.int64))
        events = np.zeros(len(AFTER), dtype=np.int64)
        for seed in range(options["seeds"]):
            scored = scorer.run(series.shape_recording(name, seed, options["events"]))
            events += [max(0, len(scored.score) - after) for after in AFTER]
            for who, at in _onsets(config, scorer, scored).items():
                counts[who] += [int((at >= after).sum()) for after in AFTER]
        metrics[name] = {
            who: {
                f"after_{after}": _rate(int(found[i]), int(events[i]))
                for i, after in enumerate(AFTER)
            }
            | {"onsets": int(found[0])}
            for who, found in counts.items()
        }
    _show(out, metrics, scorer.names)
    worst = {
        after: max(
            (row[ENSEMBLE][f"after_{after}"] or 0.0 for row in metrics.values()), default=0.0
        )
        for after in AFTER
    }
    out.write(
        f"\nonsets per 10,000 events at threshold {settings['threshold']}, "
        f"{options['seeds']} series of {options['events']:,} events a shape; the worst shape: "
        + ", ".join(f"{worst[after]:.2f} after {after:,}" for after in AFTER)
        + f"; {time.monotonic() - began:.0f} s"
    )
    report.deliver("normal", settings, metrics, options)


def _onsets(config: VigilConfig, scorer: OfflineScorer, scored: Scored) -> dict[str, IntArray]:
    detection = config.anomaly_detection
    gains = scorer.settings["weights"]
    found = {ENSEMBLE: np.flatnonzero(scored.onset)}
    for column, name in enumerate(scored.names):
        score = score_from_oddness(gains[name] * scored.votes[:, column])
        found[name] = onsets(
            np.nan_to_num(score) >= detection.threshold,
            scored.time_us,
            detection.episode_quiet_events,
            detection.max_gap_s * 1e6,
        )
    return found


def _show(out: OutputWrapper, metrics: dict[str, Any], names: tuple[str, ...]) -> None:
    who = [ENSEMBLE, *names]
    headers = ["shape", *(f"{name} {after // 1000}k" for name in who for after in AFTER)]
    rows = [
        [shape, *(row[name][f"after_{after}"] for name in who for after in AFTER)]
        for shape, row in metrics.items()
    ]
    report.table(out, headers, rows)


def _rate(onsets: int, events: int) -> float | None:
    return None if events == 0 else round(1e4 * onsets / events, 3)
