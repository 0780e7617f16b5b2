"""Gives a dead letter a second way: its raw bytes go to its topic again, then it counts as retried.

A crash between the two sends it twice at worst: the letter is marked only once the broker has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction

from streams.models import DeadLetter
from streams.producer import TopicProducer

CHUNK = 500


@dataclass(frozen=True, slots=True)
class Retried:
    """How many went out; a tombstone has no bytes that could."""

    sent: int
    without_bytes: int


def retry(producer: TopicProducer, ids: Sequence[int]) -> Retried:
    """Send waiting letters again, in order; others among the ids are passed over.

    Raises:
        DeliveryError: the broker did not take some; the letters of that chunk stay waiting.
    """
    sent = without = 0
    for start in range(0, len(ids), CHUNK):
        with transaction.atomic():
            letters = (
                DeadLetter.objects.select_for_update(of=("self",), skip_locked=True)
                .filter(pk__in=ids[start : start + CHUNK], state=DeadLetter.State.WAITING)
                .select_related("incarnation__stream")
                .order_by("pk")
            )
            done = []
            for letter in letters:
                if letter.raw is None:
                    without += 1
                    continue
                key = None if letter.key is None else bytes(letter.key)
                producer.send(letter.incarnation.stream.topic, bytes(letter.raw), key)
                done.append(letter.pk)
            producer.flush()
            DeadLetter.objects.filter(pk__in=done).update(state=DeadLetter.State.RETRIED)
            sent += len(done)
    return Retried(sent, without)
