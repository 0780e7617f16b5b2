"""`evaluate weights`: learns the detectors' weights, and says them as configuration to paste."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from django.core.management.base import CommandError, CommandParser, OutputWrapper

from config.evaluations import report, series
from config.evaluations.injected import START, spans, with_faults
from config.offline import OfflineScorer
from config.schema import VigilConfig
from detection.ensemble import oddness_from_score
from detection.errors import DetectionError
from detection.weights import Judged, Learnt, Rules, Sample, figures, learn

HELP = "learns weights learnt on injected faults, and on a stream's labels"


def add_arguments(parser: CommandParser) -> None:
    """On what to learn, and what to keep to."""
    parser.add_argument(
        "--method",
        choices=("weighted", "max"),
        default="weighted",
        help="how the ensemble combines (weighted)",
    )
    parser.add_argument(
        "--false",
        dest="most_false",
        type=float,
        default=3.0,
        metavar="RATE",
        help="false onsets allowed per 10,000 normal events (3)",
    )
    parser.add_argument(
        "--stream", metavar="NAME", help="learns from its labels as well (needs PostgreSQL)"
    )
    parser.add_argument(
        "--use",
        action="store_true",
        help="with --store: lets them count for that stream at once, unless they are worse",
    )
    series.add_shapes(parser, seeds=2, events=12_000)
    series.add_arguments(parser)
    report.add_arguments(parser)


def run(config: VigilConfig, options: dict[str, Any], out: OutputWrapper) -> None:
    """Learn on some series of every shape, and measure on others.

    Raises:
        CommandError: nothing to learn from, or a stream that does not exist.
    """
    if options["use"] and not options["store"]:
        raise CommandError("--use needs --store STREAM: the stream that they are to count for")
    if options["store"]:
        report.known_stream(options["store"])
    began = time.monotonic()
    scorer = series.scorer(config, options)
    names = scorer.names
    detection = config.anomaly_detection
    rules = Rules(
        options["method"],
        detection.threshold,
        options["most_false"],
        detection.episode_quiet_events,
        detection.max_gap_s * 1e6,
    )
    seeds = options["seeds"]
    learning = _samples(scorer, options, range(seeds))
    judged = _judged(options["stream"], names) if options["stream"] else None
    first = [scorer.settings["weights"][name] for name in names]
    try:
        found = learn(names, learning, judged, rules, first)
    except (DetectionError, ValueError) as error:
        raise CommandError(str(error)) from error
    fresh = _samples(scorer, options, range(seeds, 2 * seeds))
    held_out = figures(names, list(found.weights.values()), found.threshold, fresh, None, rules)
    now = replace(rules, method=detection.combine)
    present = figures(names, first, detection.threshold, fresh, None, now)
    report.table(
        out,
        ["", "F1", "precision", "recall", "false per 10,000"],
        [
            _row("learnt, where it learnt", found),
            _row("learnt, on other series", held_out),
            _row("as configured, there", present),
        ],
    )
    out.write(f"\n{found.tried} weights tried in {time.monotonic() - began:.0f} s. To use them:\n")
    out.write(_yaml(found))
    worse = held_out.f1 < present.f1
    if worse:
        out.write("\nOn other series they find less than what is configured: better keep that.")
    metrics = {
        "weights": found.weights,
        "threshold": found.threshold,
        "learnt": _figures(found),
        "held_out": _figures(held_out),
        "configured": _figures(present),
    }
    settings = {name: options[name] for name in ("method", "most_false", "seeds", "events")}
    labels = 0 if judged is None else len(judged.real)
    settings |= {"labels": labels, **scorer.settings}
    report.deliver("weights", settings, metrics, options)
    if options["store"]:
        _keep(found, settings, metrics, options, out, worse)


def _keep(
    found: Learnt,
    settings: dict[str, Any],
    metrics: dict[str, Any],
    options: dict[str, Any],
    out: OutputWrapper,
    worse: bool,
) -> None:
    """Where consumers look: a set of learnt weights of the stream."""
    from detection import learnt_weights
    from detection.management.commands.rollback import actor
    from streams.models import Stream

    row = learnt_weights.save(
        Stream.objects.get(name=options["store"]), found, metrics=metrics, settings=settings,
        actor=actor(),
    )  # fmt: skip
    if options["use"] and worse:
        out.write(f"\nKept as set {row.pk}, not used. `manage.py weights --use {row.pk}` does it"
                  " all the same.")  # fmt: skip
    elif options["use"]:
        learnt_weights.use(row.pk, actor())
        out.write(f"\nWeights {row.pk} count for {options['store']} within seconds.")
    else:
        out.write(f"\nOr, for stream {options['store']} alone: manage.py weights --use {row.pk}")


def _samples(scorer: OfflineScorer, options: dict[str, Any], seeds: range) -> list[Sample]:
    """Each series once with faults and once without."""
    samples = []
    for name in series.chosen_shapes(options):
        for seed in seeds:
            normal = series.shape_recording(name, seed, options["events"])
            made, faults = with_faults(normal, None, seed, 1)
            for recording, present in ((normal, ()), (made, faults)):
                if recording is normal or present:
                    scored = scorer.run(recording)
                    samples.append(Sample(scored.votes, scored.time_us, spans(present), START))
    return samples


def _judged(stream: str, names: tuple[str, ...]) -> Judged:
    """The stream's labelled anomalies, their detectors' scores as oddness."""
    from anomalies.models import Anomaly

    report.known_stream(stream)
    rows = Anomaly.objects.filter(
        stream__name=stream, label__in=[Anomaly.Label.REAL, Anomaly.Label.FALSE_ALARM]
    ).order_by("pk")
    votes, real = [], []
    for label, scores in rows.values_list("label", "detectors"):
        known = [scores.get(name) for name in names]
        if any(score is not None for score in known):
            votes.append([np.nan if score is None else score for score in known])
            real.append(label == Anomaly.Label.REAL)
    table = np.array(votes, dtype=np.float64).reshape(-1, len(names))
    return Judged(oddness_from_score(table), np.array(real, dtype=np.bool_))


def _row(name: str, found: Learnt) -> list[report.Cell]:
    return [name, *_figures(found).values()]


def _figures(found: Learnt) -> dict[str, float | None]:
    return {
        "f1": found.f1,
        "precision": found.precision,
        "recall": found.recall,
        "false_per_10000": found.false_per_10000,
    }


def _yaml(found: Learnt) -> str:
    """What belongs into config.yaml."""
    weights = ", ".join(f"{name}: {weight:.4g}" for name, weight in found.weights.items())
    return (
        "anomaly_detection:\n"
        f"  combine: {found.method}\n"
        f"  threshold: {found.threshold:.4g}\n"
        f"  weights: {{{weights}}}"
    )
