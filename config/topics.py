"""Makes the topics that Vigil reads and writes, with the settings' partitions and retention."""

from __future__ import annotations

from collections.abc import Iterator

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from config.schema import VigilConfig

TIMEOUT_S = 10.0
# A dead letter carries its whole event, so it may be larger than the broker's usual limit.
DEAD_LETTER_MAX_BYTES = 16 * 1024 * 1024


class TopicsError(Exception):
    """The topics can't be made; the message is for people."""


def ensure_topics(config: VigilConfig, *, timeout_s: float = TIMEOUT_S) -> Iterator[str]:
    """Makes what is missing and yields a line for each topic; what exists is never changed."""
    kafka = config.kafka
    client = AdminClient(kafka.client_config() | {"log_level": 0})
    try:
        present = client.list_topics(timeout=timeout_s).topics
        missing = [name for name in config.topics if name not in present]
        existing = [name for name in config.topics if name in present]
        yield from _create(client, config, missing)
        retention = _retention_hours(client, existing, timeout_s)
    except KafkaException as error:
        raise TopicsError(_unreachable(kafka.bootstrap_servers, error)) from None
    for name in existing:
        differences = []
        partitions = len(present[name].partitions)
        if partitions != kafka.partitions:
            differences.append(f"{partitions} partitions, the settings say {kafka.partitions}")
        kept = retention.get(name)
        if kept is not None and abs(kept - kafka.retention_hours) > 1e-3:
            differences.append(f"kept {kept:g} h, the settings say {kafka.retention_hours:g} h")
        yield f"{name}: exists" + (f" ({'; '.join(differences)}; left so)" if differences else "")


def _create(client: AdminClient, config: VigilConfig, names: list[str]) -> Iterator[str]:
    if not names:
        return
    kafka = config.kafka
    retention = {"retention.ms": str(round(kafka.retention_hours * 3_600_000))}
    wanted = [
        NewTopic(
            name,
            num_partitions=kafka.partitions,
            replication_factor=kafka.replication_factor,
            config=retention
            | (
                {"max.message.bytes": str(DEAD_LETTER_MAX_BYTES)}
                if name == kafka.dead_letter_topic
                else {}
            ),
        )
        for name in names
    ]
    for name, future in client.create_topics(wanted).items():
        try:
            future.result(TIMEOUT_S)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:  # someone else was quicker
                raise TopicsError(
                    f"The topic {name} could not be made: {reason.str()}. It was asked for with "
                    f"kafka.partitions = {kafka.partitions} and kafka.replication_factor = "
                    f"{kafka.replication_factor}."
                ) from None
        yield f"{name}: made, {kafka.partitions} partitions, kept {kafka.retention_hours:g} h"


def _retention_hours(client: AdminClient, names: list[str], timeout_s: float) -> dict[str, float]:
    if not names:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    answers = client.describe_configs(resources, request_timeout=timeout_s)
    return {
        resource.name: int(future.result()["retention.ms"].value) / 3_600_000
        for resource, future in answers.items()
    }


def _unreachable(servers: str, error: KafkaException) -> str:
    reason: KafkaError = error.args[0]
    return (
        f"Kafka at {servers} can't be used: {reason.str()}.\n"
        "Start the embedded one with `make run`, or name yours in KAFKA_BOOTSTRAP_SERVERS "
        "(kafka.bootstrap_servers in config.yaml)."
    )
