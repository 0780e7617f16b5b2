"""What to train, for whoever asks: by the settings, or as a model was trained before."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

from detection import model_store
from detection.history import MAX_EVENTS
from detection.models import ModelVersion, TrainingRun
from detection.registry import MODEL_DETECTORS
from detection.training_run import Order, order_of
from streams.models import Series, Stream


def params_of(config: Any, algorithm: str) -> dict[str, Any]:
    """The configuration's settings of a stored model; empty where it has none."""
    section = getattr(config.anomaly_detection.detectors, algorithm, None)
    return {} if section is None else section.model_dump(mode="json", exclude={"enabled"})


def new_order(
    config: Any, stream: Stream, algorithm: str, metric: str = "", *, seed: int = 0
) -> Order:
    """By the configuration; a champion that tuning found keeps the settings it was found with."""
    present = model_store.champion(stream, metric, algorithm)
    tuned = (
        present is not None
        and present.run is not None
        and present.run.trigger == TrainingRun.Trigger.TUNING
    )
    params = (
        dict(present.manifest["params"])
        if present is not None and tuned
        else params_of(config, algorithm)
    )
    return Order(stream=stream, algorithm=algorithm, metric=metric, seed=seed, params=params)


def order_again(newest: ModelVersion) -> Order:
    """The next version of a line, with the settings of its newest one."""
    if newest.run is not None and newest.run.order:
        order = order_of(newest.run)
        # A study may have had no time for all of the history.
        tuned = newest.run.trigger == TrainingRun.Trigger.TUNING
        return replace(order, max_events=MAX_EVENTS) if tuned else order
    manifest = newest.manifest
    since = manifest.get("since_s")
    return Order(
        stream=newest.stream,
        algorithm=newest.algorithm,
        metric=newest.metric,
        since=None if since is None else dt.timedelta(seconds=since),
        seed=int(manifest.get("seed", 0)),
        params=manifest.get("params", {}),
    )


def newest_of_each(
    stream: str | None = None, metric: str | None = None, algorithm: str | None = None
) -> list[ModelVersion]:
    """The newest version of every line that these names leave, without artefacts."""
    rows = ModelVersion.objects.select_related("stream", "run__stream").defer("artefact")
    if stream is not None:
        rows = rows.filter(stream__name=stream)
    if metric is not None:
        rows = rows.filter(metric=metric)
    if algorithm is not None:
        rows = rows.filter(algorithm=algorithm)
    line = ("stream_id", "metric", "algorithm")
    return list(rows.order_by(*line, "-version").distinct(*line))


class OrderRefused(ValueError):  # noqa: N818
    """What was asked for can't be trained: `field`, and what is allowed."""

    def __init__(self, field: str, message: str, allowed: str) -> None:
        super().__init__(message)
        self.field, self.allowed = field, allowed


def asked_for(stream: str, metric: str, algorithm: str) -> tuple[Stream, str, str]:
    """The stream's row, the metric and the algorithm that a form or a program named.

    Raises:
        OrderRefused: one of them does not exist.
    """
    algorithms = ", ".join(sorted(MODEL_DETECTORS))
    if algorithm not in MODEL_DETECTORS:
        raise OrderRefused("algorithm", f"{algorithm[:60]!r} is no stored model.", algorithms)
    rows = Stream.objects.order_by("name")
    # PostgreSQL's text has no NUL, so nothing has such a name.
    found = None if "\x00" in stream else rows.filter(name=stream).first()
    if found is None:
        named = ", ".join(rows.values_list("name", flat=True)[:50])
        raise OrderRefused(
            "stream", f"There is no stream {stream[:60]!r}.",
            named or "none yet: the consumer makes those of the settings",
        )  # fmt: skip
    if metric:
        check_metric(found, metric)
    return found, metric, algorithm


def check_metric(stream: Stream, metric: str) -> None:
    """OrderRefused where the stream has series, and none of this metric."""
    known = Series.objects.filter(stream=stream).order_by("metric")
    names = list(known.values_list("metric", flat=True).distinct()[:50])
    if "\x00" in metric or (
        names and metric not in names and not known.filter(metric=metric).exists()
    ):
        raise OrderRefused(
            "metric",
            f"stream {stream.name} has no metric {metric[:60]!r}.",
            ", ".join(names) or "empty: every metric",
        )
