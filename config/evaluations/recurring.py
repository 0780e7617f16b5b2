"""`evaluate recurring`: is a fault that comes back still found the fifth time and later?"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import numpy as np
from django.core.management.base import CommandParser, OutputWrapper

from config.evaluations import report, series
from config.offline import Scored
from config.schema import VigilConfig
from detection import recurring

HELP = "faults that come back, on twelve kinds of normal data"
GROUPS = ("1st", "2nd", "3rd", "4th", "5th+")
SLACK = 2
"""Events after a fault in which its onset still counts: means of two events end one later."""


def add_arguments(parser: CommandParser) -> None:
    """How many series."""
    parser.add_argument(
        "--seeds", type=int, default=4, metavar="N", help="series of each base and fault (4)"
    )
    series.add_arguments(parser)
    report.add_arguments(parser)


def run(config: VigilConfig, options: dict[str, Any], out: OutputWrapper) -> None:
    """Score every series; say which share of which occurrence was found."""
    began = time.monotonic()
    scorer = series.scorer(config, options)
    shares: dict[str, dict[str, list[int]]] = defaultdict(
        lambda: {group: [0, 0] for group in GROUPS}
    )
    wrong = normal = count = 0
    for base in recurring.BASES:
        for fault in recurring.FAULTS:
            for seed in range(options["seeds"]):
                made = recurring.make(base, fault, seed)
                name = f"{base}-{fault}-{seed}"
                scored = scorer.run(series.recording_of("recurring", name, made.time_s, made.value))
                for group, found in _found(made, scored):
                    for row in ("all", f"on {base}", fault):
                        shares[row][group][0] += found
                        shares[row][group][1] += 1
                first = made.faults[0].start
                wrong += int(scored.onset[2_000:first].sum())
                normal += max(0, first - 2_000)
                count += 1
    order = ["all", *recurring.FAULTS, *(f"on {base}" for base in recurring.BASES)]
    metrics = {
        row: {
            group: None if of == 0 else round(found / of, 4)
            for group, (found, of) in shares[row].items()
        }
        for row in order
    }
    rows = [
        [row, *(None if share is None else 100.0 * share for share in metrics[row].values())]
        for row in order
    ]
    report.table(out, ["found, %", *GROUPS], rows)
    out.write(
        f"\n{count} series of {recurring.EVENTS:,} events at threshold "
        f"{scorer.settings['threshold']}; {time.monotonic() - began:.0f} s"
    )
    settings = {"seeds": options["seeds"], "events": recurring.EVENTS, **scorer.settings}
    report.deliver("recurring", settings, metrics, options)


def _found(made: recurring.Recurring, scored: Scored) -> list[tuple[str, int]]:
    """(which occurrence, 1 if an onset lies in it) of each fault."""
    at = np.flatnonzero(scored.onset)
    found = []
    for fault in made.faults:
        group = GROUPS[min(fault.occurrence, len(GROUPS)) - 1]
        hit = ((at >= fault.start) & (at < fault.end + SLACK)).any()
        found.append((group, int(hit)))
    return found
