"""Builds the consumer out of every app's parts; the only module that knows them all."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from anomalies.announce import Announcer
from anomalies.emit import Emitter
from anomalies.live import LivePublisher
from anomalies.store import AnomalySink
from config.schema import Stream as StreamConfig
from config.schema import VigilConfig
from detection.ensemble import weights_for
from detection.errors import DetectionError
from detection.model_store import load
from detection.registry import compile_models
from detection.scoring import LoadedModel, ScoringEngine
from detection.versions import VersionKeeper, compile_version
from streams import audit
from streams.audit import Action
from streams.codec import Codec
from streams.consumer import GroupConsumer
from streams.errors import StreamsError, UnusableError
from streams.models import Stream
from streams.producer import TopicProducer
from streams.runner import Lane, Runner, RunnerSettings, utc_now
from streams.series import SeriesIndex
from streams.status import StatusReporter

# What a person can mend: told as a sentence, without a traceback.
CREATED = ("created_at",)
KNOWN_ERRORS = (StreamsError, DetectionError)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line of the consumer may set."""

    start: str | int = "stored"
    max_events: int | None = None
    exit_at_end: bool = False


def scoring_base(config: VigilConfig) -> dict[str, Any]:
    """The configuration's part of a scoring version: detectors, ensemble, episodes."""
    detection = config.anomaly_detection
    detectors = detection.detectors.model_dump(mode="json")
    given = dict(detection.weights)
    # The configuration speaks of statistical methods, the registry of one detector for each; a
    # weight of "statistical" is that of every method without one of its own.
    options = detectors.pop("statistical")
    methods = options.pop("method")
    detectors |= {method: dict(options) for method in methods}
    if "statistical" in given:
        given = dict.fromkeys(methods, given.pop("statistical")) | given
    names = sorted(detectors)
    weights = dict(zip(names, map(float, weights_for(names, given)), strict=True))
    return {
        "detectors": detectors,
        "combine": detection.combine,
        "own_tails": detection.own_tails,
        "weights": weights,
        "threshold": detection.threshold,
        "quiet_events": detection.episode_quiet_events,
        "max_gap_s": detection.max_gap_s,
        "max_onsets_per_day": detection.max_onsets_per_day,
        "silence": detection.silence.model_dump(mode="json"),
    }


def ensure_stream(config: VigilConfig, given: StreamConfig) -> Stream:
    """The stream's row; what the configuration says of it counts, a new name of a topic as well.

    Raises:
        UnusableError: name and topic belong to two streams.
    """
    topic = given.topic or config.kafka.input_topic
    of_topic = Stream.objects.filter(topic=topic).first()
    named = Stream.objects.filter(name=given.name).first()
    if of_topic is not None and named is not None and of_topic.pk != named.pk:
        raise UnusableError(
            f"streams: {given.name} can't watch topic {topic}: that topic is the stream"
            f" {of_topic.name}'s, and {given.name} has watched {named.topic}. Give the stream of"
            f" topic {topic} a name that no other one has had."
        )
    row = of_topic or named or Stream()
    before = audit.facts(row, CREATED) if row.pk else None
    row.name, row.topic = given.name, topic
    row.time_zone = given.time_zone
    row.naive_time_zone = given.naive_time_zone or ""
    row.mapping = mapping_of(given)
    with transaction.atomic():
        row.save()
        action = Action.CREATED if before is None else Action.CHANGED
        audit.record("config.yaml", action, row, before, audit.facts(row, CREATED))
    return row


def mapping_of(given: StreamConfig) -> dict[str, str]:
    """The field paths that are set."""
    found: Mapping[str, str | None] = given.mapping.model_dump()
    return {name: path for name, path in found.items() if path}


def load_model(identity: int) -> LoadedModel:
    """A stored model, its hash checked."""
    row, detector = load(identity)
    return LoadedModel(row.algorithm, row.metric, row.version, row.sha256, detector, row.pk)


def warm_up(config: VigilConfig) -> None:
    """Compile or load every kernel before the first real batch: readiness means no pause later."""
    engine = ScoringEngine(SeriesIndex())
    codec = Codec(engine.index)
    bodies = [
        b'{"source": "a", "metric": "b", "value": 1.5, "timestamp": "2024-01-01T00:00:00Z"}',
        b'{"source": "a", "values": {"b": 1.5, "c": 2}, "timestamp": "2024-01-01T00:00:00Z"}',
    ]
    payload = {**scoring_base(config), "time_zone": "UTC", "policies": [], "models": []}
    version = compile_version(0, payload, load_model)
    engine.attach(0)
    compile_models()  # a champion may come at any time
    for _ in range(2):
        decoded = codec.decode([_Sample(body) for body in bodies])
        for batch in (decoded.batch, *decoded.vectors):
            engine.process(batch, version, {})


def settle() -> None:
    """Set the interpreter up for a long loop over batches; call it last before the loop."""
    # What is loaded now lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # A batch makes tens of thousands of objects that reference counting frees by itself.
    gc.set_threshold(200_000, 20, 100)
    # Three threads share the interpreter; at the default of 5 ms one would starve the others
    # behind every short call into numpy.
    sys.setswitchinterval(0.0001)


class _Sample:
    """A message that came from nowhere."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def value(self) -> bytes | None:
        return self._raw

    def key(self) -> bytes | None:
        return None

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 0


def build_lane(
    config: VigilConfig,
    given: StreamConfig,
    loader: Callable[[int], LoadedModel] = load_model,
) -> Lane:
    """One stream's way from bytes to rows."""
    stream = ensure_stream(config, given)
    engine = ScoringEngine(SeriesIndex())
    send_events = None
    if config.anomaly_detection.emit == "all":
        client = config.kafka.client_config()
        send_events = Emitter(
            lambda: TopicProducer(client, linger_ms=5, delivery_timeout_ms=10_000),
            config.kafka.output_topic,
        )
    return Lane(
        stream=stream,
        codec=Codec(
            engine.index,
            stream.mapping,
            stream.naive_time_zone or None,
            config.consumer.max_series,
        ),
        engine=engine,
        versions=VersionKeeper(stream, scoring_base(config), loader),
        sink=AnomalySink(stream, engine, utc_now, send_events),
    )


def build_runner(
    config: VigilConfig, instance: str, options: RunOptions, redis_url: str | None
) -> Runner:
    """The whole consumer of one process."""
    kafka = config.kafka
    client = kafka.client_config()
    push = None
    if redis_url and config.dashboard.real_time_updates:
        push = LivePublisher(redis_url)
    return Runner(
        GroupConsumer(
            client,
            group_id=kafka.group_id,
            instance_id=kafka.group_instance_id,
            session_timeout_ms=kafka.session_timeout_ms,
        ),
        [build_lane(config, given) for given in config.streams],
        RunnerSettings(
            instance=instance,
            batch_size=kafka.batch_size,
            batch_wait_s=kafka.batch_wait_ms / 1000,
            snapshot_interval_s=config.consumer.snapshot_interval_s,
            snapshot_chunk_bytes=config.consumer.snapshot_chunk_bytes,
            flush_s=config.consumer.rollup_flush_s,
            config_poll_s=config.consumer.config_poll_s,
            start=options.start,
            max_events=options.max_events,
            exit_at_end=options.exit_at_end,
            dead_letter_ratio_limit=config.consumer.dead_letter_ratio_limit,
        ),
        Announcer(
            lambda: TopicProducer(client, linger_ms=5),
            kafka.output_topic,
            kafka.statistics_topic,
            push,
            kafka.dead_letter_topic,
        ),
        StatusReporter(instance),
    )
