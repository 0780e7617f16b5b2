"""`manage.py train`: trains from a topic's history and tells what came of it."""

from __future__ import annotations

import datetime as dt
from argparse import ArgumentTypeError
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from detection import model_store, promotion, training_queue
from detection.errors import TransitionRefused
from detection.features import FEATURE_SETS
from detection.management.commands.rollback import actor
from detection.models import ModelVersion, TrainingRun
from detection.registry import MODEL_DETECTORS
from detection.training_orders import (
    OrderRefused,
    check_metric,
    newest_of_each,
    order_again,
    params_of,
)
from detection.training_queue import TrainingBusyError
from detection.training_run import MIN_ROWS, Order, Outcome, Promote, run
from streams.audited_command import AuditedCommand
from streams.connectors.options import count, duration_us
from streams.models import Stream
from streams.vectors import is_vector


class Command(AuditedCommand):
    """Trains now, whatever the schedule says."""

    help = "Train a model from the history of a topic and store it; the first one scores at once."
    requires_system_checks: tuple[str, ...] = ()  # they import every page: a slower start

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--stream", metavar="NAME", help="default: the only one there is")
        parser.add_argument("--metric", metavar="NAME", help="default: one model for all of them")
        parser.add_argument("--algorithm", choices=sorted(MODEL_DETECTORS),
                            help="default: isolation_forest")  # fmt: skip
        parser.add_argument(
            "--since", type=duration_us, metavar="2d", help="arrived since then; default: all"
        )
        parser.add_argument("--seed", type=_seed, metavar="N")
        parser.add_argument(
            "--features", choices=FEATURE_SETS, metavar="SET",
            help=f"what it learns from: {', '.join(FEATURE_SETS)}; default: as before, first all",
        )  # fmt: skip
        parser.add_argument("--min-rows", type=count, default=MIN_ROWS)
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--retrain", action="store_true",
            help="the next version of every model there is, or of those that --stream, --metric "
            "and --algorithm name, with the settings of its newest version",
        )  # fmt: skip
        what.add_argument("--cancel", type=count, metavar="ID", help="end a training run instead")
        after = parser.add_mutually_exclusive_group()
        after.add_argument(
            "--promote", action="store_true",
            help="ask the gate at once; default: only the first model scores by itself",
        )  # fmt: skip
        after.add_argument("--no-promote", action="store_true", help="not even the first one")

    def handle(self, *args: Any, **given: Any) -> None:
        if given["cancel"] is not None:
            self._cancel(given["cancel"])
            return
        orders = _again(given) if given["retrain"] else [_new(given)]
        client = settings.VIGIL.kafka.quiet_client_config()
        failed = []
        try:
            with training_queue.lease():
                for order in orders:
                    outcome = run(order, client)
                    if outcome.model is None:
                        failed.append(f"{order.algorithm} of {order.stream.name}: "
                                      f"{outcome.run.reason}")  # fmt: skip
                    self._report(outcome, self._promoted(outcome) if given["promote"] else "")
        except TrainingBusyError as error:
            raise CommandError(str(error)) from error
        if failed:
            said = "no model was trained"
            if len(failed) < len(orders):
                said = f"{len(failed)} of {len(orders)} models were not trained"
            raise CommandError(f"{said}: {'; '.join(failed)}")

    def _cancel(self, identity: int) -> None:
        try:
            record = training_queue.cancel(identity, actor())
        except TrainingRun.DoesNotExist:
            raise CommandError(f"there is no training run with the id {identity}") from None
        except TransitionRefused as error:
            raise CommandError(str(error)) from error
        waiting = record.status == TrainingRun.Status.CANCELLED
        self.stdout.write(
            f"training run {identity} is cancelled"
            if waiting
            else f"training run {identity} is asked to end, which it does within seconds"
        )

    def _promoted(self, outcome: Outcome) -> str:
        """What the gate says of a version that waits; empty where it lets it pass."""
        if outcome.model is None or outcome.promoted:
            return ""
        try:
            promotion.promote(outcome.model.pk, actor=actor())
        except promotion.GateFailed as error:
            return " ".join(error.verdict.reasons)
        outcome.model.refresh_from_db(fields=["state"])
        return ""

    def _report(self, outcome: Outcome, refused: str) -> None:
        model, rows = outcome.model, outcome.rows
        if model is None or rows is None:
            return
        found = model.manifest
        metrics = found.get("metrics", {})
        state = "champion: running consumers take it up within seconds"
        if model.state != ModelVersion.State.CHAMPION:
            state = f"candidate: `manage.py promote {model.pk}` asks the gate to make it champion"
        if refused:
            state = (
                f"candidate: the gate does not let it pass. {refused} `manage.py promote "
                f"{model.pk} --anyway --reason TEXT` promotes it all the same"
            )
        lines = {
            "model": f"{model_store.describe(model)}, id {model.pk}",
            "run": str(outcome.run.pk),
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


def _new(given: dict[str, Any]) -> Order:
    stream = _stream(given["stream"])
    metric, algorithm = given["metric"] or "", given["algorithm"] or "isolation_forest"
    if metric:
        try:
            check_metric(stream, metric)
        except OrderRefused as error:
            raise CommandError(
                f"--metric {metric}: stream {stream.name} has no such metric. There are: "
                f"{error.allowed}"
            ) from error
    order = Order(stream=stream, algorithm=algorithm, metric=metric,
                  params=params_of(settings.VIGIL, algorithm))  # fmt: skip
    return _as_asked(order, given)


def _again(given: dict[str, Any]) -> list[Order]:
    if given["stream"] is not None:
        _stream(given["stream"])
    newest = newest_of_each(given["stream"], given["metric"], given["algorithm"])
    if not newest:
        raise CommandError(
            "there is no such model to train again; `manage.py models` lists them, and "
            "`manage.py train` without --retrain makes the first"
        )
    return [_as_asked(order_again(row), given) for row in newest]


def _as_asked(order: Order, given: dict[str, Any]) -> Order:
    promote: Promote = "never" if given["no_promote"] else "first"
    since, features = given["since"], given["features"]
    if features is not None and is_vector(order.metric):
        raise CommandError("--features: a model of wide events always learns from all values")
    return replace(
        order,
        promote=promote,
        since=order.since if since is None else dt.timedelta(microseconds=since),
        seed=order.seed if given["seed"] is None else given["seed"],
        min_rows=given["min_rows"],
        params=order.params if features is None else {**order.params, "features": features},
        share=1.0,  # a person waits
    )


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise ArgumentTypeError(f"{text!r} is no seed: a whole number from 0 to {2**32 - 1:,}")
    return int(text)


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
