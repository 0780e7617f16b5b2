"""One training from the topic's history to a stored model, recorded whatever becomes of it.

Only one runs at a time in the whole installation: a lease in PostgreSQL that dies with its holder.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from django.db import connection

from detection import bins, model_store
from detection.detectors.vector_kernel import TRAIN
from detection.errors import DetectionError, NotEnoughData
from detection.history import (
    MAX_EVENTS,
    MAX_ROWS,
    Interval,
    TrainingRows,
    feature_rows,
    read_events,
)
from detection.models import ModelVersion, TrainingRun
from detection.scoring import TRUSTED_AFTER
from detection.training import train
from streams.clock import from_us
from streams.codec import Codec
from streams.errors import StreamsError
from streams.models import Stream
from streams.series import SeriesIndex
from streams.vectors import is_vector

LEASE = 724_102  # of PostgreSQL's advisory locks; rollups use 724101
MIN_ROWS = 1_000

Promote = Literal["first", "always", "never"]


class TrainingBusyError(DetectionError):
    """Retry later: another training holds the lease."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to train. ``since`` counts by when events arrived in the topic."""

    stream: Stream
    algorithm: str = "isolation_forest"
    metric: str = ""
    since: dt.timedelta | None = None
    promote: Promote = "first"
    seed: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)
    exclude: Sequence[Interval] = ()
    min_rows: int = MIN_ROWS
    max_rows: int = MAX_ROWS
    max_events: int = MAX_EVENTS
    share: float = 0.5  # of the time it may read; the rest is the consumer's


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an order; without a model ``run.reason`` says why."""

    run: TrainingRun
    model: ModelVersion | None = None
    rows: TrainingRows | None = None
    promoted: bool = False
    took_s: float = 0.0


@contextmanager
def lease() -> Iterator[None]:
    """Hold the one right to train; whoever held it when its process died is marked failed.

    Raises:
        TrainingBusyError: another process trains.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [LEASE])
        (got,) = cursor.fetchone()
    if not got:
        raise TrainingBusyError("another training is running; wait for it to end")
    try:
        TrainingRun.objects.filter(status=TrainingRun.Status.RUNNING).update(
            status=TrainingRun.Status.FAILED,
            reason="the worker ended before the training did",
            finished_at=dt.datetime.now(dt.UTC),
        )
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LEASE])


def run(order: Order, client: Mapping[str, Any], now: dt.datetime | None = None) -> Outcome:
    """Train as ordered and store the model; call it with the lease held.

    Too little history skips the run, and what goes wrong on the way fails it: both are told in the
    run's row, not raised. Anything else is recorded and raised.
    """
    now = now or dt.datetime.now(dt.UTC)
    began = time.monotonic()
    record = TrainingRun.objects.create(
        stream=order.stream,
        metric=order.metric,
        algorithm=order.algorithm,
        params={"seed": order.seed, **order.params},
    )
    rows: TrainingRows | None = None
    try:
        rows = _rows(order, client, now)
        _check_enough(rows, order)
        trained = train(
            order.algorithm,
            rows.features,
            seed=order.seed,
            most_rows=order.max_rows,
            params=order.params,
            provenance=_provenance(order, rows),
            columns=rows.columns,
            space=rows.space,
        )
    except NotEnoughData as error:
        _finish(record, TrainingRun.Status.SKIPPED, str(error), rows)
        return Outcome(record, rows=rows, took_s=time.monotonic() - began)
    except (DetectionError, StreamsError, ValueError) as error:
        _finish(record, TrainingRun.Status.FAILED, str(error), rows)
        return Outcome(record, rows=rows, took_s=time.monotonic() - began)
    except BaseException as error:
        _finish(record, TrainingRun.Status.FAILED, f"{type(error).__name__}: {error}", rows)
        raise
    model = model_store.save(
        trained, stream=order.stream, algorithm=order.algorithm, metric=order.metric, run=record
    )
    promoted = order.promote == "always" or (order.promote == "first" and model.parent_id is None)
    if promoted:
        model = model_store.promote(model.pk)
    _finish(record, TrainingRun.Status.DONE, "", rows)
    return Outcome(record, model, rows, promoted, time.monotonic() - began)


def _rows(order: Order, client: Mapping[str, Any], now: dt.datetime) -> TrainingRows:
    stream = order.stream
    index = SeriesIndex()
    codec = Codec(index, stream.mapping, stream.naive_time_zone or None)
    since_us = None if order.since is None else round((now - order.since).timestamp() * 1e6)
    events = read_events(
        client,
        stream.topic,
        codec,
        since_us=since_us,
        max_events=order.max_events,
        share=order.share,
        metric=order.metric,
    )
    return feature_rows(
        events,
        index,
        metric=order.metric,
        time_zone=stream.time_zone,
        exclude=order.exclude,
        max_rows=order.max_rows,
        seed=order.seed,
    )


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
    if rows.space == "series":  # drift is watched of the features that every series has
        found["distributions"] = bins.distributions(rows.features, rows.metric, rows.metrics)
    return found


def _finish(record: TrainingRun, status: str, reason: str, rows: TrainingRows | None) -> None:
    record.status, record.reason = status, reason
    if rows is not None:
        record.rows = len(rows)
        record.params["events"] = sum(end - start for start, end in rows.ranges.values())
    record.finished_at = dt.datetime.now(dt.UTC)
    record.save(update_fields=["status", "reason", "rows", "params", "finished_at"])
