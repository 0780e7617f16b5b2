"""Keeps trained models: numbered versions, one champion and one challenger each, bytes checked
at every load, and every change of a state recorded with who made it and why.

candidate → challenger → champion → retired; each may be skipped, and a retired version may come
back. Whatever is to score is loaded first, in the same transaction: a broken one never counts.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.db.models import Max, Q, QuerySet

from detection.base import RowScorer
from detection.errors import (
    ArtefactCorrupt,
    ArtefactError,
    ArtefactIncompatible,
    TransitionRefused,
)
from detection.models import ModelTransition, ModelVersion, TrainingRun
from detection.training import Trained, restore
from streams import audit
from streams.audit import Action
from streams.models import Stream

SYSTEM = "vigil"  # the actor where no person asked
State = ModelVersion.State


@dataclass(frozen=True, slots=True)
class RolledBack:
    """Which champion left, and which one came back in its place, if any."""

    left: ModelVersion | None
    back: ModelVersion | None


def save(
    trained: Trained,
    *,
    stream: Stream,
    algorithm: str,
    metric: str = "",
    run: TrainingRun | None = None,
    actor: str = SYSTEM,
) -> ModelVersion:
    """Store a model as the next version, a candidate; its parent is the champion of now."""
    with transaction.atomic():
        _lock(stream.pk)  # one numbering at a time
        line = line_of(stream, metric, algorithm)
        last = line.aggregate(last=Max("version"))["last"] or 0
        row = ModelVersion.objects.create(
            stream=stream,
            metric=metric,
            algorithm=algorithm,
            version=last + 1,
            sha256=trained.sha256,
            artefact=trained.payload,
            manifest=trained.manifest,
            run=run,
            parent=line.filter(state=State.CHAMPION).first(),
        )
        reason = "trained" if run is None else f"trained by run {run.pk}"
        ModelTransition.objects.create(model=row, to_state=row.state, actor=actor, reason=reason)
    return row


def promote(
    identity: int, now: dt.datetime | None = None, *, actor: str = SYSTEM, reason: str = ""
) -> ModelVersion:
    """Make a version the champion of its stream, metric and algorithm; the old one retires.

    Consumers take it up by themselves. The champion of now stays as it is.

    Raises:
        ModelVersion.DoesNotExist: no such version.
        ArtefactError: it can't be loaded; everything stays as it was.
    """
    with transaction.atomic():
        row = _held(identity)
        if row.state != State.CHAMPION:
            _check_loads(row)
            _crown(row, now or _now(), actor, reason)
            _watch(row, now or _now())
    return row


def challenge(
    identity: int, now: dt.datetime | None = None, *, actor: str = SYSTEM, reason: str = ""
) -> ModelVersion:
    """Let a version score beside the champion; the challenger of before is a candidate again.

    Raises:
        ModelVersion.DoesNotExist: no such version.
        ArtefactError: it can't be loaded; everything stays as it was.
        TransitionRefused: it is the champion.
    """
    now = now or _now()
    with transaction.atomic():
        row = _held(identity)
        if row.state == State.CHAMPION:
            raise TransitionRefused(
                f"{describe(row)} is the champion, which can't challenge itself: challenge another "
                "version, or roll back first"
            )
        if row.state != State.CHALLENGER:
            _check_loads(row)
            line = line_of(row.stream, row.metric, row.algorithm)
            with _audited(row, actor, reason):
                for other in line.filter(state=State.CHALLENGER):
                    _move(other, State.CANDIDATE, now, actor, f"v{row.version} challenges instead")
                _move(row, State.CHALLENGER, now, actor, reason)
    return row


def retire(
    identity: int, now: dt.datetime | None = None, *, actor: str = SYSTEM, reason: str = ""
) -> ModelVersion:
    """Take a version out of use; after a champion, its line scores without a stored model.

    Raises:
        ModelVersion.DoesNotExist: no such version.
    """
    with transaction.atomic():
        row = _held(identity)
        if row.state != State.RETIRED:
            with _audited(row, actor, reason):
                _move(row, State.RETIRED, now or _now(), actor, reason)
    return row


def roll_back(
    stream: Stream,
    metric: str,
    algorithm: str,
    *,
    actor: str = SYSTEM,
    reason: str = "",
    to_none: bool = False,
    away_from: int | None = None,
    now: dt.datetime | None = None,
) -> RolledBack:
    """Make the champion before the present one champion again, or none where none was before.

    Rolled back twice, it is the one before that: a version that was left never comes back so.
    ``away_from`` names the champion to leave: asked twice, it is done once.

    Raises:
        TransitionRefused: there is neither a champion nor one before, or `away_from` is none.
        ArtefactError: the one before can't be loaded; everything stays as it was.
    """
    now = now or _now()
    with transaction.atomic():
        _lock(stream.pk)
        left = champion(stream, metric, algorithm)
        if away_from is not None and (left is None or left.pk != away_from):
            is_now = f"v{left.version} is" if left else "there is none"
            raise TransitionRefused(f"this version is not the champion: {is_now}")
        back = None if to_none else previous_champion(stream, metric, algorithm)
        if left is None and back is None:
            raise TransitionRefused(
                f"{algorithm} of {stream.name} ({metric or 'every metric'}) has no champion to "
                "roll back, and had none before"
            )
        if back is not None:
            try:
                _check_loads(back)
            except ArtefactError as error:
                raise type(error)(
                    f"{error}. To score without a stored model instead, roll back to none"
                ) from error
            _crown(back, now, actor, reason or "rolled back")
        elif left is not None:
            with _audited(left, actor, reason or "rolled back to none"):
                _move(left, State.RETIRED, now, actor, reason or "rolled back to none")
    return RolledBack(left, back)


def previous_champion(stream: Stream, metric: str, algorithm: str) -> ModelVersion | None:
    """The champion that a rollback would bring back, without the artefact."""
    line = line_of(stream, metric, algorithm)
    changes = list(
        ModelTransition.objects.filter(model__in=line)
        .filter(Q(to_state=State.CHAMPION) | Q(from_state=State.CHAMPION))
        .order_by("pk")
        .values_list("model_id", "to_state")
    )
    crowned = {model for model, to in changes if to == State.CHAMPION}
    older = line.exclude(pk__in=crowned).exclude(promoted_at=None).order_by("promoted_at", "pk")
    present = champion(stream, metric, algorithm)
    before = came_before(
        older.values_list("pk", flat=True), changes, None if present is None else present.pk
    )
    return None if before is None else line.get(pk=before)


def came_before(
    unrecorded: Iterable[int], changes: Iterable[tuple[int, str]], present: int | None
) -> int | None:
    """Which version a rollback from ``present`` brings back.

    ``changes`` are (version, state after it) of all that made or unmade a champion, oldest first;
    ``unrecorded`` those that were champion before transitions were recorded, by their promotion.
    """
    stack = list(unrecorded)
    for model, to in changes:
        if to == State.CHAMPION:
            if model in stack:  # what came after it was left
                del stack[stack.index(model) :]
            stack.append(model)
        elif stack and stack[-1] == model:  # it left, and nobody took its place
            stack.pop()
    if present is not None and stack and stack[-1] == present:
        stack.pop()
    return stack[-1] if stack else None


def load(identity: int) -> tuple[ModelVersion, RowScorer]:
    """A stored version and its detector, ready to score.

    Raises:
        ModelVersion.DoesNotExist: no such version.
        ArtefactError: its bytes or manifest are not those that were stored, or it was made for
            another version of Vigil; the message names the model and the way out.
    """
    row = ModelVersion.objects.select_related("stream").get(pk=identity)
    try:
        detector, manifest = restore(bytes(row.artefact), row.sha256)
        if manifest.get("detector") != row.algorithm:
            raise ArtefactCorrupt(f"the bytes hold a {manifest.get('detector')!r}: retrain it")
    except ArtefactIncompatible as error:
        raise ArtefactIncompatible(f"{describe(row)}: {error}: `{retraining(row)}`") from error
    except ArtefactError as error:
        raise type(error)(f"{describe(row)}: {error}") from error
    return row, detector


def champions(stream: Stream) -> QuerySet[ModelVersion]:
    """What scores this stream now, without the artefacts."""
    return (
        ModelVersion.objects.filter(stream=stream, state=State.CHAMPION)
        .select_related("stream")
        .defer("artefact")
        .order_by("algorithm", "metric")
    )


def champion(stream: Stream, metric: str, algorithm: str) -> ModelVersion | None:
    """The champion of exactly this metric, without the artefact."""
    return champions(stream).filter(metric=metric, algorithm=algorithm).first()


def line_of(stream: Stream, metric: str, algorithm: str) -> QuerySet[ModelVersion]:
    """All versions that stand for one another, without the artefacts, the newest first."""
    return (
        ModelVersion.objects.filter(stream=stream, metric=metric, algorithm=algorithm)
        .select_related("stream")
        .defer("artefact")
        .order_by("-version")
    )


def is_sound(row: ModelVersion) -> bool:
    """Whether a version can be loaded here and now."""
    try:
        load(row.pk)
    except ArtefactError:
        return False
    return True


def was_live(stream: Stream, metric: str, algorithm: str) -> bool:
    """Whether any version of this line is or was champion."""
    return line_of(stream, metric, algorithm).exclude(promoted_at=None).exists()


def goes_live(stream: Stream, metric: str, algorithm: str) -> str:
    """Why the next version of this line may score without having passed the gate, else empty.

    The very first one has nothing to be held against, nor has one after a champion that can't be
    loaded. Where the champion was taken out or rolled back to none, somebody wanted it so.
    """
    present = champion(stream, metric, algorithm)
    if present is None:
        return "" if was_live(stream, metric, algorithm) else "the first model"
    return "" if is_sound(present) else f"v{present.version} can't be loaded"


def standing(row: ModelVersion) -> dict[str, object]:
    """The version's state, and who scores and who challenges in its line."""
    line = line_of(row.stream, row.metric, row.algorithm)
    found: dict[str, object] = {"state": str(row.state)}
    for state in (State.CHAMPION, State.CHALLENGER):
        held = line.filter(state=state).first()
        found[state.value] = f"v{held.version}" if held is not None else None
    return found


def describe(row: ModelVersion) -> str:
    """`isolation_forest v3 of raw-data (every metric)`."""
    return f"{row.algorithm} v{row.version} of {row.stream.name} ({row.metric or 'every metric'})"


def retraining(row: ModelVersion) -> str:
    """The command that trains the next version of this line."""
    metric = f" --metric {row.metric}" if row.metric else ""
    return (
        f"manage.py train --retrain --stream {row.stream.name} --algorithm {row.algorithm}{metric}"
    )


def _held(identity: int) -> ModelVersion:
    """The version without its artefact, its line locked until the transaction ends."""
    _lock(ModelVersion.objects.values_list("stream_id", flat=True).get(pk=identity))
    return ModelVersion.objects.select_related("stream").defer("artefact").get(pk=identity)


def _lock(stream: int) -> None:
    # No key: a consumer that stores anomalies of this stream meanwhile does not wait.
    Stream.objects.select_for_update(no_key=True).get(pk=stream)


def _check_loads(row: ModelVersion) -> None:
    load(row.pk)


def _crown(row: ModelVersion, now: dt.datetime, actor: str, reason: str) -> None:
    """Champion's and predecessor's change; in this order `previous_champion` reads them."""
    with _audited(row, actor, reason):
        before = champion(row.stream, row.metric, row.algorithm)
        if before is not None:
            _set(before, State.RETIRED, now)
        _move(row, State.CHAMPION, now, actor, reason)
        if before is not None:
            _record(before, State.CHAMPION, actor, f"v{row.version} took its place")


def _watch(row: ModelVersion, now: dt.datetime) -> None:
    """A newly promoted champion is watched by `detection.watch`; one that came back is not."""
    hours = settings.VIGIL.anomaly_detection.registry.watch_hours
    row.watch_until = now + dt.timedelta(hours=hours) if hours else None
    row.save(update_fields=["watch_until"])


def _move(row: ModelVersion, to: State, now: dt.datetime, actor: str, reason: str) -> None:
    was = row.state
    _set(row, to, now)
    _record(row, was, actor, reason)


def _set(row: ModelVersion, to: State, now: dt.datetime) -> None:
    row.state = to
    row.retired_at = now if to == State.RETIRED else None
    row.watch_until = None
    if to == State.CHAMPION:
        row.promoted_at = now
    elif to == State.CHALLENGER:
        row.challenged_at = now
    row.save(update_fields=["state", "retired_at", "promoted_at", "challenged_at", "watch_until"])


def _record(row: ModelVersion, was: str, actor: str, reason: str) -> None:
    ModelTransition.objects.create(
        model=row, from_state=was, to_state=row.state, actor=actor, reason=reason
    )


@contextmanager
def _audited(row: ModelVersion, actor: str, reason: str) -> Iterator[None]:
    """One entry for what happens meanwhile to a version and to its line."""
    before = standing(row)
    yield
    after = standing(row) | ({"reason": reason} if reason else {})
    audit.record(actor, Action.ACTED, row, before, after)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
