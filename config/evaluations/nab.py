"""`evaluate nab`: the Numenta Anomaly Benchmark, scored causally with one configuration."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser, OutputWrapper

from config.evaluations import report
from config.offline import OfflineScorer
from config.schema import VigilConfig
from detection.evaluation import EvaluationError, FileResult, evaluate_nab, recordings

HELP = "the Numenta Anomaly Benchmark's layout"


def add_arguments(parser: CommandParser) -> None:
    """Where the files are and where scores go."""
    parser.add_argument("path", type=Path, metavar="PATH", help="folder with data/CATEGORY/*.csv")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="writes DIR/CATEGORY/FILE.csv: timestamp, value, anomaly_score",
    )
    parser.add_argument(
        "--no-models",
        dest="models",
        action="store_false",
        help="only what learns online: no model is trained on the files' own past",
    )
    report.add_arguments(parser)


def run(config: VigilConfig, options: dict[str, Any], out: OutputWrapper) -> None:
    """Score every file, say what was found of the labels, if there are any."""
    path, output = options["path"], options["output"]
    began = time.monotonic()
    try:
        total = len(recordings(path))
        scorer = OfflineScorer(config, models=options["models"])
        found: list[FileResult] = []
        threshold = config.anomaly_detection.threshold
        for result in evaluate_nab(path, output, scorer.score, threshold):
            found.append(result)
            _progress(out, len(found), total, result)
    except EvaluationError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{output}: can't be written: {error.strerror}") from error
    _summary(out, found, time.monotonic() - began, output)
    metrics = {category: _sums(results) for category, results in _groups(found)}
    settings = {"models": options["models"], **scorer.settings}
    report.deliver("nab", settings, metrics, options)


def _progress(out: OutputWrapper, done: int, total: int, result: FileResult) -> None:
    of = f", {result.found} of {result.windows} windows found" if result.windows else ""
    out.write(
        f"[{done:>{len(str(total))}}/{total}] {result.category}/{result.name}: "
        f"{result.rows:,} rows, onsets: {result.onsets}{of}"
    )
    out.flush()


def _summary(out: OutputWrapper, found: list[FileResult], took: float, output: Path) -> None:
    rows: list[list[report.Cell]] = []
    for category, results in _groups(found):
        sums = _sums(results)
        windows = f"{sums['found']} of {sums['windows']}" if sums["windows"] else "none labelled"
        rows.append([category, sums["files"], sums["rows"], sums["onsets"], windows])
    out.write("")
    report.table(out, ["category", "files", "rows", "onsets", "windows found"], rows)
    events = sum(result.rows for result in found)
    out.write(f"\n{len(found)} files, {events:,} events in {took:.1f} s; scores are in {output}")


def _groups(found: list[FileResult]) -> list[tuple[str, list[FileResult]]]:
    return report.grouped(found, lambda result: result.category)


def _sums(results: list[FileResult]) -> dict[str, int]:
    labelled = [r for r in results if r.windows is not None]
    return {
        "files": len(results),
        "rows": sum(r.rows for r in results),
        "onsets": sum(r.onsets for r in results),
        "windows": sum(r.windows or 0 for r in labelled),
        "found": sum(r.found for r in labelled),
    }
