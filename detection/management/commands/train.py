"""`manage.py train`: trains a model from a topic's history and tells what came of it."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from detection import model_store, training_run
from detection.history import left_out
from detection.registry import MODEL_DETECTORS
from detection.tasks import params_of
from detection.training_run import MIN_ROWS, Order, Outcome, Promote, TrainingBusyError
from streams.connectors.options import count, duration_us
from streams.models import Series, Stream


class Command(BaseCommand):
    """Trains now, whatever the schedule says."""

    help = "Train a model from the history of a topic, store it and promote the first one."
    requires_system_checks: tuple[str, ...] = ()  # they import every page: a slower start

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--stream", metavar="NAME", help="default: the only one there is")
        parser.add_argument("--metric", default="", metavar="NAME", help="default: all of them")
        parser.add_argument(
            "--algorithm", default="isolation_forest", choices=sorted(MODEL_DETECTORS)
        )
        parser.add_argument(
            "--since", type=duration_us, metavar="2d", help="arrived since then; default: all"
        )
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--min-rows", type=count, default=MIN_ROWS)
        promotion = parser.add_mutually_exclusive_group()
        promotion.add_argument(
            "--promote", dest="promote", action="store_const", const="always", default="first",
            help="make it the champion; default: only where there is none",
        )  # fmt: skip
        promotion.add_argument("--no-promote", dest="promote", action="store_const", const="never")

    def handle(self, *args: Any, **given: Any) -> None:
        stream = _stream(given["stream"])
        _check_metric(stream, given["metric"])
        promote: Promote = given["promote"]
        since = given["since"]
        order = Order(
            stream=stream,
            algorithm=given["algorithm"],
            metric=given["metric"],
            since=None if since is None else dt.timedelta(microseconds=since),
            promote=promote,
            seed=given["seed"],
            params=params_of(settings.VIGIL, given["algorithm"]),
            exclude=left_out(stream.name),
            min_rows=given["min_rows"],
            share=1.0,  # a person waits
        )
        client = settings.VIGIL.kafka.client_config() | {"log_level": 2}
        try:
            with training_run.lease():
                outcome = training_run.run(order, client)
        except TrainingBusyError as error:
            raise CommandError(str(error)) from error
        if outcome.model is None:
            raise CommandError(f"no model was trained: {outcome.run.reason}")
        self._report(outcome)

    def _report(self, outcome: Outcome) -> None:
        model, rows = outcome.model, outcome.rows
        if model is None or rows is None:
            return
        found = model.manifest
        metrics = found.get("metrics", {})
        state = "champion: running consumers take it up within seconds"
        if not outcome.promoted:
            state = f"candidate: `manage.py promote {model.pk}` makes it the champion"
        lines = {
            "model": f"{model_store.describe(model)}, id {model.pk}",
            "sha256": model.sha256,
            "state": state,
            "rows": f"{len(rows):,} of {rows.events:,} events, {rows.series:,} series",
            "left out": f"{rows.warming:,} warming up, {rows.excluded:,} in confirmed anomalies, "
            f"{rows.sampled_out:,} by sampling",
            "event time": f"{found['first_event']} to {found['last_event']}",
            "held out": f"{metrics.get('held_out_rows', 0):,.0f} rows, "
            f"{metrics.get('held_out_alarms_per_10000', 0):.1f} alarms per 10,000",
            "settings": ", ".join(f"{key} {value}" for key, value in found["params"].items())
            + f", seed {found['seed']}",
            "size": f"{len(model.artefact):,} bytes",
            "took": f"{outcome.took_s:.1f} s",
        }
        for name, text in lines.items():
            self.stdout.write(f"{name:<11}{text}")


def _stream(name: str | None) -> Stream:
    streams = {stream.name: stream for stream in Stream.objects.order_by("name")}
    there_are = (
        ", ".join(streams) or "none yet: `manage.py runconsumer` makes those of the settings"
    )
    if name is None and len(streams) == 1:
        return next(iter(streams.values()))
    if name is None:
        raise CommandError(f"--stream NAME is needed. There are: {there_are}")
    if name not in streams:
        raise CommandError(f"--stream {name}: no such stream. There are: {there_are}")
    return streams[name]


def _check_metric(stream: Stream, metric: str) -> None:
    if not metric:
        return
    known = Series.objects.filter(stream=stream).order_by("metric")
    names = list(known.values_list("metric", flat=True).distinct()[:50])
    if names and metric not in names and not known.filter(metric=metric).exists():
        raise CommandError(
            f"--metric {metric}: stream {stream.name} has no such metric. There are: "
            f"{', '.join(names)}"
        )
