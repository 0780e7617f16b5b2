"""`manage.py produce synthetic|demo|file`: puts events on a topic."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from streams.clock import SystemClock
from streams.connectors import demo, file, options
from streams.connectors.columns import Mapping
from streams.connectors.faults import TruthFile
from streams.connectors.metric_profiles import source_names
from streams.connectors.pace import Progress, Stop, send_paced
from streams.connectors.synthetic import JsonEncoder, World, grid
from streams.connectors.topic import ensure_topic, partitions_of
from streams.errors import StreamsError
from streams.producer import Record, TopicProducer

SHOWN_BAD_ROWS = 10


class Command(BaseCommand):
    """Puts events on a topic: from files, of a synthetic world, or the demo's."""

    help = "Put events on a topic: synthetic ones with known faults, the demo, or files."
    requires_system_checks: tuple[str, ...] = ()  # they import every page: a slower start

    def add_arguments(self, parser: CommandParser) -> None:
        kinds = parser.add_subparsers(dest="kind", required=True, metavar="synthetic|demo|file")
        _synthetic_options(_common(kinds.add_parser("synthetic", help="a seeded synthetic world")))
        _demo_options(
            _common(kinds.add_parser("demo", help="two days of history, then live with faults"))
        )
        _file_options(_common(kinds.add_parser("file", help="CSV, JSON and JSON lines")))

    def handle(self, *args: Any, **given: Any) -> None:
        run = {"synthetic": self._synthetic, "demo": self._demo, "file": self._file}
        self.stop = Stop()
        self.stop.on_signals()
        kafka = settings.VIGIL.kafka
        self.client = kafka.quiet_client_config()
        if given["bootstrap_servers"]:
            self.client["bootstrap.servers"] = given["bootstrap_servers"]
        topic = given["topic"] or kafka.input_topic
        try:
            if ensure_topic(
                self.client,
                topic,
                partitions=given["partitions"] or kafka.partitions,
                replication=kafka.replication_factor,
                retention_hours=kafka.retention_hours,
            ):
                self.stdout.write(f"topic {topic} made")
            run[given["kind"]](topic, given)
        except (StreamsError, argparse.ArgumentTypeError) as error:
            raise CommandError(str(error)) from error

    # ---- synthetic ----------------------------------------------------------------------------

    def _synthetic(self, topic: str, given: dict[str, Any]) -> None:
        clock = SystemClock()
        now = clock.now_us()
        start = options.moment_us(given["start"] or "now-2d", now)
        end = now if given["live"] else start + given["duration"]
        if given["live"] and start > now:
            raise CommandError(
                f"--start {given['start']}: with --live it must not be in the future"
            )
        metrics = given["metrics"]
        world = World(
            grid(source_names(metrics, given["sources"]), metrics),
            interval_us=given["interval"],
            seed=given["seed"],
            faults_per_series_day=given["faults_per_series_day"],
            faults_from_us=start,
        )
        encoder = JsonEncoder(world.lines, given["wide"])
        truth = TruthFile(given["truth"], world.lines) if given["truth"] else None
        progress = Progress("synthetic")
        began = time.monotonic()
        with TopicProducer(self.client) as producer:
            sent = demo.write_stretch(
                world, producer, topic, start, end, stop=self.stop, encoder=encoder,
                rate=given["rate"], truth=truth, progress=progress,
            )  # fmt: skip
            producer.flush()
            progress.done()
            took = time.monotonic() - began
            self._summary(
                f"{sent:,} events of {len(world.lines)} series, {demo.describe(start, end)}",
                sent, took, topic, f", {truth.count} faults in {given['truth']}" if truth else "",
            )  # fmt: skip
            if given["live"]:
                self._live(world, producer, topic, end, encoder, truth)
        if truth is not None:
            truth.close()

    # ---- demo ---------------------------------------------------------------------------------

    def _demo(self, topic: str, given: dict[str, Any]) -> None:
        settled = settings.VIGIL.demo
        clock = SystemClock()
        now = clock.now_us()
        interval = given["interval"] or round(settled.interval_s * 1e6)
        history = given["history"] or round(settled.history_days * 86_400e6)
        seed = settled.seed if given["seed"] is None else given["seed"]
        world = demo.demo_world(given["sources"] or settled.sources, interval, seed, now)
        encoder = JsonEncoder(world.lines, given["wide"])
        last = demo.last_times(self.client, topic, world)
        start = demo.resume_point(last, now - history)
        if last and start > now - history:
            self.stdout.write(f"demo: the topic has events up to {demo.describe(start, now)[:16]}, "
                              "going on from there")  # fmt: skip
        progress = Progress("demo history")
        began = time.monotonic()
        with TopicProducer(self.client) as producer:
            sent = demo.write_stretch(
                world, producer, topic, start, now, stop=self.stop, encoder=encoder,
                after=last, progress=progress,
            )  # fmt: skip
            producer.flush()
            progress.done()
            self._summary(
                f"{sent:,} events of {len(world.lines)} series, {demo.describe(start, now)}",
                sent, time.monotonic() - began, topic,
            )  # fmt: skip
            if not given["history_only"]:
                self._live(world, producer, topic, now, encoder, None)

    def _live(
        self, world: World, producer: TopicProducer, topic: str, from_us: int,
        encoder: JsonEncoder, truth: TruthFile | None,
    ) -> None:  # fmt: skip
        per_s = len(world.lines) / (world.interval_us / 1e6)
        self._say(f"live: about {per_s:.1f} events per second; Ctrl-C stops")
        sent = demo.go_live(
            world, producer, topic, from_us, clock=SystemClock(), stop=self.stop,
            encoder=encoder, truth=truth, tell=self._say,
        )  # fmt: skip
        self._say(f"live: stopped after {sent:,} events")

    # ---- file ---------------------------------------------------------------------------------

    def _file(self, topic: str, given: dict[str, Any]) -> None:
        paths = file.find_files(given["paths"])
        names = file.source_names(paths)
        if given["source_name"]:
            names = [given["source_name"]] * len(paths)
        bad = _BadRows(self, given["on_error"])
        mapping = _mapping(given)
        sources = [
            file.FileSource(path, name, mapping, bad)
            for path, name in zip(paths, names, strict=True)
        ]
        total = max(1, sum(source.size for source in sources))
        progress = Progress(f"{len(sources)} file{'s' if len(sources) > 1 else ''}")
        began = time.monotonic()

        def told(sent: int) -> None:
            progress.show(sent, sum(source.bytes_read for source in sources) / total)

        with TopicProducer(self.client) as producer:
            rows = file.merged(sources)
            if given["speed"] is None:
                encode = file.RowEncoder().record
                sent = send_paced(
                    producer, topic, (encode(row) for row in rows), stop=self.stop,
                    rate=given["rate"], told=told,
                )  # fmt: skip
            else:
                sent = self._recorded(producer, topic, rows, given["speed"], told)
            producer.flush()
        progress.done()
        self._notes(sources, mapping, given)
        rejected = sum(source.rejected for source in sources)
        self._summary(
            f"{len(sources)} files, {sent:,} events, {rejected:,} rejected",
            sent, time.monotonic() - began, topic,
        )  # fmt: skip
        if sent == 0 and rejected:
            raise CommandError("no row of these files became an event: see the reasons above")

    def _recorded(
        self, producer: TopicProducer, topic: str, rows: Iterator[file.Row], speed: float, told: Any
    ) -> int:
        """Send each row as long after the first as it was recorded, `speed` times faster."""
        encode = file.RowEncoder().record
        began, first, sent = time.monotonic(), None, 0
        for row in rows:
            first = row.time_us if first is None else first
            ahead = (row.time_us - first) / 1e6 / speed - (time.monotonic() - began)
            if ahead > 0.001:
                producer.poll()
                if self.stop.wait(ahead):
                    break
            if self.stop:
                break
            record: Record = encode(row)
            producer.send(topic, record[1], record[0])
            sent += 1
            told(sent)
        return sent

    def _notes(
        self, sources: list[file.FileSource], mapping: Mapping, given: dict[str, Any]
    ) -> None:
        layouts = [source.layout for source in sources if source.layout is not None]
        if any(not layout.zoned for layout in layouts) and not given["time_zone"]:
            self._say("times without a zone were taken as UTC; --time-zone names another")
        left_out = sorted({name for layout in layouts for name in layout.left_out})
        if left_out:
            self._say(f"columns taken for labels and left out: {', '.join(left_out)}")
        empty = sum(source.empty_cells for source in sources)
        if empty:
            self._say(f"{empty:,} empty cells were skipped")
        without = [str(source.path) for source in sources if source.layout is None]
        if without and not self.stop:
            self._say(f"no rows in: {', '.join(without[:5])}")

    # ---- both ---------------------------------------------------------------------------------

    def _summary(self, what: str, sent: int, took: float, topic: str, more: str = "") -> None:
        partitions = len(partitions_of(self.client, topic))
        self._say(
            f"{what} → {topic} ({partitions} partitions) in {took:.1f} s, "
            f"{sent / max(took, 1e-9):,.0f} events/s{more}"
        )

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


class _BadRows:
    """Tells the first bad rows, or stops at the first of them."""

    def __init__(self, command: BaseCommand, on_error: str) -> None:
        self._command, self._stop, self._count = command, on_error == "stop", 0

    def __call__(self, bad: file.BadRow) -> None:
        if self._stop:
            raise CommandError(f"{bad}. --on-error skip goes on past such rows")
        self._count += 1
        if self._count <= SHOWN_BAD_ROWS:
            self._command.stderr.write(str(bad))
        elif self._count == SHOWN_BAD_ROWS + 1:
            self._command.stderr.write("… more rejected rows are only counted")


def _common(parser: Any) -> Any:
    parser.add_argument("--topic", help="default: kafka.input_topic of the configuration")
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT,…")
    parser.add_argument(
        "--partitions", type=options.count, help="of a topic that has to be made; default: settings"
    )
    return parser


def _synthetic_options(parser: Any) -> None:
    parser.add_argument("--sources", type=options.count, default=20)
    parser.add_argument(
        "--metrics", type=options.names, default=("cpu_usage", "mem_usage", "response_ms"),
        metavar="NAME,NAME,…",
    )  # fmt: skip
    parser.add_argument("--interval", type=options.duration_us, default=10_000_000, metavar="10s")
    parser.add_argument(
        "--duration", type=options.duration_us, default=2 * 86_400_000_000, metavar="2d"
    )
    parser.add_argument("--start", metavar="TIME|now-2d", help="default: now-2d")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--faults-per-series-day", type=options.not_negative, default=0.2)
    parser.add_argument("--truth", type=Path, metavar="FILE", help=".csv, else JSON lines")
    parser.add_argument("--rate", type=options.rate, default=None, metavar="N|max")
    parser.add_argument("--wide", action="store_true", help="one event of all values of a source")
    parser.add_argument(
        "--live", action="store_true", help="up to now, then each event at its time"
    )


def _demo_options(parser: Any) -> None:
    parser.add_argument("--sources", type=options.count, help="default: demo.sources")
    parser.add_argument("--interval", type=options.duration_us, help="default: demo.interval_s")
    parser.add_argument("--history", type=options.duration_us, help="default: demo.history_days")
    parser.add_argument("--history-only", action="store_true", help="stop where live would begin")
    parser.add_argument("--seed", type=int, help="default: demo.seed")
    parser.add_argument("--wide", action="store_true", help="one event of all values of a source")


def _file_options(parser: Any) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="files, folders or patterns")
    parser.add_argument("--timestamp", metavar="COLUMN")
    parser.add_argument("--value", type=options.names, default=(), metavar="COLUMN,…")
    parser.add_argument("--source", metavar="COLUMN")
    parser.add_argument("--source-name", metavar="NAME", help="default: the file's name")
    parser.add_argument("--metric", metavar="COLUMN")
    parser.add_argument("--metric-name", metavar="NAME", help="default: the value's column")
    parser.add_argument(
        "--header", type=options.names, metavar="NAME,…", help="of a CSV without one"
    )
    parser.add_argument("--delimiter", metavar="CHARACTER", help="default: guessed from the header")
    parser.add_argument("--time-zone", metavar="ZONE", help="of times without one; default: UTC")
    parser.add_argument(
        "--time-format", metavar="FORMAT", help="as of strptime, such as %%d/%%m/%%Y"
    )
    parser.add_argument("--wide", action="store_true", help="one event of all values of a row")
    parser.add_argument("--speed", type=options.speed, default=None, metavar="max|recorded|Nx")
    parser.add_argument("--rate", type=options.rate, default=None, metavar="N|max")
    parser.add_argument("--on-error", choices=("skip", "stop"), default="skip")


def _mapping(given: dict[str, Any]) -> Mapping:
    zone = given["time_zone"] or "UTC"
    try:
        time_zone = ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise CommandError(
            f"--time-zone {zone}: an IANA time zone such as UTC or Europe/Berlin is needed"
        ) from None
    delimiter = {"tab": "\t", "\\t": "\t"}.get(given["delimiter"], given["delimiter"])
    if delimiter is not None and len(delimiter) != 1:
        raise CommandError(f"--delimiter {delimiter!r}: one character is needed, or tab")
    for one, other in (("source", "source_name"), ("metric", "metric_name")):
        if given[one] and given[other]:
            raise CommandError(
                f"--{one} and --{one}-name exclude each other: a column or a fixed name"
            )
    return Mapping(
        time_zone=time_zone,
        timestamp=given["timestamp"],
        values=given["value"],
        source=given["source"],
        metric=given["metric"],
        metric_name=given["metric_name"],
        header=given["header"],
        delimiter=delimiter,
        time_format=given["time_format"],
        wide=given["wide"],
    )
