"""Keeps learnt weights of a stream's ensemble; the set in use is part of its scoring version.

Consumers look every second, so a set counts within seconds, from the next batch on.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from typing import Any

from django.db import transaction

from detection.errors import TransitionRefused
from detection.models import LearntWeights
from detection.weights import Learnt
from streams import audit
from streams.audit import Action
from streams.models import Stream

ALARM = 0.8  # the score of an oddness of 1
State = LearntWeights.State


def save(
    stream: Stream,
    learnt: Learnt,
    *,
    metrics: Mapping[str, Any],
    settings: Mapping[str, Any],
    actor: str,
) -> LearntWeights:
    """Store what was learnt as a candidate; its threshold becomes the gain that leads to 0.8."""
    level = 1.0 if learnt.threshold == ALARM else -math.log(1.0 - learnt.threshold) / math.log(5.0)
    return LearntWeights.objects.create(
        stream=stream, method=learnt.method, weights=dict(learnt.weights), gain=1.0 / level,
        metrics=dict(metrics), settings=dict(settings), created_by=actor,
    )  # fmt: skip


def in_use(stream: Stream) -> LearntWeights | None:
    """The set that counts, or None where the configuration does."""
    return LearntWeights.objects.filter(stream=stream, state=State.IN_USE).first()


def use(identity: int, actor: str) -> LearntWeights:
    """Let a set count in place of the one before or of the configuration.

    Raises:
        LearntWeights.DoesNotExist: no such set.
    """
    now = dt.datetime.now(dt.UTC)
    with transaction.atomic():
        row = _held(identity)
        if row.state != State.IN_USE:
            before = _counting(row.stream)
            for other in LearntWeights.objects.filter(stream=row.stream, state=State.IN_USE):
                _move(other, State.RETIRED, actor, now)
            _move(row, State.IN_USE, actor, now)
            audit.record(actor, Action.ACTED, row, before, _counting(row.stream))
    return row


def leave(identity: int, actor: str) -> LearntWeights:
    """Go back to the configuration's weights.

    Raises:
        LearntWeights.DoesNotExist: no such set.
        TransitionRefused: it is not in use.
    """
    with transaction.atomic():
        row = _held(identity)
        if row.state != State.IN_USE:
            raise TransitionRefused(f"weights {row.pk} are not in use: nothing to leave")
        before = _counting(row.stream)
        _move(row, State.RETIRED, actor, dt.datetime.now(dt.UTC))
        audit.record(actor, Action.ACTED, row, before, _counting(row.stream))
    return row


def _counting(stream: Stream) -> dict[str, Any]:
    """Which weights count for a stream; None where the configuration's do."""
    row = in_use(stream)
    return {"stream": stream.name, "weights_in_use": row.pk if row is not None else None}


def _held(identity: int) -> LearntWeights:
    stream = LearntWeights.objects.values_list("stream_id", flat=True).get(pk=identity)
    Stream.objects.select_for_update(no_key=True).get(pk=stream)
    return LearntWeights.objects.select_related("stream").get(pk=identity)


def _move(row: LearntWeights, to: State, actor: str, now: dt.datetime) -> None:
    row.state, row.changed_by = to, actor
    row.retired_at = now if to == State.RETIRED else None
    if to == State.IN_USE:
        row.used_at = now
    row.save(update_fields=["state", "changed_by", "used_at", "retired_at"])
