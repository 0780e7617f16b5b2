"""How long an anomaly takes from its commit to the browsers: a real consumer, one Daphne, and many
WebSocket clients of ours.

Counted from the moment the row carries, which is taken before its transaction commits, so a figure
is never too small.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from json import loads
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from config.benchmark import latency
from config.benchmark.latency import LatencyError

WARM_UP_S = 15.0  # each series needs its first events, and its first alarms are not the rule
SETTLE_S = 3.0
CONSUMER_WITHIN_S = 600.0  # kernels may have to be compiled
READY_WITHIN_S = 90.0

_STORED = """
SELECT id::text, extract(epoch FROM stored_at)::float8 FROM anomalies_anomaly WHERE stored_at > %s
"""


def measure(
    client: dict[str, Any],
    name: str,
    env: dict[str, str],
    folder: Path,
    *,
    clients: int,
    rate: float,
    seconds: float,
    partitions: int,
) -> dict[str, Any]:
    """Send at `rate` for `seconds` while `clients` listen; see the module.

    Raises:
        LatencyError: a process did not start, or clients were cut off.
    """
    log = folder / f"{name}.log"
    out = folder / f"{name}.json"
    with ExitStack() as stack:
        stack.enter_context(latency.topics_of_our_own(client, name, partitions))
        watcher = stack.enter_context(latency.Watcher(env["DATABASE_URL"]))
        url = stack.enter_context(daphne(env, folder / f"{name}-web.log"))
        process = stack.enter_context(latency.consumer(name, env, log, live=True))
        latency.await_(
            lambda: len(watcher.next_offset) >= partitions, CONSUMER_WITHIN_S, process, log
        )
        listeners = stack.enter_context(listening(url, clients, out))
        sent: list[latency.Sent] = []
        began, whole_s = time.time(), seconds + WARM_UP_S
        producing = threading.Thread(
            target=lambda: sent.append(latency.produce(client, name, rate, whole_s))
        )
        producing.start()
        producing.join()
        ended = time.time()
        time.sleep(SETTLE_S)
        listeners.communicate(timeout=60)
        if listeners.returncode:
            raise LatencyError("the clients ended early; see what they say above")
        # Of the last second some are still on their way when the clients go.
        first, last = began + WARM_UP_S, ended - 1.0
        with psycopg.connect(env["DATABASE_URL"]) as connection:
            stored: dict[str, float] = dict(
                connection.execute(_STORED, [datetime.fromtimestamp(first, UTC)]).fetchall()
            )
    result = loads(out.read_text())
    return _figures(result, stored, last) | {
        "clients": clients,
        "rate_per_s": round(len(sent[0].offset) / (ended - began)),
        "seconds": seconds,
    }


def _figures(result: dict[str, Any], stored: dict[str, float], last: float) -> dict[str, Any]:
    delays, times = [], dict.fromkeys((k for k, at in stored.items() if at <= last), 0)
    for ids, moment in result["heard"]:
        for identity in ids:
            if identity in times:
                times[identity] += 1
                delays.append(moment - stored[identity])
    if not delays:
        raise LatencyError("no anomaly was pushed: longer or faster, please")
    return {
        "anomalies": len(times),
        "pushes": len(delays),
        "messages": result["messages"],
        "lost": result["lost"],
        "resyncs": result["resyncs"],
        "dropped": result["dropped"],
        "per_anomaly": {"least": min(times.values()), "most": max(times.values())},
        "push_ms": latency.percentiles(np.array(delays)),
    }


@contextmanager
def daphne(env: dict[str, str], log: Path) -> Iterator[str]:
    """One web process on a free port, which lets programs of this machine in; its socket's URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "daphne", "-v", "0", "-b", "127.0.0.1", "-p", str(port),
               "config.asgi:application"]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env={**os.environ, **env, "VIGIL_API__OPEN": "true"}, stdout=out, stderr=out
        )
        try:
            deadline = time.monotonic() + READY_WITHIN_S
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    said = log.read_text(errors="replace")[-2000:]
                    raise LatencyError(f"the web process did not start:\n{said}")
                time.sleep(0.1)
            yield f"ws://127.0.0.1:{port}/ws"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def listening(url: str, clients: int, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The clients, all of them connected."""
    process = subprocess.Popen(
        [sys.executable, "-m", "config.benchmark.listeners", url, str(clients), str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != b"ready":
            raise LatencyError("the clients could not connect; see what they say above")
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
