"""A seeded synthetic world: seasons, trend, noise and faults, as columns and then as JSON.

Every value is a pure function of seed, series and absolute time, whatever the chunks it is asked
in: a restarted source goes on in the same world, and a second run writes the same bytes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streams.connectors.faults import DAY_US, Fault, Line, daily_faults, slot_fault
from streams.connectors.metric_profiles import Profile, profile_of
from streams.producer import Record

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]

BLOCK = 360  # steps whose noise is drawn at once
TREND_DAYS = 28.0
HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Columns:
    """Events in the order of time: equal-length arrays."""

    time_us: I8  # [n]
    line: NDArray[np.int32]  # [n], the number of the series
    value: F8  # [n]

    def __len__(self) -> int:
        return len(self.time_us)

    def take(self, mask: NDArray[np.bool_]) -> Columns:
        return Columns(self.time_us[mask], self.line[mask], self.value[mask])


class World:
    """Series with one truth about them; `columns` tells any stretch of time."""

    def __init__(
        self,
        series: Sequence[tuple[str, Sequence[str]]],
        *,
        interval_us: int,
        seed: int,
        faults_per_series_day: float = 0.2,
        faults_from_us: int | None = None,
        slot_faults_from_us: int | None = None,
        slot_us: int = 75_000_000,
    ) -> None:
        self.seed = seed
        self.interval_us = interval_us
        self.lines = _lines(series, interval_us, seed)
        self.slot_faults_from_us = slot_faults_from_us
        self._rate = faults_per_series_day
        self._faults_from_us = faults_from_us
        self._slot_us = slot_us
        self._noise: dict[int, tuple[F8, F8]] = {}
        self._days: dict[int, list[Fault]] = {}
        self._memory = np.array([line.profile.memory for line in self.lines])
        self._phase = np.array([line.phase_us for line in self.lines], dtype=np.int64)

    def faults(self, start_us: int, end_us: int) -> list[Fault]:
        """The faults with an event in [start, end), in the order of their start."""
        first, last = start_us // DAY_US, (end_us - 1) // DAY_US
        found = [fault for day in range(first, last + 1) for fault in self._of_day(day)]
        if self._faults_from_us is not None:
            found = [fault for fault in found if fault.start_us >= self._faults_from_us]
        found += self._of_slots(start_us, end_us)
        inside = [fault for fault in found if fault.start_us < end_us and fault.end_us >= start_us]
        return sorted(inside, key=lambda fault: (fault.start_us, fault.line))

    def faults_starting(self, start_us: int, end_us: int) -> list[Fault]:
        """The faults whose first event lies in [start, end)."""
        return [fault for fault in self.faults(start_us, end_us) if fault.start_us >= start_us]

    def columns(self, start_us: int, end_us: int) -> Columns:
        """All events with start ≤ time < end."""
        first, last = start_us // self.interval_us - 1, (end_us - 1) // self.interval_us
        steps = np.arange(first, last + 1)
        times = steps * self.interval_us + self._phase[:, None]  # [series, steps]
        values = self._values(steps, times, self.faults(int(times.min()), int(times.max()) + 1))
        wanted = (times >= start_us) & (times < end_us)
        order = np.argsort(times[wanted], kind="stable")
        numbers = np.broadcast_to(np.arange(len(self.lines), dtype=np.int32)[:, None], times.shape)
        return Columns(times[wanted][order], numbers[wanted][order], values[wanted][order])

    def _values(self, steps: I8, times: I8, faults: list[Fault]) -> F8:
        noise = self._noise_of(steps)
        values = np.empty(times.shape)
        change = np.zeros(times.shape)
        held = np.full(times.shape, np.nan)
        for fault in faults:
            row = times[fault.line]
            inside = (row >= fault.start_us) & (row <= fault.end_us)
            if fault.kind == "variance_change":
                noise[fault.line, inside] *= fault.magnitude
            elif fault.kind == "flatline":
                held[fault.line, inside] = fault.magnitude
            elif fault.kind == "drift":
                length = max(1, fault.end_us - fault.start_us)
                change[fault.line, inside] += (
                    fault.magnitude * (row[inside] - fault.start_us) / length
                )
            else:
                change[fault.line, inside] += fault.magnitude
        for number, line in enumerate(self.lines):
            normal = _normal(line, times[number]) + line.scale * line.profile.noise * noise[number]
            values[number] = _measured(line.profile, normal + change[number])
        return np.where(np.isnan(held), values, held)

    def _noise_of(self, steps: I8) -> F8:
        blocks = range(int(steps[0]) // BLOCK, int(steps[-1]) // BLOCK + 1)
        joined = np.concatenate([self._noise_block(block) for block in blocks], axis=1)
        begin = int(steps[0]) - blocks[0] * BLOCK
        for old in [block for block in self._noise if block < blocks[0] - 1]:
            del self._noise[old]
        return np.array(joined[:, begin : begin + len(steps)])

    def _noise_block(self, block: int) -> F8:
        """AR(1) noise of variance 1: the block's own answer plus the fading of the one before."""
        own, fading = self._answer(block)
        before, _ = self._answer(block - 1)
        return own + fading * before[:, -1:]

    def _answer(self, block: int) -> tuple[F8, F8]:
        if block not in self._noise:
            rng = np.random.default_rng([self.seed, 404, block & 0xFFFFFFFF])
            shocks = rng.standard_normal((len(self.lines), BLOCK))
            shocks *= np.sqrt(1 - self._memory**2)[:, None]
            state = np.zeros(len(self.lines))
            answer = np.empty_like(shocks)
            for step in range(BLOCK):
                state = self._memory * state + shocks[:, step]
                answer[:, step] = state
            self._noise[block] = (answer, self._memory[:, None] ** np.arange(1, BLOCK + 1))
        return self._noise[block]

    def _of_day(self, day: int) -> list[Fault]:
        if day not in self._days:
            if len(self._days) > 400:
                self._days.clear()
            drawn = daily_faults(self.lines, self.seed, day, self._rate)
            self._days[day] = [self._held(fault) for fault in drawn]
        return self._days[day]

    def _of_slots(self, start_us: int, end_us: int) -> list[Fault]:
        if self.slot_faults_from_us is None or end_us <= self.slot_faults_from_us:
            return []
        longest = 40 * self.interval_us  # of a slot's fault
        begin = max(self.slot_faults_from_us, start_us - longest)
        slots = range(begin // self._slot_us, end_us // self._slot_us + 1)
        drawn = (slot_fault(self.lines, self.seed, slot, self._slot_us) for slot in slots)
        return [fault for fault in drawn if fault.start_us >= self.slot_faults_from_us]

    def _held(self, fault: Fault) -> Fault:
        if fault.kind != "flatline":
            return fault
        line = self.lines[fault.line]
        value = _measured(line.profile, _normal(line, np.array([fault.start_us])))
        return replace(fault, magnitude=float(value[0]))


class JsonEncoder:
    """Turns columns into records: the key is the source, the value the event's JSON."""

    def __init__(self, lines: Sequence[Line], wide: bool = False) -> None:
        self._keys = [line.source.encode() for line in lines]
        self._wide = wide
        self._names = [json.dumps(line.profile.name, ensure_ascii=False) for line in lines]
        self._sources = [json.dumps(line.source, ensure_ascii=False) for line in lines]
        self._heads = [
            f'{{"source": {source}, "metric": {name}, "value": '
            for source, name in zip(self._sources, self._names, strict=True)
        ]

    def records(self, columns: Columns) -> Iterator[Record]:
        return self._wide_records(columns) if self._wide else self._narrow_records(columns)

    def _narrow_records(self, columns: Columns) -> Iterator[Record]:
        heads, keys = self._heads, self._keys
        tails = _time_tails(columns.time_us)
        for number, value, tail in zip(
            columns.line.tolist(), columns.value.tolist(), tails, strict=True
        ):
            yield keys[number], (heads[number] + repr(value) + tail).encode()

    def _wide_records(self, columns: Columns) -> Iterator[Record]:
        """One event of all values that a source measured at one time."""
        sources, names = self._sources, self._names
        parts: list[str] = []
        last: tuple[int, str, str] | None = None
        rows = zip(
            columns.line.tolist(), columns.value.tolist(), _time_tails(columns.time_us), strict=True
        )
        for number, value, tail in rows:
            if last is not None and (sources[number], tail) != last[1:]:
                yield self._wide_record(parts, last[0], last[2])
                parts = []
            parts.append(f"{names[number]}: {value!r}")
            last = (number, sources[number], tail)
        if last is not None:
            yield self._wide_record(parts, last[0], last[2])

    def _wide_record(self, parts: list[str], number: int, tail: str) -> Record:
        joined = ", ".join(parts)
        text = f'{{"source": {self._sources[number]}, "values": {{{joined}}}{tail}'
        return self._keys[number], text.encode()


def grid(sources: Sequence[str], metrics: Sequence[str]) -> list[tuple[str, Sequence[str]]]:
    """Every metric on every source."""
    return [(source, metrics) for source in sources]


def _lines(series: Sequence[tuple[str, Sequence[str]]], interval_us: int, seed: int) -> list[Line]:
    """The series in the order of their events inside one interval: a source's own together."""
    gap = interval_us // 1_000 // max(1, len(series)) * 1_000  # whole ms between two sources
    lines = []
    for place, (source, metrics) in enumerate(series):
        for metric in metrics:
            rng = np.random.default_rng([seed, 505, zlib.crc32(f"{source}/{metric}".encode())])
            scale, shift = rng.uniform([0.85, -1.0], [1.15, 1.0]).tolist()
            profile = profile_of(metric)
            if np.isfinite(profile.high):
                scale = min(1.0, scale)
            lines.append(Line(source, profile, interval_us, place * gap, scale, shift))
    return lines


def _normal(line: Line, times: I8) -> F8:
    """What a series says without noise and faults."""
    profile = line.profile
    hours = times / HOUR_US + line.shift_h
    angle = (hours - profile.peak_hour) * (2 * np.pi / 24)
    season = (np.cos(angle) + 0.3 * np.cos(2 * angle)) / 1.3
    from_sunday = np.abs((hours + 12) % 168 - 84)  # hours from Sunday 00:00, either way
    weekend = 1 / (1 + np.exp((from_sunday - 24) / 2))
    weeks = (hours / 24 / TREND_DAYS) % 1.0
    trend = 4 * np.abs(weeks - 0.5) - 1
    result: F8 = line.scale * (
        profile.level + profile.day * season - profile.week * weekend + profile.trend * trend
    )
    return result


def _measured(profile: Profile, values: F8) -> F8:
    """Within the metric's bounds and with as many decimals as its meter shows."""
    shift = 10.0**profile.decimals
    return np.rint(np.clip(values, profile.low, profile.high) * shift) / shift


def _time_tails(times_us: I8) -> list[str]:
    """`, "timestamp": "2024-01-01T12:00:00.000Z"}` for each; equal neighbours are made once."""
    if len(times_us) == 0:
        return []
    fresh = np.append(True, np.diff(times_us) != 0)
    place = np.cumsum(fresh) - 1
    stamps = np.datetime_as_string(times_us[fresh].view("datetime64[us]"), unit="ms").tolist()
    tails = [f', "timestamp": "{stamp}Z"}}' for stamp in stamps]
    return [tails[index] for index in place.tolist()]
