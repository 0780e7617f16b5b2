"""`manage.py benchmark`: the consumer's speed next to bare consume-and-decode, or its latency."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.benchmark import latency, live, measure, web
from config.benchmark.load import VALUES
from config.benchmark.model import promote_models
from config.benchmark.runs import Measured, bare, whole
from config.embedded.errors import EmbeddedError
from config.embedded.stack import PARTS, EmbeddedStack, unnamed_parts
from config.management.commands.seed_demo import NAME as SEEDED
from config.schema import VigilConfig
from detection.registry import MODEL_DETECTORS

# Of each series thousands where that can be had: its first hundreds, with their alarms, are not
# the rule.
EVENTS = 4_000_000
MOST_EVENTS, EVENTS_A_SERIES = 10_000_000, 1_000
SIZES = (1, 1_000, 10_000, 100_000)


class Command(BaseCommand):
    requires_system_checks: tuple[str, ...] = ()  # they import every page
    help = (
        "Measure the consumer: CPU per event and events/s, as a ratio to bare consume-and-decode"
        " in the same run. Uses servers of its own unless some are named in the environment."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", type=Path, help="write the figures to this file")
        parser.add_argument("--rounds", type=int, default=5)
        parser.add_argument("--events", type=int, default=EVENTS)
        parser.add_argument("--series", type=int, default=1_000, help="of the main measure")
        parser.add_argument(
            "--wide",
            action="store_true",
            help="measure instead wide events: --events messages of eight values each",
        )
        parser.add_argument("--quick", action="store_true", help="leave out 1 to 100,000 series")
        parser.add_argument(
            "--latency",
            action="store_true",
            help="measure instead how long events take to their committed row at a steady rate",
        )
        parser.add_argument(
            "what",
            nargs="?",
            choices=("web", "live"),
            help="web: how long pages take in the server, on --anomalies made-up ones; live: how"
            " long anomalies take to the browsers that --clients stand for",
        )
        parser.add_argument("--anomalies", type=int, default=1_000_000, help="of web")
        parser.add_argument("--requests", type=int, default=20, help="of each page of web")
        parser.add_argument("--clients", default="100,500", help="of live, one measure each")
        parser.add_argument(
            "--rate", type=float, help="events/s: 1,000 with --latency, 20,000 with live"
        )
        parser.add_argument("--seconds", type=float, default=20, help="of --latency and live")
        parser.add_argument(
            "--run",
            choices=("bare", "online", "forest", "models", "bare-wide", "wide", "web"),
            help="(one inner run)",
        )
        parser.add_argument("--topic", help="(of an inner run)")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["run"] == "web":
            self.stdout.write(json.dumps([asdict(p) for p in self._pages(options["requests"])]))
            return
        if options["run"]:
            self.stdout.write(json.dumps(self._inner(settings.VIGIL, options).as_dict()))
            return
        if options["rounds"] < 1 or options["events"] < 10_000 or options["series"] < 1:
            raise CommandError("--rounds and --series are at least 1, --events at least 10,000")
        options["rate"] = options["rate"] or (20_000 if options["what"] == "live" else 1_000)
        if not 1 <= options["rate"] <= 20_000 or not 1 <= options["seconds"] <= 3_600:
            raise CommandError("--rate is 1 to 20,000 events a second, --seconds 1 to 3,600")
        sizes = self._sizes(options["clients"])
        with ExitStack() as stack:
            env = self._servers(stack)
            self._child(env, "migrate", "--skip-checks", "--verbosity", "0")
            if options["what"] == "web":
                figures = {"pages": self._web(env, options)}
            elif options["what"] == "live":
                figures = {"live": [self._live(env, options, n) for n in sizes]}
            elif options["latency"]:
                figures = self._latency(env, options)
            elif options["wide"]:
                figures = self._wide(stack, env, options)
            else:
                figures = self._measure(stack, env, options)
        if options["what"] == "web":
            self._page_table(figures["pages"])
        elif options["what"] == "live":
            self._pushes(figures["live"])
        elif options["latency"]:
            self._latencies(figures)
        elif options["wide"]:
            self.stdout.write(
                f"\n{figures['events']:,} messages of {len(VALUES)} values, {figures['sources']:,}"
                f" sources, median of {figures['rounds']} rounds\n"
            )
            self._rows({kind: figures[kind] for kind in ("bare", "wide")})
        else:
            self._table(figures)
        if options["json"]:
            options["json"].write_text(json.dumps(figures, indent=2) + "\n")

    @staticmethod
    def _pages(requests: int) -> list[web.PageTime]:
        try:
            return web.measure(SEEDED, requests)
        except web.WebError as error:
            raise CommandError(str(error)) from None

    def _web(self, env: dict[str, str], options: dict[str, Any]) -> list[dict[str, Any]]:
        self.stdout.write(f"making up {options['anomalies']:,} anomalies …")
        self._child(env, "seed_demo", "--skip-checks", "--anomalies", str(options["anomalies"]))
        argv = ["benchmark", "--run", "web", "--requests", str(options["requests"])]
        done = subprocess.run(
            [sys.executable, sys.argv[0], *argv],
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        pages: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        return pages

    def _page_table(self, pages: list[dict[str, Any]]) -> None:
        self.stdout.write(f"{'p50 ms':>8} {'p95 ms':>8} {'queries':>8} {'kB':>7}  page")
        for p in pages:
            times = f"{p['p50_ms']:8.1f} {p['p95_ms']:8.1f}"
            self.stdout.write(f"{times} {p['queries']:8d} {p['kb']:7.1f}  {p['path']}")

    def _inner(self, config: VigilConfig, options: dict[str, Any]) -> Measured:
        detection = config.anomaly_detection
        run = options["run"]
        stored = {"forest": ["isolation_forest"], "models": list(MODEL_DETECTORS)}.get(run, [])
        wanted = {
            name: getattr(detection.detectors, name).model_copy(update={"enabled": name in stored})
            for name in MODEL_DETECTORS
        }
        detectors = detection.detectors.model_copy(update=wanted)
        config = config.model_copy(
            update={"anomaly_detection": detection.model_copy(update={"detectors": detectors})}
        )
        client = config.kafka.client_config()
        topic = options["topic"]
        if run.startswith("bare"):
            wide = run == measure.BARE["wide"]
            return bare(client, topic, measure.PARTITIONS, options["events"], wide=wide)
        if run == "wide":
            return whole(config, topic, values=len(VALUES))
        return whole(config, topic, partial(promote_models, algorithms=stored))

    def _servers(self, stack: ExitStack) -> dict[str, str]:
        """Addresses for the inner runs; a database of our own: nobody's rows are touched."""
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vigil-benchmark-"))
        env = {"VIGIL_DATA_DIR": folder}
        missing = unnamed_parts(name for name in PARTS if os.environ.get(name))
        if missing:
            try:
                servers = stack.enter_context(EmbeddedStack(Path(folder), parts=missing))
            except EmbeddedError as error:
                raise CommandError(str(error)) from None
            env |= servers.env
        address = env.get("DATABASE_URL") or os.environ["DATABASE_URL"]
        name = f"vigil_benchmark_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        stack.callback(_drop_database, address, name)
        env["DATABASE_URL"] = urlunsplit(urlsplit(address)._replace(path=f"/{name}"))
        env["VIGIL_LOG_LEVEL"] = "WARNING"
        return env

    @staticmethod
    def _client(env: dict[str, str]) -> dict[str, Any]:
        named = env.get("KAFKA_BOOTSTRAP_SERVERS") or os.environ["KAFKA_BOOTSTRAP_SERVERS"]
        return settings.VIGIL.kafka.client_config() | {"bootstrap.servers": named}

    def _latency(self, env: dict[str, str], options: dict[str, Any]) -> dict[str, Any]:
        rate, seconds = options["rate"], options["seconds"]
        self.stdout.write(f"{rate:,.0f} events/s for {seconds:g} s …")
        try:
            return latency.measure(
                self._client(env),
                f"vigil-latency-{uuid.uuid4().hex[:8]}",
                env,
                Path(env["VIGIL_DATA_DIR"]),
                rate=rate,
                seconds=seconds,
                partitions=measure.PARTITIONS,
            )
        except latency.LatencyError as error:
            raise CommandError(str(error)) from None

    @staticmethod
    def _sizes(text: str) -> list[int]:
        words = text.split(",")
        sizes = [int(word) for word in words if word.isdecimal() and len(word) < 6]
        if len(sizes) != len(words) or not all(1 <= n <= 5_000 for n in sizes):
            raise CommandError("--clients is numbers from 1 to 5,000, such as 100,500")
        return sizes

    def _live(self, env: dict[str, str], options: dict[str, Any], clients: int) -> dict[str, Any]:
        rate, seconds = options["rate"], options["seconds"]
        self.stdout.write(f"{clients:,} clients, {rate:,.0f} events/s for {seconds:g} s …")
        try:
            return live.measure(
                self._client(env),
                f"vigil-live-{uuid.uuid4().hex[:8]}",
                env,
                Path(env["VIGIL_DATA_DIR"]),
                clients=clients,
                rate=rate,
                seconds=seconds,
                partitions=measure.PARTITIONS,
            )
        except latency.LatencyError as error:
            raise CommandError(str(error)) from None

    def _pushes(self, figures: list[dict[str, Any]]) -> None:
        self.stdout.write("\nfrom the row's time, before its commit, to the client's receipt, ms")
        head = f"{'clients':>8}{'events/s':>10}{'anomalies':>11}{'pushes':>9}{'resyncs':>9}"
        self.stdout.write(head + "".join(f"{q:>8}" for q in ("p50", "p95", "p99", "max")))
        for f in figures:
            row = f"{f['clients']:>8,}{f['rate_per_s']:>10,}{f['anomalies']:>11,}{f['pushes']:>9,}"
            row += f"{f['resyncs']:>9,}"
            row += "".join(f"{f['push_ms'][q]:>8.0f}" for q in ("p50", "p95", "p99", "max"))
            self.stdout.write(row)
            told = f["per_anomaly"]
            if told["least"] != f["clients"] or told["most"] != f["clients"]:
                self.stdout.write(
                    f"         an anomaly was pushed {told['least']:,} to {told['most']:,} times,"
                    f" {f['dropped']:,} left out with notice, {f['lost']:,} clients cut off"
                )

    def _latencies(self, figures: dict[str, Any]) -> None:
        self.stdout.write(
            f"\n{figures['n']:,} events of {figures['series']} series at"
            f" {figures['rate_per_s']:,.0f}/s, until their row was seen committed, ms\n"
        )
        self.stdout.write(f"{'':22}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}")
        for name, key in (
            ("from the broker's time", "from_broker_ms"),
            ("from the producer's", "from_producer_ms"),
        ):
            cells = "".join(f"{figures[key][q]:>8.1f}" for q in ("p50", "p95", "p99", "max"))
            self.stdout.write(f"{name:22}{cells}")

    def _measure(
        self, stack: ExitStack, env: dict[str, str], options: dict[str, Any]
    ) -> dict[str, Any]:
        client = self._client(env)
        topics: list[str] = []
        stack.callback(lambda: measure.drop(client, topics))

        def filled(events: int, series: int) -> str:
            topic = f"vigil-benchmark-{uuid.uuid4().hex[:8]}"
            self.stdout.write(f"writing {events:,} events of {series:,} series …")
            measure.fill(client, topic, events, series)
            topics.append(topic)
            return topic

        events, series = options["events"], options["series"]
        topic = filled(events, series)
        figures: dict[str, Any] = measure.interleaved(
            measure.KINDS,
            options["rounds"],
            lambda kind: measure.run(kind, topic, events, series, env),
            self.stdout.write,
        )
        figures |= {"events": events, "series": series, "rounds": options["rounds"]}
        if not options["quick"]:
            figures["by_series"] = {}
            for size in SIZES:
                more = max(events, min(EVENTS_A_SERIES * size, MOST_EVENTS))
                place = topic if size == series else filled(more, size)
                figures["by_series"][str(size)] = measure.interleaved(
                    ("online",),
                    min(3, options["rounds"]),
                    partial(self._one, place, more, size, env),
                    self.stdout.write,
                )
        return figures

    def _wide(
        self, stack: ExitStack, env: dict[str, str], options: dict[str, Any]
    ) -> dict[str, Any]:
        client, topic = self._client(env), f"vigil-benchmark-{uuid.uuid4().hex[:8]}"
        events = options["events"] if options["events"] != EVENTS else EVENTS // 4
        sources, rounds = options["series"], options["rounds"]
        self.stdout.write(f"writing {events:,} wide events of {sources:,} sources …")
        stack.callback(lambda: measure.drop(client, [topic]))
        measure.fill(client, topic, events, sources, wide=True)
        figures: dict[str, Any] = measure.interleaved(
            ("wide",),
            rounds,
            partial(self._one, topic, events, sources, env),
            self.stdout.write,
        )
        return figures | {"events": events, "sources": sources, "rounds": rounds}

    @staticmethod
    def _one(topic: str, events: int, series: int, env: dict[str, str], kind: str) -> Measured:
        return measure.run(kind, topic, events, series, env)

    def _child(self, env: dict[str, str], *argv: str) -> None:

        subprocess.run([sys.executable, sys.argv[0], *argv], env={**os.environ, **env}, check=True)

    def _table(self, figures: dict[str, Any]) -> None:
        self.stdout.write(
            f"\n{figures['events']:,} events, {figures['series']:,} series, median of"
            f" {figures['rounds']} rounds\n"
        )
        self._rows({k: figures[k] for k in ("bare", *measure.KINDS)})
        for size, found in figures.get("by_series", {}).items():
            self.stdout.write(f"\n{int(size):,} series\n")
            self._rows(found)

    def _rows(self, found: dict[str, Any]) -> None:
        head = f"{'':10}{'events/s':>12}{'CPU µs/event':>14}{'of bare':>9}{'memory MB':>11}"
        self.stdout.write(head)
        for kind, f in found.items():
            self.stdout.write(
                f"{kind:10}{f['events_per_s']:>12,}{f['cpu_us_per_event']:>14.2f}"
                f"{f['rate_to_bare']:>9.2f}{f['rss_mb']:>11,.0f}"
            )


def _drop_database(address: str, name: str) -> None:
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
