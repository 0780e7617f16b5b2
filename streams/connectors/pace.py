"""How fast records go out, when to stop, and what is said meanwhile."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import FrameType
from typing import TextIO

from streams.producer import Record, TopicProducer

SLICE_S = 0.05  # of a limited rate
CHUNK = 5_000  # records between two looks at the clock


class Stop:
    """Asked to stop, by Ctrl-C, SIGTERM or a test: `wait` returns at once from then on."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        self._event.set()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(max(0.0, seconds))

    def on_signals(self) -> None:
        """Take SIGINT and SIGTERM; only in the main thread, elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            return

        def stop(_number: int, _frame: FrameType | None) -> None:
            self.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)


class Progress:
    """A bar on a terminal; elsewhere a line each 5 s. Silent where the work is shorter."""

    def __init__(self, label: str, out: TextIO | None = None) -> None:
        self._label = label
        self._out = out if out is not None else sys.stderr
        self._tty = self._out.isatty()
        self._every = 0.1 if self._tty else 5.0
        self._began = self._last = time.monotonic()
        self._drawn = False

    def show(self, events: int, share: float | None) -> None:
        """Tell how many events went out, and which share of all where that is known."""
        now = time.monotonic()
        if now - self._last < self._every:
            return
        self._last, self._drawn = now, True
        rate = events / max(1e-9, now - self._began)
        text = f"{events:,} events, {rate:,.0f}/s"
        if share is not None:
            share = min(1.0, share)
            text = f"{share:4.0%}{_bar(share) if self._tty else ''} {text}"
        text = f"{self._label}: {text}"
        self._out.write(f"\r\x1b[K{text}" if self._tty else f"{text}\n")
        self._out.flush()

    def done(self) -> None:
        if self._tty and self._drawn:
            self._out.write("\r\x1b[K")
            self._out.flush()


def send_paced(
    producer: TopicProducer,
    topic: str,
    records: Iterable[Record],
    *,
    stop: Stop,
    rate: float | None = None,
    told: Callable[[int], None] = lambda sent: None,
) -> int:
    """Send records as fast as the broker takes them or at ``rate`` per second; returns how many."""
    source: Iterator[Record] = iter(records)
    size = CHUNK if rate is None else max(1, min(CHUNK, round(rate * SLICE_S)))
    began = time.monotonic()
    sent = 0
    while not stop:
        block = list(islice(source, size))
        if not block:
            break
        producer.send_many(topic, block)
        sent += len(block)
        told(sent)
        if rate is not None:
            stop.wait(began + sent / rate - time.monotonic())
    return sent


def _bar(share: float, width: int = 24) -> str:
    full = round(share * width)
    return " " + "█" * full + "░" * (width - full)
