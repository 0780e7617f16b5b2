"""Made series as recordings, and the models and detectors that evaluations may ask for."""

from __future__ import annotations

from datetime import UTC, datetime

from config.schema import VigilConfig
from config.wiring import load_model
from detection.base import FloatArray, IntArray
from detection.evaluation import Recording
from detection.scoring import LoadedModel


def recording_of(category: str, name: str, time_s: IntArray, value: FloatArray) -> Recording:
    """A made series, as if it had been read from a file."""
    times = tuple(datetime.fromtimestamp(second, UTC) for second in time_s.tolist())
    return Recording(category, name, tuple(time.isoformat() for time in times), times, value)


def loaded(model: int | None) -> list[LoadedModel]:
    """The stored model of this number, for all metrics; none where none is asked for."""
    if model is None:
        return []
    found = load_model(model)
    return [LoadedModel(found.algorithm, "", found.version, found.sha256, found.detector)]


def section_of_all(config: VigilConfig) -> VigilConfig:
    """The configuration with every detector switched on."""
    detection = config.anomaly_detection
    sections = detection.detectors
    on = sections.model_copy(
        update={
            name: getattr(sections, name).model_copy(update={"enabled": True})
            for name in type(sections).model_fields
        }
    )
    return config.model_copy(
        update={"anomaly_detection": detection.model_copy(update={"detectors": on})}
    )
