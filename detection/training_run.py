"""One training from the topic's history to a stored model, recorded whatever becomes of it.

The record shows stage and progress while it runs, and is asked each second whether somebody wants
the end of it. A model and the word that its run is done are stored in one transaction.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from django.db import transaction

from detection import bins, fit_process, model_store
from detection.detectors.vector_kernel import TRAIN
from detection.errors import DetectionError, NotEnoughData, TrainingCancelled, TrainingLost
from detection.history import (
    MAX_EVENTS,
    MAX_ROWS,
    Interval,
    TrainingRows,
    feature_rows,
    left_out,
    read_events,
)
from detection.models import ModelVersion, TrainingRun
from detection.scoring import TRUSTED_AFTER
from detection.training import Trained, restore
from streams.batch import EventBatch
from streams.clock import from_us
from streams.codec import Codec
from streams.errors import StreamsError
from streams.models import Stream
from streams.series import SeriesIndex
from streams.vectors import is_vector

MIN_ROWS = 1_000
WRITE_S = 1.0  # between two looks at the record
# Where the stages begin on the way from 0 to 1: reading takes by far the longest.
STAGES = {"reading": 0.0, "features": 0.7, "fitting": 0.75, "testing": 0.9, "storing": 0.95}

Promote = Literal["first", "never"]  # whether the first model of a line scores at once
Status = TrainingRun.Status


@dataclass(frozen=True, slots=True)
class Order:
    """What to train. ``since`` counts by when events arrived in the topic.

    ``exclude`` are times that no model may learn; None asks for those of the day of the training.
    """

    stream: Stream
    algorithm: str = "isolation_forest"
    metric: str = ""
    since: dt.timedelta | None = None
    promote: Promote = "first"
    seed: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)
    exclude: Sequence[Interval] | None = None
    min_rows: int = MIN_ROWS
    max_rows: int = MAX_ROWS
    max_events: int = MAX_EVENTS
    share: float = 0.5  # of the time it may read; the rest is the consumer's
    study: Mapping[str, Any] = field(
        default_factory=dict
    )  # that found ``params``, for the manifest

    def as_json(self) -> dict[str, Any]:
        """All that is needed to run it again, but what is left out: that is asked anew."""
        return {
            "stream": self.stream.name,
            "algorithm": self.algorithm,
            "metric": self.metric,
            "since_s": None if self.since is None else self.since.total_seconds(),
            "promote": self.promote,
            "seed": self.seed,
            "params": dict(self.params),
            "min_rows": self.min_rows,
            "max_rows": self.max_rows,
            "max_events": self.max_events,
            "share": self.share,
            **({"study": dict(self.study)} if self.study else {}),
        }


def order_of(record: TrainingRun) -> Order:
    """The order a run was made for; what its row does not say is as by default.

    Raises:
        ValueError: its stream is gone.
    """
    said: dict[str, Any] = record.order
    if record.stream is None:
        raise ValueError(f"run {record.pk} names no stream")
    since, promote = said.get("since_s"), said.get("promote", "first")
    usual = Order(record.stream)
    return Order(
        stream=record.stream,
        algorithm=record.algorithm,
        metric=record.metric,
        since=None if since is None else dt.timedelta(seconds=since),
        promote=promote if promote in get_args(Promote) else "first",
        seed=int(said.get("seed", 0)),
        params=said.get("params", {}),
        min_rows=int(said.get("min_rows", usual.min_rows)),
        max_rows=int(said.get("max_rows", usual.max_rows)),
        max_events=int(said.get("max_events", usual.max_events)),
        share=min(float(said.get("share", usual.share)), usual.share),  # nobody waits any more
        study=said.get("study", {}),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an order; without a model ``run.reason`` says why."""

    run: TrainingRun
    model: ModelVersion | None = None
    rows: TrainingRows | None = None
    promoted: bool = False
    took_s: float = 0.0


class Progress:
    """Writes a run's stage and progress at most each second, and hears then of its end.

    ``stop`` says why whoever ordered it wants it to end, or nothing.
    """

    def __init__(
        self,
        record: TrainingRun,
        every_s: float = WRITE_S,
        monotonic: Callable[[], float] = time.monotonic,
        stop: Callable[[], str] = lambda: "",
    ) -> None:
        self._record = record
        self._every_s = every_s
        self._stop = stop
        self._monotonic = monotonic
        self._next = monotonic()
        self.stage = ""

    def __call__(self, stage: str, done: float = 0.0) -> None:
        """``done`` 0 to 1 within the stage.

        Raises:
            TrainingCancelled: somebody asked for the end, or ``stop`` did.
            TrainingLost: the run was given up meanwhile.
        """
        now = self._monotonic()
        if now < self._next and stage == self.stage:
            return
        self.stage, self._next = stage, now + self._every_s
        starts = [*STAGES.values(), 1.0]
        at = list(STAGES).index(stage)
        part = starts[at] + min(max(done, 0.0), 1.0) * (starts[at + 1] - starts[at])
        mine = TrainingRun.objects.filter(pk=self._record.pk, status=Status.RUNNING)
        moved = mine.update(stage=stage, progress=part, heartbeat_at=dt.datetime.now(dt.UTC))
        if not moved:
            raise TrainingLost(f"run {self._record.pk} was given up meanwhile")
        if mine.filter(cancel_requested=True).exists():
            raise TrainingCancelled(f"cancelled while {stage}")
        if reason := self._stop():
            raise TrainingCancelled(f"{reason} while {stage}")


def run(
    order: Order,
    client: Mapping[str, Any],
    now: dt.datetime | None = None,
    *,
    record: TrainingRun | None = None,
    trigger: str = TrainingRun.Trigger.COMMAND,
    stop: Callable[[], str] = lambda: "",
) -> Outcome:
    """Train as ordered and store the model; call it with the lease held.

    ``record`` is the run's row where there is one, already marked as running; ``stop`` is asked
    each second why it should end early. Too little history
    skips the run, a wish cancels it, and what goes wrong on the way fails it: all are told in the
    run's row, not raised. Anything else is recorded and raised.
    """
    now = now or dt.datetime.now(dt.UTC)
    began = time.monotonic()
    if record is None:
        record = TrainingRun.objects.create(
            stream=order.stream, metric=order.metric, algorithm=order.algorithm,
            order=order.as_json(), trigger=trigger, heartbeat_at=now,
        )  # fmt: skip
    record.params = {"seed": order.seed, **order.params}
    rows: TrainingRows | None = None
    progress = Progress(record, stop=stop)

    def ended(status: str, reason: str) -> Outcome:
        _finish(record, status, reason, rows)
        return Outcome(record, rows=rows, took_s=time.monotonic() - began)

    try:
        rows = _rows(order, client, now, progress)
        _check_enough(rows, order)
        trained = _fit(order, rows, progress)
        progress("storing")
        model, promoted = _store(order, trained, record, rows)
    except TrainingCancelled as error:
        return ended(Status.CANCELLED, str(error))
    except TrainingLost:
        record.refresh_from_db()
        return Outcome(record, rows=rows, took_s=time.monotonic() - began)
    except NotEnoughData as error:
        return ended(Status.SKIPPED, str(error))
    except (DetectionError, StreamsError, ValueError) as error:
        return ended(Status.FAILED, str(error))
    except BaseException as error:
        _finish(record, Status.FAILED, f"{type(error).__name__}: {error}", rows)
        raise
    return Outcome(record, model, rows, promoted, time.monotonic() - began)


def _rows(
    order: Order, client: Mapping[str, Any], now: dt.datetime, progress: Progress
) -> TrainingRows:
    stream = order.stream
    index = SeriesIndex()
    codec = Codec(index, stream.mapping, stream.naive_time_zone or None)
    since_us = None if order.since is None else round((now - order.since).timestamp() * 1e6)
    progress("reading")
    events = read_events(
        client,
        stream.topic,
        codec,
        since_us=since_us,
        max_events=order.max_events,
        share=order.share,
        metric=order.metric,
        told=lambda done: progress("reading", done),
    )
    return feature_rows(
        _with_last_stage(events, progress),
        index,
        metric=order.metric,
        time_zone=stream.time_zone,
        exclude=left_out(stream.name) if order.exclude is None else order.exclude,
        max_rows=order.max_rows,
        seed=order.seed,
    )


def _with_last_stage(events: Iterator[EventBatch], progress: Progress) -> Iterator[EventBatch]:
    yield from events
    progress("features")


def _fit(order: Order, rows: TrainingRows, progress: Progress) -> Trained:
    payload = fit_process.fit(
        order.algorithm,
        rows.features,
        progress,
        {
            "seed": order.seed,
            "most_rows": order.max_rows,
            "params": dict(order.params),
            "provenance": _provenance(order, rows),
            "columns": list(rows.columns),
            "space": rows.space,
        },
    )
    sha256 = fit_process.hash_of(payload)
    detector, manifest = restore(payload, sha256)
    return Trained(detector, manifest, payload, sha256)


def _store(
    order: Order, trained: Trained, record: TrainingRun, rows: TrainingRows
) -> tuple[ModelVersion, bool]:
    """All or nothing: the model, its promotion, and the word that the run is done."""
    with transaction.atomic():
        held = TrainingRun.objects.select_for_update().get(pk=record.pk)
        if held.status != Status.RUNNING:
            raise TrainingLost(f"run {record.pk} was given up meanwhile")
        if held.cancel_requested:
            raise TrainingCancelled("cancelled before it was stored")
        why = model_store.goes_live(order.stream, order.metric, order.algorithm)
        model = model_store.save(
            trained, stream=order.stream, algorithm=order.algorithm, metric=order.metric,
            run=record,
        )  # fmt: skip
        promoted = order.promote == "first" and bool(why)
        if promoted:
            model = model_store.promote(model.pk, reason=why)
        _finish(record, Status.DONE, "", rows)
    return model, promoted


def _check_enough(rows: TrainingRows, order: Order) -> None:
    missing = order.min_rows - len(rows)
    if missing <= 0:
        return
    where = f"topic {order.stream.topic}" + (f", metric {order.metric}" if order.metric else "")
    warm_up = TRAIN if is_vector(order.metric) else TRUSTED_AFTER
    if rows.events == 0:
        raise NotEnoughData(f"{where} has no events to train on")
    raise NotEnoughData(
        f"{missing:,} more rows are needed: {where} gives {len(rows):,} of {order.min_rows:,} "
        f"({rows.events:,} events of {rows.series:,} series were read; the first {warm_up} of each "
        f"series only warm it up, {rows.excluded:,} lie in confirmed anomalies)"
    )


def _provenance(order: Order, rows: TrainingRows) -> dict[str, Any]:
    found = {
        "stream": order.stream.name,
        "topic": order.stream.topic,
        "metric": order.metric,
        "time_zone": order.stream.time_zone,
        "since_s": None if order.since is None else order.since.total_seconds(),
        "events": rows.events,
        "series": rows.series,
        "events_warming": rows.warming,
        "events_in_anomalies": rows.excluded,
        "events_sampled_out": rows.sampled_out,
        "first_event": from_us(int(rows.time_us[0])).isoformat(),
        "last_event": from_us(int(rows.time_us[-1])).isoformat(),
        "offsets": {str(p): [start, end] for p, (start, end) in rows.ranges.items()},
        "feature_means": dict(
            zip(rows.columns, rows.features.mean(axis=0).round(6).tolist(), strict=True)
        ),
    }
    if order.study:
        found["study"] = dict(order.study)
    columns = rows.columns if rows.space == "series" else bins.value_keys(len(rows.columns))
    found["distributions"] = bins.distributions(rows.features, rows.metric, rows.metrics, columns)
    return found


def _finish(record: TrainingRun, status: str, reason: str, rows: TrainingRows | None) -> None:
    """Only a run that still runs ends; one that was given up meanwhile stays as it is."""
    record.status = status
    if rows is not None:
        record.rows = len(rows)
        record.params["events"] = sum(end - start for start, end in rows.ranges.values())
    record.finished_at = dt.datetime.now(dt.UTC)
    changed: dict[str, Any] = {
        "status": status, "rows": record.rows, "params": record.params,
        "finished_at": record.finished_at, "heartbeat_at": record.finished_at,
    }  # fmt: skip
    if status == Status.CANCELLED:
        record.refresh_from_db(fields=["reason"])  # says already by whom
        reason = f"{record.reason}, {reason.removeprefix('cancelled ')}".removeprefix(", ")
    if status == Status.DONE:
        changed |= {"progress": 1.0, "stage": ""}
    record.reason = reason
    TrainingRun.objects.filter(pk=record.pk, status=Status.RUNNING).update(**changed, reason=reason)
