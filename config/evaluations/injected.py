"""`evaluate injected`: how well known faults are found in normal data, and at which cost."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from django.core.management.base import CommandError, CommandParser, OutputWrapper

from config.evaluations import report, series
from config.schema import VigilConfig
from detection import shapes
from detection.base import IntArray
from detection.evaluation import EvaluationError, Recording, read_recording, recordings
from detection.injection import KINDS, Fault, inject
from detection.metrics import Tally, delays

HELP = "faults of eight kinds put into normal data"
START = 2_000
"""Events of a series before its first fault, and before false onsets count."""
GRACE = 100
"""Events after a fault in which an onset is neither right nor wrong: it ends there."""


def add_arguments(parser: CommandParser) -> None:
    """Into what, and how many."""
    parser.add_argument(
        "--path",
        type=Path,
        help="into recordings: a folder with data/CATEGORY/*.csv; else into the twenty shapes",
    )
    parser.add_argument("--each", type=int, default=1, metavar="N", help="faults of a kind (1)")
    parser.add_argument(
        "--kind", dest="kinds", action="append", choices=KINDS, help="only this one; repeatable"
    )
    series.add_shapes(parser, seeds=5, events=shapes.EVENTS)
    series.add_arguments(parser)
    report.add_arguments(parser)


def run(config: VigilConfig, options: dict[str, Any], out: OutputWrapper) -> None:
    """Inject, score and count; a table by kind, one by series' shape, and the sums."""
    began = time.monotonic()
    scorer = series.scorer(config, options)
    kinds = options["kinds"] or list(KINDS)
    whole = Tally(grace=GRACE)
    groups: dict[str, Tally] = defaultdict(lambda: Tally(grace=GRACE))
    by_kind: dict[str, list[int]] = {kind: [] for kind in kinds}
    try:
        for group, seed, original in _series(options):
            made, faults = with_faults(original, kinds, seed, options["each"])
            if not faults:
                continue
            scored = scorer.run(made)
            found = delays(scored.onset, spans(faults))
            for fault, delay in zip(faults, found.tolist(), strict=True):
                by_kind[fault.kind].append(delay)
            for tally in (whole, groups[group]):
                tally.add(
                    scored.score,
                    scored.onset,
                    scored.flagged,
                    spans(faults),
                    scored.time_us / 1e6,
                    start=START,
                )
    except EvaluationError as error:
        raise CommandError(str(error)) from error
    if not whole.series:
        raise CommandError(
            f"no series has room for a fault after its first {START:,} events; give longer ones"
        )
    metrics = {
        "all": whole.figures().as_dict(),
        "kinds": {kind: _kind(found) for kind, found in by_kind.items()},
        "groups": {group: tally.figures().as_dict() for group, tally in groups.items()},
    }
    _show(out, metrics)
    out.write(
        f"\n{whole.series} series, {whole.events:,} events at threshold "
        f"{scorer.settings['threshold']}; {time.monotonic() - began:.0f} s"
    )
    settings = {
        **{name: options[name] for name in ("seeds", "events", "each")},
        "path": str(options["path"]) if options["path"] else None,
        "kinds": kinds,
        **scorer.settings,
    }
    report.deliver("injected", settings, metrics, options)


def with_faults(
    original: Recording, kinds: list[str] | None, seed: int, each: int
) -> tuple[Recording, tuple[Fault, ...]]:
    """The recording with faults; none where it has no room for one."""
    if len(original.value) <= START:
        return original, ()
    try:
        injected = inject(original.value, seed=seed, kinds=kinds or KINDS, each=each, start=START)
    except ValueError:
        return original, ()
    made = Recording(
        original.category,
        f"{original.name}-faults-{seed}",
        original.stamps,
        original.times,
        injected.value,
    )
    return made, injected.faults


def spans(faults: tuple[Fault, ...]) -> IntArray:
    """Their places, int64 [k, 2]."""
    return np.array([[fault.start, fault.end] for fault in faults], dtype=np.int64).reshape(-1, 2)


def _series(options: dict[str, Any]) -> list[tuple[str, int, Recording]]:
    """(group, seed, series without faults)."""
    if options["path"] is not None:
        read = [read_recording(file) for file in recordings(options["path"])]
        return [(r.category, seed, r) for r in read for seed in range(options["seeds"])]
    return [
        (name, seed, series.shape_recording(name, seed, options["events"]))
        for name in series.chosen_shapes(options)
        for seed in range(options["seeds"])
    ]


def _kind(found: list[int]) -> dict[str, Any]:
    hit = [delay for delay in found if delay >= 0]
    return {
        "faults": len(found),
        "found": len(hit),
        "recall": len(hit) / len(found) if found else None,
        "delay_events": float(np.median(hit)) if hit else None,
    }


def _show(out: OutputWrapper, metrics: dict[str, Any]) -> None:
    report.table(
        out,
        ["kind", "faults", "found", "recall", "delay, events"],
        [
            [kind, row["faults"], row["found"], row["recall"], row["delay_events"]]
            for kind, row in metrics["kinds"].items()
        ],
    )
    columns = {
        "recall": "recall",
        "precision": "precision",
        "f1": "F1",
        "pr_auc": "PR-AUC",
        "vus_pr": "VUS-PR",
        "delay_events": "delay, events",
        "delay_s": "delay, s",
        "false_alarms_a_day": "false a day",
        "false_onsets_per_10000": "false per 10,000",
    }
    out.write("")
    report.table(
        out,
        ["in", *columns.values()],
        [
            [name, *(row[column] for column in columns)]
            for name, row in [*metrics["groups"].items(), ("all", metrics["all"])]
        ],
    )
