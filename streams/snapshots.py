"""Stored state of series: changed rows in small transactions, and the offset they all reach.

Every row holds its series' events up to its ``last_offset``; once a round is complete, all rows
together hold every event below the partition's ``snapshot_offset``. A restart runs the events
behind it in silence and skips what a row has seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from django.db import transaction

from streams import arrays
from streams.arrays import Int8
from streams.checkpoint import Owned, hold
from streams.models import PartitionOffset, StateSnapshot

_UPSERT = """
INSERT INTO streams_statesnapshot
    (incarnation_id, partition, series_id, last_offset, layout, state, saved_at)
SELECT %s, %s, series_id, last_offset, layout, state, now()
FROM unnest(%b, %b, %b::text[], %b::bytea[]) AS chunk (series_id, last_offset, layout, state)
ORDER BY series_id
ON CONFLICT (incarnation_id, partition, series_id) DO UPDATE SET
    last_offset = EXCLUDED.last_offset, layout = EXCLUDED.layout, state = EXCLUDED.state,
    saved_at = EXCLUDED.saved_at
"""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of some series of one partition, all below what is committed.

    ``base`` is set on the last chunk of a round: every event below it is in the stored rows then.
    """

    owned: Owned
    series_ids: list[int]
    last_offsets: list[int]
    layouts: list[str]
    rows: list[bytes]
    base: int | None = None
    attempt: int = 0  # how many failed writes of its partition its taker knew of


def write(chunk: Chunk) -> None:
    """Store one chunk.

    Raises:
        FencedError: the partition has another owner.
    """
    owned = chunk.owned
    with transaction.atomic():
        hold(owned)
        if chunk.rows:
            with arrays.cursor() as cursor:
                cursor.execute(
                    _UPSERT,
                    [
                        owned.incarnation_id,
                        owned.partition,
                        Int8(np.array(chunk.series_ids)),
                        Int8(np.array(chunk.last_offsets)),
                        chunk.layouts,
                        chunk.rows,
                    ],
                )
        if chunk.base is not None:
            PartitionOffset.objects.filter(
                incarnation_id=owned.incarnation_id,
                partition=owned.partition,
                owner_epoch=owned.epoch,
            ).update(snapshot_offset=chunk.base)


def read(owned: Owned, rows_at_once: int = 200) -> Iterator[list[tuple[int, str, bytes]]]:
    """(series id, layout, state) of all stored rows of a partition, in lists."""
    query = StateSnapshot.objects.filter(
        incarnation_id=owned.incarnation_id, partition=owned.partition
    ).values_list("series_id", "layout", "state")
    part: list[tuple[int, str, bytes]] = []
    for series_id, layout, state in query.iterator(chunk_size=rows_at_once):
        part.append((series_id, layout, bytes(state)))
        if len(part) == rows_at_once:
            yield part
            part = []
    if part:
        yield part
