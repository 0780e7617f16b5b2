"""Made series as recordings, and who scores them: what several kinds of evaluation share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser

from config.offline import OfflineScorer
from config.schema import STATISTICAL_METHODS, VigilConfig
from config.wiring import load_model
from detection import shapes
from detection.base import FloatArray, IntArray
from detection.errors import DetectionError
from detection.evaluation import Recording
from detection.scoring import LoadedModel


def add_arguments(parser: CommandParser) -> None:
    """Which detectors score."""
    parser.add_argument(
        "--all-detectors", action="store_true", help="switches on what the configuration leaves off"
    )
    parser.add_argument(
        "--no-models", dest="models", action="store_false", help="only what learns online"
    )
    parser.add_argument(
        "--model", type=int, metavar="ID", help="scores with this stored model; keeps the figures"
    )


def add_shapes(parser: CommandParser, *, seeds: int, events: int) -> None:
    """How many series of which of the twenty shapes, with these defaults."""
    parser.add_argument(
        "--seeds", type=int, default=seeds, metavar="N", help=f"series a shape ({seeds})"
    )
    parser.add_argument(
        "--events", type=int, default=events, metavar="N", help=f"events a series ({events:,})"
    )
    parser.add_argument(
        "--shape",
        dest="shapes",
        action="append",
        choices=list(shapes.SHAPES),
        metavar="NAME",
        help="only this one; repeatable",
    )


def chosen_shapes(options: dict[str, Any]) -> list[str]:
    """Those that `add_shapes` let somebody choose, else all."""
    return options["shapes"] or list(shapes.SHAPES)


def scorer(config: VigilConfig, options: dict[str, Any]) -> OfflineScorer:
    """As the options of `add_arguments` ask.

    Raises:
        CommandError: the model can't be loaded.
    """
    if options["all_detectors"]:
        config = with_all_detectors(config)
    try:
        given = _loaded(options["model"])
    except DetectionError as error:
        raise CommandError(str(error)) from error
    return OfflineScorer(config, models=options["models"], limited=False, given=given)


def shape_recording(name: str, seed: int, events: int) -> Recording:
    """One of the twenty shapes."""
    shape = shapes.make(name, seed, events)
    return recording_of("shapes", f"{name}-{seed}", shape.time_s, shape.value)


def recording_of(category: str, name: str, time_s: IntArray, value: FloatArray) -> Recording:
    """A made series, as if it had been read from a file."""
    times = tuple(datetime.fromtimestamp(second, UTC) for second in time_s.tolist())
    return Recording(category, name, tuple(time.isoformat() for time in times), times, value)


def with_all_detectors(config: VigilConfig) -> VigilConfig:
    """The configuration with every detector switched on."""
    detection = config.anomaly_detection
    sections = detection.detectors
    on = sections.model_copy(
        update={
            name: getattr(sections, name).model_copy(update={"enabled": True})
            for name in type(sections).model_fields
        }
    )
    on = on.model_copy(
        update={"statistical": on.statistical.model_copy(update={"method": STATISTICAL_METHODS})}
    )
    return config.model_copy(
        update={"anomaly_detection": detection.model_copy(update={"detectors": on})}
    )


def _loaded(model: int | None) -> list[LoadedModel]:
    """The stored model of this number, for all metrics; none where none is asked for."""
    if model is None:
        return []
    found = load_model(model)
    return [LoadedModel(found.algorithm, "", found.version, found.sha256, found.detector)]
