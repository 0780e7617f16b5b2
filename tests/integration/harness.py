"""Real consumers as processes of their own on a topic of known events, and what they stored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from confluent_kafka import Producer
from django.db import connection
from django.db.models import CharField, Func, Value

from anomalies.models import Anomaly, Candidate, Outbox
from detection.models import Disagreement, FeatureHour, ShadowHour
from streams.models import DeadLetter, PartitionOffset, Rollup, Stream

ROOT = Path(__file__).resolve().parents[2]
MINUTE = 60

Message = tuple[int, bytes]  # partition, value


def database_url() -> str:
    """The test database's address, for child processes."""
    parts = urlsplit(os.environ["DATABASE_URL"])
    return urlunsplit(parts._replace(path="/" + str(connection.settings_dict["NAME"])))


def events(
    n: int,
    partitions: int,
    series: int,
    seed: int = 3,
    faults: float = 0.0005,
    healthy: int = 300,
) -> list[Message]:
    """``n`` messages: seasons, noise, faults, late events, repeated minutes and broken messages.

    The first ``healthy`` events of a series have no fault, the others begin one by ``faults``.
    """
    rng = np.random.default_rng(seed)
    kind = rng.random(n)
    noise = rng.normal(0, 1, n)
    out: list[Message] = []
    count = [0] * series
    fault_until = [0] * series
    for i in range(n):
        s = i % series
        partition = s % partitions
        if kind[i] < 0.0005:
            out.append((partition, b'{"source": "s", "metric": 5}'))
            continue
        t = count[s]
        count[s] += 1
        if t > healthy and kind[i] > 1 - faults:
            fault_until[s] = t + int(rng.integers(1, 40))
        value = 50 + 10 * np.sin(t / 50 + s) + noise[i]
        if t < fault_until[s]:
            value += 60
        second = 1_704_067_200 + t * 7
        if 0.3 < kind[i] < 0.302:
            second -= 200
        body = {
            "source": f"machine-{s // 2}",
            "metric": "cpu" if s % 2 else "mem",
            "value": float(value),
            "timestamp": second,
        }
        out.append((partition, json.dumps(body).encode()))
    return out


def wide_events(
    n: int, partitions: int, seed: int = 8, values: int = 5, fault: tuple[int, int] = (430, 480)
) -> list[Message]:
    """``n`` wide messages of one plant a partition: values that move together, some of them null.

    Those from ``fault`` on move apart; every 50th message lacks a value, so it has another schema.
    """
    rng = np.random.default_rng(seed)
    mix = rng.normal(0, 1, (3, values))
    out: list[Message] = []
    for i in range(n):
        partition, t = i % partitions, i // partitions
        hidden = np.sin(t / np.array([11.0, 17.0, 29.0]) + partition)
        x = hidden @ mix + rng.normal(0, 0.2, values)
        if fault[0] <= t < fault[1]:
            x[1] += 15
        body = {f"v{j}": float(x[j]) for j in rng.permutation(values)}
        if t % 40 == 7:
            body["v2"] = None  # type: ignore[assignment]
        if t % 50 == 49:
            del body["v4"]
        message = {
            "source": f"plant-{partition}",
            "values": body,
            "timestamp": 1_704_067_200 + t * 9,
        }
        out.append((partition, json.dumps(message).encode()))
    return out


def interleaved(*kinds: list[Message]) -> list[Message]:
    """All messages, each kind in its order and spread evenly over the whole."""
    placed = [
        ((i + 0.5) / len(kind), number, message)
        for number, kind in enumerate(kinds)
        for i, message in enumerate(kind)
    ]
    return [message for _, _, message in sorted(placed, key=lambda p: p[:2])]


def produce(bootstrap: str, topic: str, messages: list[Message]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 50})
    for partition, value in messages:
        while True:
            try:
                producer.produce(topic, value, partition=partition)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


class Consumer:
    """One `manage.py runconsumer` process; conftest ends those that a failed test leaves."""

    started: ClassVar[list[Consumer]] = []

    def __init__(self, stream: str, topic: str, group: str, *args: str, **env: str) -> None:
        self.environment = {
            **os.environ,
            "DATABASE_URL": database_url(),
            "VIGIL_STREAMS": json.dumps([{"name": stream, "topic": topic}]),
            "VIGIL_KAFKA__GROUP_ID": group,
            "VIGIL_KAFKA__SESSION_TIMEOUT_MS": "3000",
            "VIGIL_KAFKA__BATCH_WAIT_MS": "20",
            "VIGIL_CONSUMER__SNAPSHOT_INTERVAL_S": "0.3",
            "VIGIL_CONSUMER__ROLLUP_FLUSH_S": "0.2",
            "VIGIL_DASHBOARD__REAL_TIME_UPDATES": "false",
            **env,
        }
        # A file: nobody has to read it for the consumer to go on.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "runconsumer", *args],
            cwd=ROOT,
            env=self.environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self.started.append(self)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def output(self) -> str:
        """What it has said so far."""
        return os.pread(self._log.fileno(), 1 << 24, 0).decode()

    def wait(self, timeout_s: float = 120, code: int = 0) -> str:
        try:
            found = self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the consumer did not end:\n{self.output()[-4000:]}") from None
        assert found == code, self.output()[-4000:]
        return self.output()

    def stop(self) -> str:
        self.signal(signal.SIGTERM)
        return self.wait(30)


def stored_events(topic: str) -> int:
    """Events whose effects are committed, over all partitions."""
    rows = PartitionOffset.objects.filter(incarnation__stream__topic=topic)
    return sum(rows.values_list("events", flat=True))


def await_until(
    condition: Callable[[], bool], timeout_s: float = 60, every_s: float = 0.005
) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the awaited condition did not come"
        time.sleep(every_s)


_ANOMALY = (
    "partition", "offset", "source", "metric", "kind", "anomaly_type", "state", "severity",
    "onset_at", "end_at", "count", "value", "score", "peak_value", "peak_score", "peak_at",
    "direction", "expected_low", "expected_mid", "expected_high", "threshold", "policy",
    "detectors", "features", "context", "explanation", "last_offset", "late",
)  # fmt: skip
_CANDIDATE = (
    "partition", "offset", "series__source", "series__metric", "event_at", "value", "score",
    "direction", "deviation", "expected_mid", "levels",
)  # fmt: skip
_ROLLUP = (
    "series__source", "series__metric", "minute", "partition", "first_offset", "count", "scored",
    "min", "max", "mean", "last", "max_score", "expected_low", "expected_mid", "expected_high",
    "score_counts", "onset_counts",
)  # fmt: skip
_SHADOW = (
    "partition", "hour", "events", "both", "only_champion", "only_challenger", "champion_onsets",
    "challenger_onsets",
)  # fmt: skip
_DISAGREEMENT = (
    "partition", "offset", "series__source", "series__metric", "event_at", "value",
    "champion_score", "challenger_score",
)  # fmt: skip
_DRIFT = ("partition", "metric", "hour", "kind", "counts")
_OUTBOX = ("partition", "sequence", "kind", "anomaly__offset", "anomaly__source", "anomaly__metric")


def stored(topic: str) -> dict[str, list[Any]]:
    """Everything the events of a topic left behind, but ids and wall-clock times."""
    stream = Stream.objects.get(topic=topic)
    mine = {"incarnation__stream": stream}
    return {
        "anomalies": _rows(Anomaly.objects.filter(**mine), _ANOMALY),
        "candidates": _rows(Candidate.objects.filter(**mine), _CANDIDATE),
        "rollups": _rows(Rollup.objects.filter(**mine), _ROLLUP),
        "outbox": _rows(Outbox.objects.filter(**mine), _OUTBOX),
        "shadow": _rows(ShadowHour.objects.filter(challenger__stream=stream), _SHADOW),
        "disagreements": _rows(Disagreement.objects.filter(**mine), _DISAGREEMENT),
        # a score's counts name the model's row, which differs from topic to topic
        "drift": _rows(
            FeatureHour.objects.filter(stream=stream).annotate(
                kind=Func(
                    "feature",
                    Value(":"),
                    Value(1),
                    function="split_part",
                    output_field=CharField(),
                )
            ),
            _DRIFT,
        ),
        "dead letters": _rows(DeadLetter.objects.filter(**mine), ("partition", "offset", "reason")),
        "counts": _rows(
            PartitionOffset.objects.filter(**mine),
            ("partition", "next_offset", "events", "rejects"),
        ),
    }


def _rows(query: Any, names: tuple[str, ...]) -> list[Any]:
    return sorted(json.dumps(row, default=str) for row in query.values_list(*names))


def assert_same(expected: dict[str, list[Any]], found: dict[str, list[Any]]) -> None:
    for name, rows in expected.items():
        missing = [r[:300] for r in sorted(set(rows) - set(found[name]))[:2]]
        extra = [r[:300] for r in sorted(set(found[name]) - set(rows))[:2]]
        assert rows == found[name], (
            f"{name}: {len(rows)} rows expected, {len(found[name])} found;"
            f" missing e.g. {missing}, unexpected e.g. {extra}"
        )
