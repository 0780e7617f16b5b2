"""One measured run, in a process of its own: bare consume-and-decode, or the whole consumer."""

from __future__ import annotations

import gc
import resource
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from django.db import connection

from config.schema import Stream as StreamConfig
from config.schema import VigilConfig
from config.wiring import RunOptions, build_runner, settle, warm_up
from streams.models import Stream
from streams.stopwatch import Stopwatch

BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Measured:
    """From the first message in hand to the last effect stored."""

    events: int
    wall_s: float
    cpu_s: float
    rss_mb: float
    rss_before_mb: float
    onsets: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _Event(msgspec.Struct, gc=False):
    source: str
    metric: str
    value: float
    timestamp: str


class _WideEvent(msgspec.Struct, gc=False):
    source: str
    values: dict[str, float | None]
    timestamp: str


def bare(
    client: dict[str, Any], topic: str, partitions: int, events: int, *, wide: bool = False
) -> Measured:
    """Consume and msgspec decode, nothing else: what no consumer in Python can beat by much."""
    consumer = Consumer(
        {
            **client,
            "group.id": f"bare-{uuid.uuid4().hex}",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 10,
            "queued.min.messages": 50_000,
        }
    )
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(_WideEvent if wide else _Event).decode
    gc.collect()
    gc.disable()
    before = _rss_mb()
    watch = Stopwatch()
    seen = 0
    while seen < events:
        got = consumer.consume(BATCH, 0.05)
        if got:
            watch.start()
            seen += len([decode(m.value()) for m in cast(list[Any], got)])
    wall, cpu = watch.read()
    consumer.close()
    return Measured(seen, wall, cpu, _rss_mb(), before)


def whole(
    config: VigilConfig,
    topic: str,
    prepare: Callable[[Stream], None] | None = None,
    *,
    values: int = 1,
) -> Measured:
    """`runconsumer` to the log's end, in a database of the benchmark's own, emptied before.

    ``values`` that each message has: messages are what is counted.
    """
    name = f"benchmark-{topic}"[:100]
    with connection.cursor() as cursor:
        cursor.execute(
            "TRUNCATE streams_stream, streams_rollup, streams_rolluphour, streams_hourdue CASCADE"
        )
    given = StreamConfig(name=name, topic=topic)
    config = config.model_copy(
        update={
            "streams": (given,),
            "kafka": config.kafka.model_copy(update={"group_id": f"benchmark-{uuid.uuid4().hex}"}),
        }
    )
    runner = build_runner(config, "benchmark", RunOptions(exit_at_end=True), None)
    if prepare is not None:
        prepare(Stream.objects.get(name=name))
    warm_up(config)
    settle()
    before = _rss_mb()
    totals = runner.run()
    return Measured(
        totals.events // values, totals.wall_s, totals.cpu_s, _rss_mb(), before, totals.onsets
    )
