"""Interleaves measured runs, each in a process of its own, and reduces them to medians."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic

from config.benchmark.load import messages, wide_messages
from config.benchmark.runs import Measured
from streams.producer import TopicProducer

PARTITIONS = 4
KINDS = ("online", "forest", "models")  # no stored model, the forest, all of them
BARE = {"wide": "bare-wide"}  # what stands beside a kind, where it is not `bare`
CHILD_TIMEOUT_S = 900


def fill(
    client: dict[str, Any], topic: str, events: int, series: int, *, wide: bool = False
) -> None:
    """Make the topic and write its events: single values, or wide ones of so many sources."""
    admin = AdminClient(client)
    wanted = NewTopic(topic, PARTITIONS, 1, config={"retention.ms": "-1"})
    admin.create_topics([wanted])[topic].result(30)
    with TopicProducer(client) as producer:
        producer.send_many(topic, (wide_messages if wide else messages)(events, series))


def drop(client: dict[str, Any], topics: list[str]) -> None:
    """The benchmark leaves nothing behind."""
    if topics:
        admin = AdminClient(client)
        for future in admin.delete_topics(topics).values():
            future.result(30)


def run(kind: str, topic: str, events: int, series: int, env: dict[str, str]) -> Measured:
    """One run in a fresh process of this same program."""
    argv = [sys.argv[0], "benchmark", "--run", kind, "--topic", topic]
    argv += ["--events", str(events), "--series", str(series)]
    done = subprocess.run(
        [sys.executable, *argv],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=CHILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the run {kind} failed:\n{done.stderr[-2000:]}{done.stdout[-500:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def interleaved(
    kinds: tuple[str, ...],
    rounds: int,
    one: Callable[[str], Measured],
    say: Callable[[str], None],
) -> dict[str, dict[str, float]]:
    """Each kind next to bare in every round, so that a slow moment of the machine hits both.

    ``rate_to_bare`` and ``cpu_to_bare`` are medians of the rounds' own ratios.
    """
    found: dict[str, list[Measured]] = {kind: [] for kind in ("bare", *kinds)}
    ratios: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for number in range(rounds):
        base = one(BARE.get(kinds[0], "bare"))
        found["bare"].append(base)
        for kind in kinds:
            measured = one(kind)
            found[kind].append(measured)
            ratios[kind].append((_rate(measured) / _rate(base), _cpu(base) / _cpu(measured)))
        line = ", ".join(f"{k} {_rate(v[-1]):,.0f}/s" for k, v in found.items())
        say(f"round {number + 1} of {rounds}: {line}")
    out: dict[str, dict[str, float]] = {}
    for kind, runs in found.items():
        out[kind] = {
            "events": runs[0].events,
            "events_per_s": round(median(_rate(m) for m in runs)),
            "cpu_us_per_event": round(median(_cpu(m) for m in runs), 3),
            "rate_to_bare": 1.0,
            "rss_mb": round(median(m.rss_mb for m in runs), 1),
            "rss_grown_mb": round(median(m.rss_mb - m.rss_before_mb for m in runs), 1),
            "onsets": runs[0].onsets,
        }
        if kind != "bare":
            out[kind]["rate_to_bare"] = round(median(r for r, _ in ratios[kind]), 3)
            out[kind]["cpu_to_bare"] = round(median(c for _, c in ratios[kind]), 3)
    return out


def _rate(measured: Measured) -> float:
    return measured.events / measured.wall_s


def _cpu(measured: Measured) -> float:
    return measured.cpu_s / measured.events * 1e6
