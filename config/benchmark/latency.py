"""How long an event takes at a steady rate: from the broker's timestamp to its committed row.

A real `runconsumer` process works; a connection of our own asks for the committed offsets every
few milliseconds, so each figure is at most one look too large, and never too small.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from numpy.typing import NDArray

SERIES = 200
WARM_UP_S = 3.0
LOOK_S = 0.002
READY_WITHIN_S = 180.0
STORED_WITHIN_S = 60.0

_LOOK = "SELECT partition, next_offset FROM streams_partitionoffset"


class LatencyError(RuntimeError):
    """It can't be measured; the message says why."""


@dataclass(slots=True)
class Sent:
    """By message: where it lies, and wall-clock seconds of the broker and of the producer."""

    partition: list[int] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    broker_s: list[float] = field(default_factory=list)
    produced_s: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def after(self, seconds: float) -> Sent:
        """Without the first ones, which meet new series and connections."""
        start = min(self.produced_s, default=0.0) + seconds
        kept = [i for i, moment in enumerate(self.produced_s) if moment >= start]
        return Sent(
            [self.partition[i] for i in kept],
            [self.offset[i] for i in kept],
            [self.broker_s[i] for i in kept],
            [self.produced_s[i] for i in kept],
            self.failed,
        )


class Watcher:
    """Notes when a partition's committed offset was first seen to have moved."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._stop = threading.Event()
        self.next_offset: dict[int, int] = {}
        self.seen: dict[int, list[tuple[int, float]]] = {}
        self.looks = 0
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        with psycopg.connect(self._database, autocommit=True) as connection:
            while not self._stop.wait(LOOK_S):
                rows = connection.execute(_LOOK).fetchall()
                now = time.time()
                self.looks += 1
                for partition, offset in rows:
                    if self.next_offset.get(partition, 0) < offset:
                        self.seen.setdefault(partition, []).append((offset, now))
                    self.next_offset[partition] = offset


@contextmanager
def topics_of_our_own(client: dict[str, Any], name: str, partitions: int) -> Iterator[None]:
    """The input topic, its messages stamped by the broker, and those that the consumer writes."""
    admin = AdminClient(client)
    stamped = {"message.timestamp.type": "LogAppendTime"}
    names = [name, *(f"{name}-{kind}" for kind in ("results", "statistics", "dead"))]
    wanted = [NewTopic(name, partitions, 1, config=stamped)]
    wanted += [NewTopic(other, 1, 1) for other in names[1:]]
    for future in admin.create_topics(wanted).values():
        future.result(30)
    try:
        yield
    finally:
        for future in admin.delete_topics(names).values():
            future.result(30)


@contextmanager
def consumer(
    name: str, env: dict[str, str], log: Path, *, live: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """`manage.py runconsumer` on the topic `name`; `live` pushes what it finds to pages."""
    child_env = {
        **os.environ,
        **env,
        "VIGIL_STREAMS": json.dumps([{"name": name, "topic": name}]),
        "VIGIL_KAFKA__GROUP_ID": name,
        "VIGIL_KAFKA__OUTPUT_TOPIC": f"{name}-results",
        "VIGIL_KAFKA__STATISTICS_TOPIC": f"{name}-statistics",
        "VIGIL_KAFKA__DEAD_LETTER_TOPIC": f"{name}-dead",
        "VIGIL_DASHBOARD__REAL_TIME_UPDATES": "true" if live else "false",
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, sys.argv[0], "runconsumer", "--from", "earliest"],
            env=child_env,
            stdout=out,
            stderr=out,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def produce(client: dict[str, Any], topic: str, rate: float, seconds: float) -> Sent:
    """`rate` events a second, evenly, each handed over when its moment has come."""
    sent = Sent()
    # every message's report is needed, so this is not the TopicProducer of the product
    producer = Producer({**client, "linger.ms": 1, "partitioner": "murmur2_random"})

    def delivered(moment: float) -> Any:
        def note(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                sent.failed.append(error.str())
                return
            sent.partition.append(message.partition() or 0)
            sent.offset.append(message.offset() or 0)
            sent.broker_s.append(message.timestamp()[1] / 1000)
            sent.produced_s.append(moment)

        return note

    rng = np.random.default_rng(7)
    noise = rng.normal(50, 2, int(rate * seconds))
    noise += np.where(rng.random(len(noise)) < 1e-3, 60.0, 0.0)
    start = time.time()
    for n, value in enumerate(noise.tolist()):
        due = start + n / rate
        while (now := time.time()) < due:
            producer.poll(0)
            time.sleep(min(0.001, due - now))
        name = b"sensor_%03d" % (n % SERIES)
        body = b'{"source": "%b", "metric": "cpu_usage", "value": %b, "timestamp": %b}' % (
            name,
            b"%.3f" % value,
            b"%.3f" % now,
        )
        while True:
            try:
                producer.produce(topic, body, name, on_delivery=delivered(now))
                break
            except BufferError:  # behind its time, on a machine that is
                producer.poll(0.1)
    if waiting := producer.flush(30):
        sent.failed.append(f"{waiting} without an answer")
    return sent


def measure(
    client: dict[str, Any],
    name: str,
    env: dict[str, str],
    folder: Path,
    *,
    rate: float,
    seconds: float,
    partitions: int,
) -> dict[str, Any]:
    """Start a consumer, send at `rate` for `seconds` and match offsets with their commits.

    Raises:
        LatencyError: the consumer did not start, or did not store everything.
    """
    log = folder / "consumer.log"
    with (
        topics_of_our_own(client, name, partitions),
        Watcher(env["DATABASE_URL"]) as watcher,
        consumer(name, env, log) as process,
    ):
        await_(lambda: len(watcher.next_offset) == partitions, READY_WITHIN_S, process, log)
        sent = produce(client, name, rate, seconds + WARM_UP_S).after(WARM_UP_S)
        if sent.failed:
            raise LatencyError(f"{len(sent.failed)} messages were not taken: {sent.failed[0]}")
        partition, offset = np.array(sent.partition), np.array(sent.offset)
        last = {int(p): int(offset[partition == p].max()) for p in np.unique(partition)}
        await_(
            lambda: all(watcher.next_offset[p] > o for p, o in last.items()),
            STORED_WITHIN_S,
            process,
            log,
        )
    stored_s = committed_at(partition, offset, watcher.seen)
    wall = max(sent.produced_s) - min(sent.produced_s)
    return {
        "n": len(offset),
        "rate_per_s": round((len(offset) - 1) / wall, 1),
        "series": SERIES,
        "partitions": partitions,
        "looks": watcher.looks,
        "from_broker_ms": percentiles(stored_s - np.array(sent.broker_s)),
        "from_producer_ms": percentiles(stored_s - np.array(sent.produced_s)),
    }


def committed_at(
    partition: NDArray[np.int64],
    offset: NDArray[np.int64],
    seen: dict[int, list[tuple[int, float]]],
) -> NDArray[np.float64]:
    """When each message was first seen below its partition's committed next offset."""
    out = np.empty(len(offset))
    for p in np.unique(partition).tolist():
        mine = partition == p
        ends, moments = zip(*seen[p], strict=True)
        out[mine] = np.array(moments)[np.searchsorted(ends, offset[mine], side="right")]
    return out


def percentiles(seconds: NDArray[np.float64]) -> dict[str, float]:
    """In milliseconds."""
    wanted = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    return {name: round(float(np.percentile(seconds * 1000, q)), 1) for name, q in wanted.items()}


def await_(condition: Any, within_s: float, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-2000:]
            raise LatencyError(f"the consumer did not get there:\n{said}")
        time.sleep(0.02)
