"""Keeps trained models: numbered versions, one champion each, bytes checked at every load."""

from __future__ import annotations

import datetime as dt

from django.db import transaction
from django.db.models import Max, QuerySet

from detection.base import ModelDetector
from detection.errors import ArtefactCorrupt, ArtefactError
from detection.models import ModelVersion, TrainingRun
from detection.training import Trained, restore
from streams.models import Stream


def save(
    trained: Trained,
    *,
    stream: Stream,
    algorithm: str,
    metric: str = "",
    run: TrainingRun | None = None,
) -> ModelVersion:
    """Store a model as the next version, a candidate; its parent is the champion of now."""
    with transaction.atomic():
        Stream.objects.select_for_update().get(pk=stream.pk)  # one numbering at a time
        line = ModelVersion.objects.filter(stream=stream, metric=metric, algorithm=algorithm)
        last = line.aggregate(last=Max("version"))["last"] or 0
        return ModelVersion.objects.create(
            stream=stream,
            metric=metric,
            algorithm=algorithm,
            version=last + 1,
            sha256=trained.sha256,
            artefact=trained.payload,
            manifest=trained.manifest,
            run=run,
            parent=line.filter(state=ModelVersion.State.CHAMPION).defer("artefact").first(),
        )


def promote(identity: int, now: dt.datetime | None = None) -> ModelVersion:
    """Make a version the champion of its stream, metric and algorithm; the old one retires.

    Consumers take it up by themselves. It is loaded once before, so that no champion is broken.

    Raises:
        ModelVersion.DoesNotExist: no such version.
        ArtefactError: it can't be loaded; everything stays as it was.
    """
    now = now or dt.datetime.now(dt.UTC)
    row, _ = load(identity)
    with transaction.atomic():
        Stream.objects.select_for_update().get(pk=row.stream_id)
        line = ModelVersion.objects.filter(
            stream=row.stream_id, metric=row.metric, algorithm=row.algorithm
        )
        current = line.filter(state=ModelVersion.State.CHAMPION)
        if not current.filter(pk=identity).exists():
            current.update(state=ModelVersion.State.RETIRED, retired_at=now)
            line.filter(pk=identity).update(
                state=ModelVersion.State.CHAMPION, promoted_at=now, retired_at=None
            )
    return ModelVersion.objects.defer("artefact").get(pk=identity)


def load(identity: int) -> tuple[ModelVersion, ModelDetector]:
    """A stored version and its detector, ready to score.

    Raises:
        ModelVersion.DoesNotExist: no such version.
        ArtefactError: its bytes or manifest are not those that were stored, or it was made for
            another version of Vigil; the message names the model.
    """
    row = ModelVersion.objects.select_related("stream").get(pk=identity)
    try:
        detector, manifest = restore(bytes(row.artefact), row.sha256)
        if manifest.get("detector") != row.algorithm:
            raise ArtefactCorrupt(f"the bytes hold a {manifest.get('detector')!r}: retrain it")
    except ArtefactError as error:
        raise type(error)(f"{describe(row)}: {error}") from error
    return row, detector


def champions(stream: Stream) -> QuerySet[ModelVersion]:
    """What scores this stream now, without the artefacts."""
    return (
        ModelVersion.objects.filter(stream=stream, state=ModelVersion.State.CHAMPION)
        .defer("artefact")
        .order_by("algorithm", "metric")
    )


def champion(stream: Stream, metric: str, algorithm: str) -> ModelVersion | None:
    """The champion of exactly this metric, without the artefact."""
    return champions(stream).filter(metric=metric, algorithm=algorithm).first()


def describe(row: ModelVersion) -> str:
    """`isolation_forest v3 of raw-data (every metric)`."""
    return f"{row.algorithm} v{row.version} of {row.stream.name} ({row.metric or 'every metric'})"
