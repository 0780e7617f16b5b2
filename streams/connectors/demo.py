"""The demo source: two days of history at full speed, then live, with a fault now and then.

After a restart it goes on where the topic ends: the gap is filled, nothing is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from streams.clock import Clock, from_us
from streams.connectors.faults import TruthFile
from streams.connectors.metric_profiles import demo_fleet
from streams.connectors.pace import Progress, Stop, send_paced
from streams.connectors.synthetic import Columns, JsonEncoder, World
from streams.connectors.topic import newest_messages
from streams.producer import TopicProducer
from streams.timestamps import TimestampError, parse_one

HISTORY_FAULTS = 0.5  # per series and day
LIVE_FAULT_EVERY_US = 75_000_000
CHUNK_EVENTS = 20_000
TAIL = 500  # messages of each partition that are looked at for where the topic ends


def demo_world(sources: int, interval_us: int, seed: int, live_from_us: int | None) -> World:
    """The demo's fleet of servers, sensors and payments."""
    return World(
        demo_fleet(sources),
        interval_us=interval_us,
        seed=seed,
        faults_per_series_day=HISTORY_FAULTS,
        slot_faults_from_us=live_from_us,
        slot_us=LIVE_FAULT_EVERY_US,
    )


def last_times(
    client: Mapping[str, Any], topic: str, world: World, *, per_partition: int = TAIL
) -> dict[int, int]:
    """The newest event time in the topic of each series of the world that is found there."""
    numbers = {(line.source, line.profile.name): n for n, line in enumerate(world.lines)}
    found: dict[int, int] = {}
    for message in newest_messages(client, topic, per_partition):
        for key, time_us in _events_in(message.value()):
            number = numbers.get(key)
            if number is not None:
                found[number] = max(found.get(number, 0), time_us)
    return found


def write_stretch(
    world: World,
    producer: TopicProducer,
    topic: str,
    start_us: int,
    end_us: int,
    *,
    stop: Stop,
    encoder: JsonEncoder,
    rate: float | None = None,
    after: Mapping[int, int] | None = None,
    truth: TruthFile | None = None,
    progress: Progress | None = None,
) -> int:
    """Put the world's events of [start, end) on the topic; returns how many.

    ``after`` names for a series the time it was already told up to.
    """
    per_interval = len(world.lines) / world.interval_us
    step = max(world.interval_us, int(CHUNK_EVENTS / per_interval))
    sent, at = 0, start_us
    while at < end_us and not stop:
        until = min(end_us, at + step)
        columns = untold(world.columns(at, until), after or {}, len(world.lines))
        before, share = sent, (until - start_us) / (end_us - start_us)

        def told(now: int, before: int = before, share: float = share) -> None:
            if progress is not None:
                progress.show(before + now, share)

        sent += send_paced(
            producer, topic, encoder.records(columns), stop=stop, rate=rate, told=told
        )
        if truth is not None:
            truth.write(world.faults_starting(at, until))
        at = until
    return sent


def go_live(
    world: World,
    producer: TopicProducer,
    topic: str,
    from_us: int,
    *,
    clock: Clock,
    stop: Stop,
    encoder: JsonEncoder,
    truth: TruthFile | None = None,
    tell: Callable[[str], None] = lambda line: None,
    tell_every_s: float = 60.0,
) -> int:
    """Send each event at its time, until stopped; returns how many."""
    sent, told_at, at = 0, clock.monotonic(), from_us
    pause_s = min(1.0, max(0.02, world.interval_us / 1e6 / 10))
    while not stop:
        now = clock.now_us()
        if now > at:
            sent += write_stretch(
                world, producer, topic, at, now, stop=stop, encoder=encoder, truth=truth
            )
            for fault in world.faults_starting(at, now):
                line = world.lines[fault.line]
                tell(f"fault: {fault.kind} of {line.profile.name} on {line.source}")
            at = now
        producer.poll()
        if clock.monotonic() - told_at >= tell_every_s:
            told_at = clock.monotonic()
            tell(f"live: {sent:,} events so far")
        stop.wait(pause_s)
    return sent


def resume_point(last: Mapping[int, int], history_from_us: int) -> int:
    """Where to go on: just after the series that lags most, but not before the history."""
    return max(history_from_us, min(last.values())) if last else history_from_us


def untold(columns: Columns, after: Mapping[int, int], lines: int) -> Columns:
    """The events that are newer than what each series was told up to."""
    if not after:
        return columns
    limits = np.full(lines, np.iinfo(np.int64).min)
    for number, time_us in after.items():
        limits[number] = time_us
    return columns.take(columns.time_us > limits[columns.line])


def describe(start_us: int, end_us: int) -> str:
    """`2024-01-01 12:00 to 2024-01-03 12:00 UTC`."""
    return f"{from_us(start_us):%Y-%m-%d %H:%M} to {from_us(end_us):%Y-%m-%d %H:%M} UTC"


def _events_in(raw: bytes | None) -> list[tuple[tuple[str, str], int]]:
    """(source, metric) and time of an event of ours; empty for anything else."""
    try:
        event = msgspec.json.decode(raw or b"")
        time_us = parse_one(event["timestamp"])
        source = str(event["source"])
        metrics = list(event["values"]) if "values" in event else [str(event["metric"])]
    except (msgspec.DecodeError, TimestampError, KeyError, TypeError, ValueError):
        return []
    return [((source, metric), time_us) for metric in metrics]
