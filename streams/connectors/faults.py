"""The faults of the synthetic world: when each begins, how it looks, and the truth file.

A schedule is a pure function of seed and absolute time, so that a restart meets the same world.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import numpy as np

from streams.clock import from_us
from streams.connectors.metric_profiles import Profile
from streams.errors import SourceError

Kind = Literal["spike", "dip", "level_shift", "drift", "variance_change", "flatline"]
KINDS: tuple[Kind, ...] = ("spike", "dip", "level_shift", "drift", "variance_change", "flatline")
TRUTH_FIELDS = ("source", "metric", "kind", "start", "end", "magnitude")
DAY_US = 86_400_000_000

# kind: fewest events, shortest and longest time in seconds
_LENGTH: dict[Kind, tuple[int, float, float]] = {
    "spike": (1, 0, 0),
    "dip": (1, 0, 0),
    "level_shift": (15, 1_200, 5_400),
    "drift": (30, 3_600, 14_400),
    "variance_change": (30, 1_800, 7_200),
    "flatline": (40, 1_800, 5_400),
}
_LIVE_KINDS: tuple[Kind, ...] = ("spike", "dip", "level_shift", "variance_change")
_LIVE_SHARES = (0.45, 0.2, 0.25, 0.1)


@dataclass(frozen=True, slots=True)
class Line:
    """One series of the world: who measures what, how often, and its own habits."""

    source: str
    profile: Profile
    interval_us: int
    phase_us: int  # its events lie at phase + k·interval
    scale: float  # of the level and the seasons
    shift_h: float  # of the seasons


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one series, from its first to its last event.

    ``magnitude`` is in the metric's unit; of a variance change it is the factor of the noise, of a
    flat line the value it holds.
    """

    line: int
    kind: Kind
    start_us: int
    end_us: int
    magnitude: float


def daily_faults(lines: list[Line], seed: int, day: int, rate: float) -> list[Fault]:
    """The faults of one UTC day at ``rate`` faults per series and day; none of them overlap."""
    rng = np.random.default_rng([seed, 101, day])
    found: list[Fault] = []
    busy: dict[int, list[tuple[int, int]]] = {}
    for _ in range(int(rng.poisson(rate * len(lines)))):
        number = int(rng.integers(len(lines)))
        kind: Kind = KINDS[int(rng.integers(len(KINDS)))]
        begin = day * DAY_US + int(rng.integers(DAY_US))
        fault = _placed(lines[number], number, kind, begin, rng)
        margin = 30 * lines[number].interval_us
        free = all(
            fault.end_us + margin < start or end + margin < fault.start_us
            for start, end in busy.get(number, ())
        )
        if free and fault.end_us < (day + 1) * DAY_US:
            busy.setdefault(number, []).append((fault.start_us, fault.end_us))
            found.append(fault)
    return found


def slot_fault(lines: list[Line], seed: int, slot: int, slot_us: int) -> Fault:
    """The one fault of a short slot of time: each series has its turn once in len(lines) slots."""
    turn, place = divmod(slot, len(lines))
    number = int(np.random.default_rng([seed, 303, turn]).permutation(len(lines))[place])
    rng = np.random.default_rng([seed, 202, slot])
    kind = _LIVE_KINDS[int(rng.choice(len(_LIVE_KINDS), p=_LIVE_SHARES))]
    begin = slot * slot_us + int(rng.integers(slot_us))
    line = lines[number]
    events = {"level_shift": 18, "variance_change": 24}.get(kind, 0)
    return _placed(line, number, kind, begin, rng, events=events)


def _placed(
    line: Line, number: int, kind: Kind, begin: int, rng: np.random.Generator, events: int = 0
) -> Fault:
    fewest, shortest, longest = _LENGTH[kind]
    lasting = rng.uniform(shortest, longest) * 1e6
    bump = int(rng.integers(1, 4))
    size = float(rng.uniform(0.8, 1.5) if kind in ("spike", "dip") else rng.uniform(0.5, 1.0))
    up = bool(rng.random() < 0.5)
    factor = float(rng.uniform(5, 9))
    count = events or max(fewest, round(lasting / line.interval_us))
    if kind in ("spike", "dip"):
        count, up = bump, kind == "spike"
    profile = line.profile
    change = size * profile.span * line.scale
    middle = profile.level * line.scale
    if not up and middle - 0.6 * change < profile.low:
        up = True
    elif up and middle + 0.6 * change > profile.high:
        up = False
    if kind in ("spike", "dip"):
        kind = "spike" if up else "dip"
    first = -((line.phase_us - begin) // line.interval_us)
    start = line.phase_us + first * line.interval_us
    magnitude = change if up else -change
    if kind == "variance_change":
        magnitude = factor
    elif kind == "flatline":
        magnitude = float("nan")  # the world fills in what it holds
    return Fault(number, kind, start, start + (count - 1) * line.interval_us, magnitude)


class TruthFile:
    """Writes faults as they come: CSV by the name's end, else JSON lines."""

    def __init__(self, path: Path, lines: list[Line]) -> None:
        self._lines = lines
        self._csv = path.suffix.lower() == ".csv"
        self.count = 0
        try:
            self._file: TextIO = path.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise SourceError(
                f"--truth {path}: can't be written: {error.strerror}. Name a file in a folder that "
                "exists."
            ) from error
        if self._csv:
            csv.writer(self._file).writerow(TRUTH_FIELDS)

    def write(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            row = truth_row(fault, self._lines)
            if self._csv:
                csv.DictWriter(self._file, TRUTH_FIELDS).writerow(row)
            else:
                self._file.write(json.dumps(row) + "\n")
            self.count += 1
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def truth_row(fault: Fault, lines: list[Line]) -> dict[str, str | float]:
    """One fault as the truth file names it; both ends are events of the fault."""
    line = lines[fault.line]
    return {
        "source": line.source,
        "metric": line.profile.name,
        "kind": fault.kind,
        "start": _iso(fault.start_us),
        "end": _iso(fault.end_us),
        "magnitude": round(fault.magnitude, 4),
    }


def _iso(us: int) -> str:
    return from_us(us).isoformat(timespec="milliseconds").replace("+00:00", "Z")
