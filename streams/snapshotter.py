"""Takes snapshots of changed series in the background: rows are copied between batches, a chunk at
a time, and written by a thread with a connection of its own."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from django.db import Error, connection
from numpy.typing import NDArray

from streams import snapshots
from streams.checkpoint import FencedError, Owned
from streams.series import SeriesIndex

log = logging.getLogger(__name__)

MOST_ROWS = 4_096  # of a chunk, however short they are


class Rows(Protocol):
    """What a snapshot is taken of: the scoring engine."""

    index: SeriesIndex
    changed: NDArray[np.bool_]
    slot_code: NDArray[np.int32]

    def layouts(self, slots: NDArray[np.int64]) -> list[str]: ...
    def row_bytes(self, slots: NDArray[np.int64]) -> NDArray[np.int64]: ...
    def slots_of(self, partition: int) -> NDArray[np.int64]: ...
    def changed_slots(self, partition: int) -> NDArray[np.int64]: ...
    def last_offsets(self, slots: NDArray[np.int64]) -> NDArray[np.int64]: ...
    def pack(self, slots: NDArray[np.int64]) -> list[bytes]: ...


@dataclass(slots=True)
class _Round:
    owned: Owned
    base: int
    slots: NDArray[np.int64]
    taken: int = 0


class Snapshotter:
    """One round covers every owned partition; rounds begin at most every ``interval_s``."""

    def __init__(self, rows: Rows, interval_s: float, chunk_bytes: int) -> None:
        self._rows = rows
        self._interval_s = interval_s
        self._chunk_bytes = chunk_bytes
        self._queue: queue.Queue[snapshots.Chunk | None] = queue.Queue(maxsize=3)
        # Failed writes of each (partition, epoch): counted by the writer, answered by the taker.
        self._failures: dict[tuple[int, int], int] = {}
        self._answered: dict[tuple[int, int], int] = {}
        self._rounds: list[_Round] = []
        self._next_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)
        self._thread.start()

    def take(
        self, owned: list[Owned], scored: Mapping[int, int], now_s: float
    ) -> snapshots.Chunk | None:
        """Between batches: copy one chunk if it is time and the writer has room.

        ``scored`` is the next offset to score of each partition. The chunk holds the state behind
        the batch that was scored last, so it goes to :meth:`put` once that one is stored.
        """
        if self._next_s is None:
            self._next_s = now_s + self._interval_s
        if not self._rounds:
            if now_s < self._next_s:
                return None
            self._next_s = now_s + self._interval_s
            for one in owned:
                self._answer_failures(one)
            self._rounds = [
                _Round(o, scored[o.partition], self._rows.changed_slots(o.partition))
                for o in owned
                if scored[o.partition] > o.snapshot_offset
            ]
        if not self._rounds or self._queue.full():
            return None
        current = self._rounds[0]
        if self._answer_failures(current.owned):
            self._rounds.pop(0)
            return None
        chunk = self._chunk(current)
        if chunk.base is not None:
            self._rounds.pop(0)
        return chunk

    def put(self, chunk: snapshots.Chunk) -> None:
        """Let the thread write a chunk whose events are stored by now."""
        self._queue.put(chunk)

    def drop(self, partition: int) -> None:
        """The partition is no longer ours, or starts afresh."""
        self._rounds = [r for r in self._rounds if r.owned.partition != partition]

    def final(self, owned: Owned, deadline_s: float, clock: Callable[[], float]) -> bool:
        """Write all that changed of one partition, in the caller's thread, while time allows.

        Raises:
            FencedError: the partition has another owner.
        """
        self.drop(owned.partition)
        self._queue.join()
        if owned.next_offset <= owned.snapshot_offset:
            return True
        self._answer_failures(owned)
        current = _Round(owned, owned.next_offset, self._rows.changed_slots(owned.partition))
        while clock() < deadline_s:
            chunk = self._chunk(current)
            snapshots.write(chunk)
            if chunk.base is not None:
                owned.snapshot_offset = chunk.base
                return True
        return False

    def close(self) -> None:
        """Write what is queued and end the thread."""
        self._queue.put(None)
        self._thread.join(10)

    def _chunk(self, current: _Round) -> snapshots.Chunk:
        ahead = current.slots[current.taken : current.taken + MOST_ROWS]
        ends = np.cumsum(self._rows.row_bytes(ahead))
        slots = ahead[: max(1, np.searchsorted(ends, self._chunk_bytes, side="right"))]
        current.taken += len(slots)
        self._rows.changed[slots] = False
        return snapshots.Chunk(
            owned=current.owned,
            series_ids=self._rows.index.ids[self._rows.slot_code[slots]].tolist(),
            last_offsets=self._rows.last_offsets(slots).tolist(),
            layouts=self._rows.layouts(slots),
            rows=self._rows.pack(slots),
            base=current.base if current.taken >= len(current.slots) else None,
            attempt=self._answered.get(_key(current.owned), 0),
        )

    def _answer_failures(self, owned: Owned) -> bool:
        """Rows of a chunk that could not be written must come again: mark all of the partition's.

        What was taken before the answer is not written any more: its base would move beyond them.
        """
        key = _key(owned)
        failures = self._failures.get(key, 0)
        if failures == self._answered.get(key, 0):
            return False
        self._rows.changed[self._rows.slots_of(owned.partition)] = True
        self._answered[key] = failures
        return True

    def _run(self) -> None:
        while True:
            chunk = self._queue.get()
            if chunk is None:
                connection.close()
                self._queue.task_done()
                return
            key = _key(chunk.owned)
            try:
                if chunk.attempt == self._failures.get(key, 0):
                    snapshots.write(chunk)
                    if chunk.base is not None:
                        chunk.owned.snapshot_offset = chunk.base
            except (FencedError, Error) as error:
                log.warning("snapshot.failed partition=%s error=%s", key[0], error)
                connection.close()
                self._failures[key] = self._failures.get(key, 0) + 1
            finally:
                self._queue.task_done()


def _key(owned: Owned) -> tuple[int, int]:
    return owned.partition, owned.epoch
