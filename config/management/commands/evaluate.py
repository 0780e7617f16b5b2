"""`manage.py evaluate`: how good the configured detection is on labelled recordings."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.offline import OfflineScorer
from detection.evaluation import EvaluationError, FileResult, evaluate_nab, recordings


class Command(BaseCommand):
    help = "Score recordings with the product's own code and the configuration; needs no server."
    requires_system_checks = ()  # they may ask servers

    def add_arguments(self, parser: CommandParser) -> None:
        kinds = parser.add_subparsers(dest="kind", required=True, metavar="{nab}")
        nab = kinds.add_parser("nab", help="the Numenta Anomaly Benchmark's layout")
        nab.add_argument("path", type=Path, metavar="PATH", help="folder with data/CATEGORY/*.csv")
        nab.add_argument(
            "--output",
            type=Path,
            required=True,
            metavar="DIR",
            help="writes DIR/CATEGORY/FILE.csv: timestamp, value, anomaly_score",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        path, output = options["path"], options["output"]
        config = settings.VIGIL
        began = time.monotonic()
        try:
            total = len(recordings(path))
            scorer = OfflineScorer(config)
            found: list[FileResult] = []
            threshold = config.anomaly_detection.threshold
            for result in evaluate_nab(path, output, scorer.score, threshold):
                found.append(result)
                self._progress(len(found), total, result)
        except EvaluationError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"{output}: can't be written: {error.strerror}") from error
        self._summary(found, time.monotonic() - began, output)

    def _progress(self, done: int, total: int, result: FileResult) -> None:
        of = f", {result.found} of {result.windows} windows found" if result.windows else ""
        self.stdout.write(
            f"[{done:>{len(str(total))}}/{total}] {result.category}/{result.name}: "
            f"{result.rows:,} rows, onsets: {result.onsets}{of}"
        )
        self.stdout.flush()

    def _summary(self, found: list[FileResult], took: float, output: Path) -> None:
        self.stdout.write(
            f"\n{'category':<24}{'files':>7}{'rows':>10}{'onsets':>8}{'windows found':>16}"
        )
        for category in dict.fromkeys(result.category for result in found):
            self._line(category, [r for r in found if r.category == category])
        self._line("all", found)
        rows = sum(result.rows for result in found)
        self.stdout.write(
            f"\n{len(found)} files, {rows:,} events in {took:.1f} s; scores are in {output}"
        )

    def _line(self, name: str, results: list[FileResult]) -> None:
        labelled = [r for r in results if r.windows is not None]
        windows = sum(r.windows or 0 for r in labelled)
        found = f"{sum(r.found for r in labelled)} of {windows}" if windows else "none labelled"
        self.stdout.write(
            f"{name:<24}{len(results):>7}{sum(r.rows for r in results):>10,}"
            f"{sum(r.onsets for r in results):>8}{found:>16}"
        )
