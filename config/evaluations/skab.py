"""`evaluate skab`: the Skoltech Anomaly Benchmark, wide events scored causally with one setting."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser, OutputWrapper

from config.evaluations import report
from config.offline_vectors import OfflineVectorScorer
from config.schema import VigilConfig
from detection.evaluation import EvaluationError
from detection.skab import WideResult, evaluate_skab, figures, wide_files

HELP = "the Skoltech Anomaly Benchmark's layout"


def add_arguments(parser: CommandParser) -> None:
    """Where the files are and where flags go."""
    parser.add_argument("path", type=Path, metavar="PATH", help="folder with data/GROUP/*.csv")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="writes DIR/GROUP/N.csv: datetime, outlier, from the 401st row on",
    )
    report.add_arguments(parser)


def run(config: VigilConfig, options: dict[str, Any], out: OutputWrapper) -> None:
    """Flag every file's rows, say how well where there are labels."""
    path, output = options["path"], options["output"]
    began = time.monotonic()
    found: list[WideResult] = []
    try:
        total = len(wide_files(path))
        for result in evaluate_skab(path, output, OfflineVectorScorer(config).flags):
            found.append(result)
            out.write(
                f"[{len(found):>{len(str(total))}}/{total}] {result.group}/{result.name}: "
                f"{result.rows:,} rows, {result.flagged:,} flagged"
            )
            out.flush()
    except EvaluationError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{output}: can't be written: {error.strerror}") from error
    took = time.monotonic() - began
    groups = report.grouped(found, lambda result: result.group)
    metrics = {group: _sums(results) for group, results in groups}
    out.write("")
    rows: list[list[report.Cell]] = [
        [group, *(sums[name] for name in ("files", "rows", "flagged", "f1", "far", "mar"))]
        for group, sums in metrics.items()
    ]
    names = ["group", "files", "rows", "flagged", "F1", "FAR %", "MAR %"]
    report.table(out, names, rows)
    events = sum(result.rows for result in found)
    out.write(f"\n{len(found)} files, {events:,} rows in {took:.1f} s; flags are in {output}")
    detection = config.anomaly_detection
    settings = {
        "threshold": detection.threshold,
        "vector": detection.detectors.vector.model_dump(mode="json"),
    }
    report.deliver("skab", settings, metrics, options)


def _sums(results: list[WideResult]) -> dict[str, float | None]:
    return {
        "files": len(results),
        "rows": sum(r.rows for r in results),
        "flagged": sum(r.flagged for r in results),
        **figures(results),
    }
