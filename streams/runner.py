"""The consumer's loop: poll, decode, score, store in one fenced transaction, then tell others.

Promises 1 to 3 and 7 are kept here. Offsets come from PostgreSQL; a batch is stored whole or not
at all; a database that does not answer pauses the partitions and loses no place.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast

import numpy as np
from confluent_kafka import KafkaException, Message
from django.db import DatabaseError, InterfaceError, connection, transaction

from streams import checkpoint, snapshots
from streams.batch import EventBatch
from streams.checkpoint import FencedError, Move, Owned
from streams.clock import SystemClock, from_us
from streams.codec import Codec, Decoded, Reject, gather, joined
from streams.consumer import GroupConsumer, Place
from streams.dead_letter import DeadLetters
from streams.errors import DATABASE_AWAY, DeliveryError, StreamsError, UnusableError
from streams.log_end import LogEnds, Look
from streams.models import Stream
from streams.pipeline import Pipeline
from streams.series import SeriesIndex
from streams.series_store import SeriesStore
from streams.snapshots import Chunk
from streams.snapshotter import Rows, Snapshotter
from streams.status import StatusReporter
from streams.stopwatch import Stopwatch

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
LEAVE_WITHIN_S = 5.0
LOOK_S = 1.0  # between looks for series that are silent by the wall clock
ANSWER_WITHIN_US = 3_000_000
FRESH_US = 5_000_000
RESTS_WITHIN_S = 30.0  # a job that was told to give up
SETTLED_US = 30_000_000  # after the broker was away: what waited for it has come by then
WORKER_PATIENCE_S = 5.0
STOP_PATIENCE_S = 2.0
FLUSH_SHARE = 0.05  # of the time at most, so that 100,000 open minutes don't stand in the way
SAMPLES_A_PIECE = 4
PIECE = 2_000  # messages: with their bytes about a megabyte, which a core keeps close


class BatchLostError(StreamsError):
    """Retry: a batch was not stored; every lane begins again from what is."""


class Engine(Rows, Protocol):
    """What scores: see ``detection.scoring.ScoringEngine``."""

    def attach(self, partition: int) -> None: ...
    def detach(self, partition: int) -> None: ...
    def restore(self, partition: int, codes: Any, layout: str, rows: Sequence[bytes]) -> None: ...
    def readable(self, layout: str) -> bool: ...
    def unseen(self, batch: EventBatch) -> Any: ...
    def heard(self, at_us: Mapping[int, int]) -> None: ...
    def process(self, batch: EventBatch, version: Any, silent_below: Mapping[int, int]) -> Any: ...


class Versions(Protocol):
    """What counts where: see ``detection.versions.VersionKeeper``."""

    def refresh(self) -> bool: ...
    def outdated(self) -> bool: ...
    def attach(self, owned: Owned) -> None: ...
    def detach(self, partition: int) -> None: ...
    def append(self, owned: Owned, from_offset: int) -> None: ...
    def split(self, batch: EventBatch) -> list[tuple[Any, EventBatch]]: ...
    def newest(self, partition: int) -> Any: ...


class Sink(Protocol):
    """What stores a scored batch: see ``anomalies.store.AnomalySink``."""

    def begin(self, owned: Owned) -> None: ...
    def forget(self, partition: int) -> None: ...
    def overdue(self, looks: Sequence[Look]) -> list[int]: ...
    def build(
        self,
        parts: Sequence[Any],
        owned: dict[int, Owned],
        *,
        flush: bool,
        replaying: Collection[int],
        looks: Sequence[Look],
    ) -> Any: ...
    def prepare(self, pending: Any) -> None: ...
    def write(self, pending: Any) -> None: ...
    def found(self, pending: Any) -> Any: ...


class Listener(Protocol):
    """Hears of what is stored; it must neither block nor raise."""

    def found(self, found: Any) -> int: ...
    def refused(self, topic: str, rejects: Sequence[Reject]) -> None: ...
    def recover(self, owned: Owned) -> None: ...
    def tick(self, rates: Mapping[str, Any]) -> None: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class Lane:
    """One stream as this process works on it."""

    stream: Stream
    codec: Codec
    engine: Engine
    versions: Versions
    sink: Sink
    owned: dict[int, Owned] = field(default_factory=dict)
    position: dict[int, int] = field(default_factory=dict)  # handed over, by the loop
    scored: dict[int, int] = field(default_factory=dict)  # by the worker
    silent_below: dict[int, int] = field(default_factory=dict)
    snapshotter: Snapshotter | None = None
    ends: LogEnds = field(default_factory=LogEnds)  # as the client has them, for delays
    asked: LogEnds = field(default_factory=LogEnds)  # as the broker says when it is asked
    began_us: dict[int, int] = field(default_factory=dict)
    trouble_us: int = 0
    asking: dict[int, tuple[int, Future[Any]]] = field(default_factory=dict)
    next_look: float = 0.0

    @property
    def index(self) -> SeriesIndex:
        return self.engine.index

    def replaying(self) -> list[int]:
        """Partitions whose state has not reached yet what is stored of them."""
        return [p for p, below in self.silent_below.items() if self.scored[p] < below]


@dataclass(slots=True)
class Taken:
    """Messages of one topic on their way to the scoring thread, decoded piece by piece.

    ``timestamps`` are those of some messages, in ms since 1970.
    """

    pieces: list[Decoded] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)

    def keep(self, partitions: Collection[int]) -> None:
        """Drop what is of other partitions."""
        self.pieces = [piece.of(partitions) for piece in self.pieces]


@dataclass(frozen=True, slots=True)
class Ends:
    """Where the logs of some partitions ended, as the client knew at ``at_us``."""

    at_us: int = 0
    ends: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """The loop's numbers; ``start`` is ``stored``, ``earliest``, ``latest`` or µs since 1970."""

    instance: str
    batch_size: int = 10_000
    batch_wait_s: float = 0.05
    snapshot_interval_s: float = 30.0
    snapshot_chunk_bytes: int = 1_000_000
    flush_s: float = 2.0
    config_poll_s: float = 1.0
    start: str | int = "stored"
    max_events: int | None = None
    exit_at_end: bool = False
    dead_letter_ratio_limit: float = 1.0


@dataclass(slots=True)
class Totals:
    """What a run did; the seconds reach from the first message in hand to the last one stored."""

    events: int = 0
    rejects: int = 0
    onsets: int = 0
    batches: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


class Runner:
    """One consumer process. ``stop()`` may be called from a signal handler."""

    def __init__(
        self,
        consumer: GroupConsumer,
        lanes: Sequence[Lane],
        settings: RunnerSettings,
        listener: Listener,
        status: StatusReporter,
        monotonic: Callable[[], float] = time.monotonic,
        wall_us: Callable[[], int] | None = None,
    ) -> None:
        self._consumer = consumer
        self._lanes = {lane.stream.topic: lane for lane in lanes}
        self._settings = settings
        self._listener = listener
        self._status = status
        self._now = monotonic
        self._wall_us = wall_us or SystemClock().now_us
        self._stopping = False
        self._stop_at = 0.0
        self._waiting: list[tuple[float, Place]] = []
        self._next_flush = self._now() + settings.flush_s
        self._next_config = 0.0
        self._generation = 0
        self._early: list[Message] = []
        self._gap_at: dict[Place, int] = {}
        self._gappy: set[Place] = set()
        self._sought: set[int] = set()
        self._submitted = 0
        self._abandon = threading.Event()
        self._over: dict[str, str] = {}  # topics that must begin again, and why
        self._scoring = Pipeline("scoring")
        self._writing = Pipeline("storing")
        self._series = SeriesStore()
        self._dead_letters = DeadLetters(settings.dead_letter_ratio_limit)
        self.totals = Totals()
        self._watch = Stopwatch()
        for lane in lanes:
            lane.snapshotter = Snapshotter(
                lane.engine, settings.snapshot_interval_s, settings.snapshot_chunk_bytes
            )

    def stop(self) -> None:
        """Finish the batch, take snapshots, leave."""
        self._stopping = True
        self._stop_at = self._now()

    def run(self) -> Totals:
        """Until stopped, ``max_events`` or the end of the log.

        Raises:
            StreamsError: what a person must mend first.
        """
        for lane in self._lanes.values():
            lane.versions.refresh()
        self._consumer.subscribe(list(self._lanes), self._revoked)
        try:
            while not self._stopping and not self._done():
                self._turn()
            self._leave()
        finally:
            self._abandon.set()
            self._scoring.close()
            self._writing.close()
            self._status.close()
            self._listener.close()
            self._consumer.close()
        return self.totals

    # -- the loop's thread: poll, decode, hand over ----------------------------------------------

    def _turn(self) -> None:
        if self._failed():
            self._mend()
        for topic, why in list(self._over.items()):
            self._start_over(self._lanes[topic], why)
        if self._over:  # a job has not ended: what is in hand must not change under it
            return
        if self._now() >= self._next_config:
            self._refresh_versions()
        self._activate()
        taken = self._take()
        flush = self._now() >= self._next_flush
        if flush:
            self._next_flush = self._now() + self._settings.flush_s
        for topic, lane in self._lanes.items():
            if (topic in taken or flush) and lane.owned and topic not in self._over:
                self._hand_over(lane, taken.get(topic, Taken()), flush)
        self._report()

    def _take(self) -> dict[str, Taken]:
        """A batch of each topic that has events, decoded.

        Messages come in pieces that fit a core's cache, and each is decoded and let go before the
        next one takes its memory.
        """
        taken: dict[str, Taken] = {}
        generation = self._generation
        deadline = self._now() + self._settings.batch_wait_s
        count = 0
        while True:
            wanted = min(PIECE, self._settings.batch_size - count)
            messages, self._early = self._early, []
            if not messages:
                wait_s = max(0.0, deadline - self._now())
                messages, errors = self._consumer.poll(wanted, wait_s)
                for error in errors:
                    self._partition_error(error)
            if messages:
                self._watch.start()
            for topic, lane in self._lanes.items():
                mine = messages
                if len(self._lanes) > 1:
                    mine = [m for m in messages if m.topic() == topic]
                if mine:
                    self._decode(lane, mine, taken.setdefault(topic, Taken()))
            count += len(messages)
            if len(messages) < wanted or count >= self._settings.batch_size:
                break
        self._status.busy = bool(count)
        if generation != self._generation:
            for topic, batch in taken.items():
                batch.keep(self._lanes[topic].position)  # the others are ours no longer
        return taken

    def _decode(self, lane: Lane, messages: list[Message], taken: Taken) -> None:
        gathered = gather(cast(Any, messages))
        position = lane.position
        if not self._gapless(lane, gathered.first):
            messages = [m for m in messages if m.partition() not in self._sought]
            self._sought.clear()
            gathered = gather(cast(Any, messages))
        if any(position.get(p, 1 << 62) > first for p, first in gathered.first.items()):
            # of a partition that is not ours (any more), or fetched before a seek
            there = cast(list[Any], messages)
            messages = [m for m in there if m.offset() >= position.get(m.partition(), 1 << 62)]
            gathered = gather(cast(Any, messages))
        sample = messages[:: max(1, len(messages) // SAMPLES_A_PIECE)]
        taken.timestamps += [m.timestamp()[1] for m in sample]
        position.update(gathered.committable)
        self._submitted += len(messages)
        taken.pieces.append(lane.codec.parse(gathered))

    def _hand_over(self, lane: Lane, taken: Taken, flush: bool) -> None:
        """Let the scoring thread go on with a batch; waits while that one has enough."""
        generation = self._generation
        decoded = joined(taken.pieces)
        ends = self._ends(lane, lane.owned if flush else decoded.batch.committable)
        job = partial(self._score, lane, decoded, taken.timestamps, flush, ends)
        paused: list[Place] = []
        patience = self._now() + WORKER_PATIENCE_S
        while not self._scoring.submit(job, 0.5):
            if self._now() < patience and not self._stopping:
                continue
            if not paused:
                paused = [(lane.stream.topic, p) for p in lane.owned]
                self._consumer.pause(paused)
            # Serves rebalances, and keeps us in the group. Paused partitions give nothing more,
            # but what was on its way must not be lost.
            more, errors = self._consumer.poll(self._settings.batch_size, 0.05)
            self._early += more
            for error in errors:
                self._partition_error(error)
            too_late = self._stopping and self._now() > self._stop_at + STOP_PATIENCE_S
            if generation != self._generation or self._failed() or too_late:
                self._start_over(lane, "a batch was given up while the worker could not store")
                return
        if paused:
            self._consumer.resume([p for p in paused if p in self._consumer.assigned])

    def _ends(self, lane: Lane, partitions: Collection[int]) -> Ends:
        found = Ends(self._wall_us())
        for p in partitions:
            try:
                found.ends[p] = self._consumer.watermarks((lane.stream.topic, p))[1]
            except KafkaException:  # not ours any more
                continue
        return found

    def _failed(self) -> bool:
        return self._scoring.failed or self._writing.failed

    def _take_error(self) -> BaseException | None:
        errors = [self._scoring.take_error(), self._writing.take_error()]
        return next((e for e in reversed(errors) if e is not None), None)

    def _gapless(self, lane: Lane, first: Mapping[int, int]) -> bool:
        """Whether every partition goes on where it stood; where not, it is read once more.

        A compacted or transactional log has gaps of its own: one that is there again is believed,
        and so are that partition's later ones. Any other would be lost events.
        """
        for partition, offset in first.items():
            place = (lane.stream.topic, partition)
            at = lane.position.get(partition)
            if at is None or offset <= at or place in self._gappy:
                continue
            if self._gap_at.pop(place, None) == at:
                self._gappy.add(place)
                continue
            log.warning("partition.gap place=%s expected=%s found=%s", place, at, offset)
            self._gap_at[place] = at
            self._sought.add(partition)
            self._consumer.start(place, at)
        return not self._sought

    def _mend(self) -> None:
        """A batch could not be stored: begin again from what is.

        Every lane does: the batches behind the lost one, whosever they are, were not run.
        """
        self._abandon.set()
        self._rest(LEAVE_WITHIN_S)
        self._all_over(self._take_error())

    def _all_over(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, BatchLostError):
            raise error
        if error is not None:
            self._over |= dict.fromkeys(self._lanes, str(error))

    def _quiesce(self, wait_s: float) -> bool:
        """Until both threads rest: what they were at is stored, or given up or going on (False)."""
        return self._rest(wait_s) and not self._failed()

    def _rest(self, wait_s: float) -> bool:
        """Until both threads rest; whether they do. After ``wait_s`` they are told to give up."""
        deadline = self._now() + wait_s
        for pipeline in (self._scoring, self._writing):
            if pipeline.drain(max(0.0, deadline - self._now())):
                continue
            self._abandon.set()
            if not pipeline.drain(RESTS_WITHIN_S):
                log.error("thread.busy name=%s at=%s", pipeline.name, pipeline.where())
                return False
        self._abandon.clear()
        return True

    # -- the scoring thread ---------------------------------------------------------

    # The consumer's client is the loop's alone: a call from here would wait for a poll to end, and
    # within one that gives partitions up, the poll waits for us.

    def _score(
        self, lane: Lane, decoded: Decoded, timestamps: list[int], flush: bool, ends: Ends
    ) -> None:
        batches, rejects = [decoded.batch, *decoded.vectors], decoded.rejects
        if lane.silent_below:
            batches = [batch.take(lane.engine.unseen(batch)) for batch in batches]
            rejects = [r for r in rejects if r.offset >= lane.silent_below.get(r.partition, 0)]
        lane.engine.heard(self._arriving(lane, batches[0].committable))
        parts = [
            lane.engine.process(events, version, lane.silent_below)
            for batch in batches
            for version, events in lane.versions.split(batch)
            if len(events)
        ]
        batch = batches[0]
        moves = self._moves(lane, batch, rejects)
        lane.scored.update(batch.committable)
        replaying = lane.replaying()
        self._follow(lane, ends)
        if moves or flush:
            self._patiently(lambda: self._series.ensure(lane.stream, lane.index))
            looks: list[Look] = []
            if flush and self._now() >= lane.next_look:
                self._patiently(lambda: looks.extend(self._looks(lane, replaying)))
            pending = lane.sink.build(
                parts, dict(lane.owned), flush=flush, replaying=replaying, looks=looks
            )
            chunk = None
            if lane.snapshotter is not None:
                ready = [o for p, o in lane.owned.items() if p not in replaying]
                chunk = lane.snapshotter.take(ready, lane.scored, self._now())
            job = partial(
                self._store,
                lane,
                dict(lane.owned),
                pending,
                moves,
                rejects,
                timestamps,
                chunk,
                flush,
            )
            while not self._writing.submit(job, 0.2):
                if self._abandon.is_set():
                    raise BatchLostError("given up while the database was away")
        for partition, below in list(lane.silent_below.items()):
            if partition not in replaying:
                del lane.silent_below[partition]
                log.info("partition.caught_up partition=%s offset=%s", partition, below)

    # -- what the wall clock tells (on the scoring thread) ---------------------------------------

    def _arriving(self, lane: Lane, partitions: Collection[int]) -> dict[int, int]:
        """When the events in hand arrived, of partitions that are read as they are written."""
        now, found = self._wall_us(), {}
        for p in partitions:
            at = lane.ends.known(p)
            if at is not None and p not in lane.silent_below:
                found[p] = now if now - at <= FRESH_US else at
        return found

    def _follow(self, lane: Lane, found: Ends) -> None:
        for p, end in found.ends.items():
            position = lane.scored.get(p)
            if position is not None:
                lane.ends.heard(p, end, position, found.at_us)
                lane.asked.passed(p, position)

    def _looks(self, lane: Lane, replaying: Collection[int]) -> list[Look]:
        """Partitions of which something is due, and that nothing is on its way of.

        The broker is asked only where something may be due, and its answer counts at the next look.
        """
        lane.next_look = self._now() + LOOK_S
        now = self._wall_us()
        self._hear_answers(lane, now)
        ready = [p for p in list(lane.owned) if p not in replaying and p not in lane.silent_below]
        versions = {p: lane.versions.newest(p) for p in ready}
        due = lane.sink.overdue([Look(p, now, now, versions[p]) for p in ready])
        looks = []
        trouble = self._trouble_us(lane, now)
        for p in due:
            known = lane.asked.known(p)
            if known is not None and now - trouble >= SETTLED_US:
                quiet_us = known - max(trouble, lane.began_us.get(p, now))
                looks.append(Look(p, known, quiet_us, versions[p]))
        topic = lane.stream.topic
        asked = self._consumer.ask_ends([(topic, p) for p in due if p not in lane.asking])
        lane.asking |= {p: (now, answer) for (_, p), answer in asked.items()}
        return looks

    def _hear_answers(self, lane: Lane, now_us: int) -> None:
        for p, (at_us, answer) in list(lane.asking.items()):
            if not answer.done():
                if now_us - at_us > ANSWER_WITHIN_US:
                    lane.trouble_us = now_us
                continue
            del lane.asking[p]
            try:
                end = int(answer.result().offset)
            except KafkaException as error:
                log.warning("log_end.unknown partition=%s error=%s", p, _line(error))
                lane.trouble_us = now_us
                continue
            lane.asked.heard(p, end, lane.scored.get(p, 0), at_us)

    def _trouble_us(self, lane: Lane, now_us: int) -> int:
        """When the broker did not answer last, 0: never."""
        ago_s = self._now() - self._consumer.unreachable_at
        unreachable = 0 if math.isinf(ago_s) else now_us - int(ago_s * 1e6)
        return max(lane.trouble_us, unreachable)

    def _moves(self, lane: Lane, batch: EventBatch, rejects: list[Reject]) -> list[Move]:
        moves = []
        for partition, next_offset in batch.committable.items():
            start = max(lane.scored[partition], lane.silent_below.get(partition, 0))
            if next_offset <= start:
                continue
            mine = (batch.partition == partition) & (batch.offset >= start)
            events = int(np.count_nonzero(mine))
            moves.append(
                Move(
                    lane.owned[partition],
                    next_offset,
                    events,
                    sum(r.partition == partition for r in rejects),
                    from_us(int(batch.event_time[mine].max())) if events else None,
                )
            )
        return moves

    # -- the storing thread ------------------------------------------------------------------------

    def _store(
        self,
        lane: Lane,
        owned: dict[int, Owned],
        pending: Any,
        moves: list[Move],
        rejects: list[Reject],
        timestamps: list[int],
        chunk: Chunk | None,
        flush: bool,
    ) -> None:
        """One transaction; what rides on its commit follows.

        Raises:
            BatchLostError: the partitions have another owner, or the loop gave the batch up.
        """
        tries = 0
        began = self._now()

        def write() -> None:
            nonlocal tries, began
            tries += 1
            began = self._now()
            try:
                lane.sink.prepare(pending)
                with transaction.atomic():
                    checkpoint.advance(moves)
                    for other in owned.values():
                        if flush and all(m.owned is not other for m in moves):
                            checkpoint.hold(other)
                    self._dead_letters.write(rejects, owned)
                    lane.sink.write(pending)
            except DeliveryError as error:
                raise BatchLostError(str(error)) from error
            except FencedError as fenced:
                # A commit whose answer was lost looks like a fence when it is tried again.
                if tries == 1 or not moves or not checkpoint.stored(moves):
                    raise BatchLostError(str(fenced)) from fenced

        self._patiently(write)
        if flush:
            rest_s = (self._now() - began) / FLUSH_SHARE
            self._next_flush = max(self._next_flush, self._now() + rest_s)
        checkpoint.committed(moves)
        events = sum(m.events for m in moves)
        self.totals.events += events
        self.totals.rejects += len(rejects)
        self.totals.batches += 1 if moves else 0
        self.totals.onsets += self._listener.found(lane.sink.found(pending))
        if timestamps:
            self._status.count(timestamps, events, len(rejects))
            self.totals.wall_s, self.totals.cpu_s = self._watch.read()
        if chunk is not None and lane.snapshotter is not None:
            lane.snapshotter.put(chunk)
        if rejects:
            self._listener.refused(lane.stream.topic, rejects)
        # a flood of new series says nothing against the events that are read
        self._dead_letters.check(events, sum(r.reason != "limit" for r in rejects))

    def _patiently(self, action: Callable[[], None]) -> None:
        """Try until the database answers.

        Raises:
            BatchLostError: the loop gave up on it.
        """
        backoff = FIRST_BACKOFF_S
        while True:
            try:
                action()
            except DATABASE_AWAY as error:
                log.warning("database.unreachable error=%s retry_in_s=%.1f", _line(error), backoff)
                connection.close()
                if self._abandon.wait(backoff):
                    raise BatchLostError("given up while the database was away") from error
                backoff = min(MAX_BACKOFF_S, backoff * 2)
                continue
            if backoff > FIRST_BACKOFF_S:
                log.info("database.back")
            return

    # -- partitions come and go ----------------------------------------------------------------

    def _start_over(self, lane: Lane, why: str) -> None:
        """What is in memory may be wrong: drop it, and begin again from what is stored."""
        self._generation += 1  # what was taken of it counts no longer
        self._over[lane.stream.topic] = why
        if not self._rest(1.0 if self._stopping else LEAVE_WITHIN_S):
            return
        self._all_over(self._take_error())
        del self._over[lane.stream.topic]
        if not lane.owned:
            return
        log.warning("partitions.start_over reason=%s partitions=%s", why, sorted(lane.owned))
        places = [(lane.stream.topic, p) for p in lane.owned]
        self._consumer.pause([p for p in places if p in self._consumer.assigned])
        for place in places:
            self._forget(place)
            # a group that has moved on tells us with the next polls; then these are not ours
            self._waiting.append((self._now() + 1.0, place))

    def _activate(self) -> None:
        self._waiting += [(0.0, place) for place in self._consumer.take_fresh()]
        due = [w for w in self._waiting if w[0] <= self._now()]
        if not due:
            return
        self._waiting = [w for w in self._waiting if w[0] > self._now()]
        if not self._quiesce(WORKER_PATIENCE_S):
            self._waiting += due
            return
        for place in dict.fromkeys(place for _, place in due):
            if place not in self._consumer.assigned:
                continue
            try:
                self._begin(place)
            except (*DATABASE_AWAY, StreamsError) as error:
                log.warning("partition.waiting place=%s error=%s", place, _line(error))
                connection.close()
                self._forget(place)
                self._waiting.append((self._now() + 1.0, place))

    def _begin(self, place: Place) -> None:
        """Become the owner, restore the state, and run from the snapshots' offset on."""
        topic, partition = place
        lane = self._lanes[topic]
        self._forget(place)
        self._waiting = [w for w in self._waiting if w[1] != place]
        life = checkpoint.incarnation(lane.stream, self._consumer.topic_id(topic))
        owned = checkpoint.acquire(life, partition, self._settings.instance)
        low, high = self._consumer.watermarks(place, cached=False)
        self._choose_start(place, owned, low, high)
        lane.engine.attach(partition)
        restored = self._restore(lane, owned)
        lane.sink.begin(owned)
        lane.began_us[partition] = self._wall_us()
        base = min(owned.snapshot_offset, owned.next_offset)
        if base < low and base < owned.next_offset:
            log.error(
                "partition.cold_start partition=%s reason=the log begins at %s, its events from %s"
                " on are gone: every series of it warms up again",
                partition,
                low,
                base,
            )
            lane.engine.attach(partition)
            base = max(low, owned.next_offset)
        base = max(base, low)
        lane.versions.attach(owned)
        lane.versions.append(owned, owned.next_offset)
        lane.owned[partition] = owned
        lane.position[partition] = lane.scored[partition] = base
        if base < owned.next_offset:
            lane.silent_below[partition] = owned.next_offset
        self._listener.recover(owned)
        self._consumer.start(place, base)
        log.info(
            "partition.started topic=%s partition=%s epoch=%s from=%s stored=%s series=%s",
            topic,
            partition,
            owned.epoch,
            base,
            owned.next_offset,
            restored,
        )

    def _choose_start(self, place: Place, owned: Owned, low: int, high: int) -> None:
        """``--from`` counts where nothing is stored yet, and where it was asked for by hand."""
        start = self._settings.start
        if start == "stored":
            return
        if start == "earliest":
            target = low
        elif start == "latest":
            target = high
        else:
            target = self._consumer.offset_at(place, int(start) // 1000)
        if owned.next_offset and target <= owned.next_offset:
            # Going back would score events twice: what is stored stays where it is.
            log.info("partition.keeps_place partition=%s stored=%s", place[1], owned.next_offset)
            return
        checkpoint.jump(owned, target)

    def _restore(self, lane: Lane, owned: Owned) -> int:
        count = 0
        for rows in snapshots.read(owned):
            names = self._series.names([series_id for series_id, _, _ in rows])
            codes = []
            for series_id, _, _ in rows:
                code = lane.codec.code(*names[series_id])
                codes.append(code)
            lane.index.learn_ids(np.array(codes), np.array([r[0] for r in rows]))
            layouts = dict.fromkeys(layout for _, layout, _ in rows)
            if not all(map(lane.engine.readable, layouts)):
                log.error(
                    "partition.cold_start partition=%s reason=its stored state was written by"
                    " another version: every series of it warms up again",
                    owned.partition,
                )
                lane.engine.attach(owned.partition)
                checkpoint.forget_snapshots(owned)
                return 0
            for layout in layouts:
                alike = [i for i, row in enumerate(rows) if row[1] == layout]
                lane.engine.restore(
                    owned.partition,
                    np.array([codes[i] for i in alike], dtype=np.int32),
                    layout,
                    [rows[i][2] for i in alike],
                )
            count += len(rows)
        return count

    def _revoked(self, places: list[Place], lost: bool) -> None:
        """Called while polling: hand over with a snapshot, so that the next owner starts soon."""
        self._generation += 1
        stored = self._quiesce(0.0 if lost else LEAVE_WITHIN_S)
        for place in places:
            lane = self._lanes[place[0]]
            owned = lane.owned.get(place[1])
            if stored and owned and not lost and place[1] not in lane.silent_below:
                self._final_snapshot(lane, owned, self._now() + 5.0)
            if stored:
                self._forget(place)
            else:
                self._over[place[0]] = "partitions were revoked in the midst of a batch"
        log.info("partitions.revoked places=%s lost=%s", places, lost)

    def _final_snapshot(self, lane: Lane, owned: Owned, deadline_s: float) -> None:
        if lane.snapshotter is None:
            return
        try:
            if not lane.snapshotter.final(owned, deadline_s, self._now):
                log.warning("snapshot.unfinished partition=%s", owned.partition)
        except (FencedError, DatabaseError, InterfaceError) as error:
            log.warning("snapshot.failed partition=%s error=%s", owned.partition, _line(error))

    def _forget(self, place: Place) -> None:
        lane = self._lanes[place[0]]
        if lane.snapshotter is not None:
            lane.snapshotter.drop(place[1])
        lane.engine.detach(place[1])
        lane.versions.detach(place[1])
        lane.owned.pop(place[1], None)
        lane.position.pop(place[1], None)
        lane.scored.pop(place[1], None)
        lane.silent_below.pop(place[1], None)
        lane.sink.forget(place[1])
        for ends in (lane.ends, lane.asked):
            ends.forget(place[1])
        lane.began_us.pop(place[1], None)
        lane.asking.pop(place[1], None)

    def _partition_error(self, error: Any) -> None:
        log.error("kafka.partition_error code=%s reason=%s", error.name(), error.str())
        if error.name() in ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE", "TOPIC_ID_MISMATCH"):
            for lane in self._lanes.values():
                self._start_over(lane, error.str())

    # -- housekeeping --------------------------------------------------------------------------

    def _refresh_versions(self) -> None:
        self._next_config = self._now() + self._settings.config_poll_s
        for lane in self._lanes.values():
            try:
                lane.versions.refresh()
                if lane.versions.outdated() and self._quiesce(LEAVE_WITHIN_S):
                    for partition, owned in lane.owned.items():
                        # what is stored stays as it was scored, also while it is run again
                        start = max(lane.scored[partition], owned.next_offset)
                        lane.versions.append(owned, start)
            except FencedError as fenced:
                self._start_over(lane, str(fenced))
            except UnusableError as error:
                log.error("config.refused error=%s; the last good version stays", _line(error))
            except DATABASE_AWAY as error:
                log.warning("config.unreadable error=%s", _line(error))
                connection.close()

    def _report(self) -> None:
        if not self._status.due(self._now()):
            return
        partitions = []
        for topic, lane in self._lanes.items():
            stored = {p: o.next_offset for p, o in lane.owned.items()}
            self._consumer.follow({(topic, p): n for p, n in stored.items()})
            for p, position in stored.items():
                _, high = self._consumer.watermarks((topic, p))
                end = max(high, position)
                partitions.append(
                    {"topic": topic, "partition": p, "next_offset": position, "end_offset": end}
                )
        series = sum(len(lane.index) for lane in self._lanes.values())
        replaying = any(lane.silent_below for lane in self._lanes.values())
        rates = self._status.report(
            partitions, series, self.totals.onsets, "restoring" if replaying else "running"
        )
        self._listener.tick(rates)

    def _done(self) -> bool:
        limit = self._settings.max_events
        if limit is not None and self._submitted >= limit:
            return True
        if not self._settings.exit_at_end or self._waiting or self._consumer.fresh or self._over:
            return False
        places = [(t, p) for t, lane in self._lanes.items() for p in lane.position]
        if not places or self._status.busy or not self._quiesce(LEAVE_WITHIN_S):
            return False
        return all(
            self._lanes[t].position[p] >= self._consumer.watermarks((t, p), cached=False)[1]
            for t, p in places
        )

    def _leave(self) -> None:
        deadline = self._now() + LEAVE_WITHIN_S
        for lane in self._lanes.values():
            if not self._failed() and lane.owned:
                job = partial(self._score, lane, lane.codec.decode([]), [], True, Ends())
                self._scoring.submit(job, LEAVE_WITHIN_S)
        whole = self._quiesce(max(0.0, deadline - self._now()))
        error = self._take_error()
        for lane in self._lanes.values():
            for partition, owned in lane.owned.items():
                if whole and partition not in lane.silent_below:
                    self._final_snapshot(lane, owned, deadline)
            if lane.snapshotter is not None:
                lane.snapshotter.close()
        if not whole:
            log.warning("consumer.left_early reason=%s; the next start goes on from there", error)
        log.info(
            "consumer.left events=%s rejects=%s anomalies=%s",
            self.totals.events,
            self.totals.rejects,
            self.totals.onsets,
        )
        if error is not None and not isinstance(error, BatchLostError):
            raise error


def instance_name(configured: str | None) -> str:
    """How this process is called in the database and on the pages."""
    return configured or f"{os.uname().nodename}-{os.getpid()}"


def utc_now() -> dt.datetime:
    """Wall-clock time."""
    return dt.datetime.now(dt.UTC)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
