"""What gaps teach: the kernel against a plain reference, limits of usual shapes, false alarms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from detection import heartbeat
from detection.heartbeat import Delays, Gaps
from detection.shapes import SHAPES
from detection.silence import score_at, stages
from detection.thresholds import Policy

START = 1_704_067_200_000_000
DAY = 86_400.0
LEARNT = np.array([-1.0])


def state(series: int = 1) -> NDArray[np.float64]:
    return np.tile(heartbeat.component().initial, (series, 1))


def feed(
    rows: NDArray[np.float64],
    seconds: NDArray[np.float64],
    *,
    least_s: float = 60.0,
    slot: NDArray[np.int64] | None = None,
    heard: NDArray[np.float64] | None = None,
    delays: Delays | None = None,
    first: int = 0,
) -> Gaps:
    n = len(seconds)
    return heartbeat.advance(
        rows,
        np.zeros(n, dtype=np.int64) if slot is None else slot,
        START + np.round(seconds * 1e6).astype(np.int64),
        first + np.arange(n, dtype=np.int64),
        np.zeros(n, dtype=np.int32),
        LEARNT,
        least_s * 1e6,
        np.full(n, -1.0) if heard is None else heard,
        delays or Delays.of(len(rows)),
    )


def limit_s(rows: NDArray[np.float64], slot: int = 0) -> float:
    return float(rows[slot, heartbeat.LIMIT]) / 1e6


class Plain:
    """The same in plain Python, from the description alone."""

    def __init__(self) -> None:
        self.last: float | None = None
        self.counts = [0.0] * heartbeat.BINS
        self.gaps, self.limit, self.top, self.unreached = 0, math.inf, -1, 0.0
        self.day: int | None = None

    def see(self, t: float) -> tuple[float, float] | None:
        """(gap, limit) in µs where the gap is beyond it."""
        if self.last is None:
            self.last = t
            return None
        gap = t - self.last
        if gap <= 0:
            return None
        found = (gap, max(60e6, self.limit)) if gap > max(60e6, self.limit) else None
        number = next(
            (j for j in range(heartbeat.BINS) if gap <= heartbeat.EDGES[j]), heartbeat.BINS - 1
        )
        again = number > self.top
        if number >= self.top:
            self.unreached = 0.0
        day = math.floor(t / 86_400e6)
        if self.day is not None and day > self.day:
            self.counts = [c * 0.98 for c in self.counts]
            again = True
            if number < self.top:
                self.unreached += 0.02 * sum(self.counts[self.top :])
                if self.unreached > 10:
                    self.counts[self.top :] = [0.5 * c for c in self.counts[self.top :]]
        self.day = day if self.day is None else max(day, self.day)
        self.counts[number] += 1
        self.gaps += 1
        if self.gaps >= 30 and (again or self.gaps == 30 or self.gaps & (self.gaps - 1) == 0):
            self.judge()
        self.last = t
        return found

    def judge(self) -> None:
        total = sum(self.counts)
        before = self.top
        self.top = max(j for j in range(heartbeat.BINS) if sum(self.counts[j:]) > 2)
        sums = [sum(self.counts[: j + 1]) for j in range(heartbeat.BINS)]
        middle = min(self.top, next(j for j in range(heartbeat.BINS) if sums[j] >= 0.5 * total))
        if self.top < before:
            self.unreached = 0.0
        x, m = heartbeat.EDGES[self.top], heartbeat.EDGES[middle]
        stretch = math.log(0.5e6) / math.log(0.5 * max(total, 18.0) / 3.0)
        self.limit = max(2 * x, m + (x - m) * stretch)


def test_the_kernel_does_what_the_description_says() -> None:
    """Five series of all kinds in turn, some events late, in batches of any size."""
    rng = np.random.default_rng(4)
    n = 6_000
    gaps = rng.exponential(1.0, (5, n)) * np.array([[5.0], [60.0], [900.0], [7_000.0], [0.2]])
    gaps[:, rng.random(n) < 0.01] *= 40.0
    times = START / 1e6 + np.cumsum(gaps, axis=1)
    times[:, rng.random(n) < 0.05] -= 300.0
    slot = np.tile(np.arange(5), n)
    seconds = times.T.reshape(-1) - START / 1e6
    rows, plain = state(5), [Plain() for _ in range(5)]
    found: list[tuple[int, float]] = []
    at = 0
    while at < len(seconds):
        size = int(rng.integers(1, 900))
        part = slice(at, at + size)
        gaps_of = feed(rows, seconds[part], slot=slot[part], first=at)
        found += [
            (at + i, x) for i, x in zip(gaps_of.at.tolist(), gaps_of.limit.tolist(), strict=True)
        ]
        at += size
    expected: list[tuple[int, float]] = []
    for i, (s, t) in enumerate(zip(slot.tolist(), seconds, strict=True)):
        over = plain[s].see(float(START + round(t * 1e6)))
        if over is not None:
            expected.append((i, over[1]))
    assert len(expected) > 10
    assert [i for i, _ in found] == [i for i, _ in expected]
    np.testing.assert_allclose([x for _, x in found], [x for _, x in expected], rtol=1e-12)
    np.testing.assert_allclose(rows[:, heartbeat.LIMIT], [p.limit for p in plain], rtol=1e-12)


def regular(every_s: float, days: float, jitter: float = 0.1, seed: int = 1) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    n = int(days * DAY / every_s)
    return np.sort((np.arange(n) + rng.uniform(0, jitter, n)) * every_s)


def by_chance(every_s: float, days: float, seed: int = 1) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.exponential(every_s, int(1.2 * days * DAY / every_s) + 50))
    return t[t < days * DAY]


@pytest.mark.parametrize(
    ("every_s", "least", "most"), [(5, 60, 60), (60, 120, 256), (3_600, 7_200, 14_500)]
)
def test_a_regular_series_is_silent_soon_after_its_usual_gap(
    every_s: float, least: float, most: float
) -> None:
    rows = state()
    assert len(feed(rows, regular(every_s, 3))) == 0
    assert least <= max(60.0, limit_s(rows)) <= most
    assert rows[0, heartbeat.USUAL] / 1e6 == pytest.approx(every_s, rel=0.05)


def test_a_daily_series_is_judged_from_its_thirtieth_gap_on() -> None:
    rows = state()
    assert len(feed(rows, regular(DAY, 30, 0.02))) == 0
    assert math.isinf(limit_s(rows))
    assert len(feed(rows, regular(DAY, 90, 0.02)[30:])) == 0
    assert 2 * DAY <= limit_s(rows) <= 4 * DAY


def test_few_monthly_events_leave_no_short_limit() -> None:
    rows = state()
    assert len(feed(rows, regular(30 * DAY, 3_600, 0.1))) == 0
    assert limit_s(rows) > 50 * DAY


def test_a_pause_seen_three_times_is_usual_daily_or_weekly() -> None:
    """Silent each night, and on Sundays: the first ones are told, and later only a longer one."""
    t = regular(10.0, 70)
    open_hours = (t % DAY < 16 * 3_600) & (t % (7 * DAY) < 6 * DAY)
    rows = state()
    gaps = feed(rows, t[open_hours])
    told = (t[open_hours][gaps.at] / DAY).astype(int).tolist()
    assert 3 <= len(told) <= 7
    assert max(told) <= 21
    # and where one more day is missing, it is told again
    more = np.append(t[open_hours], t[open_hours][-1] + 4 * DAY)
    assert len(feed(state(), more)) == len(told) + 1


def test_bursts_with_pauses_are_told_but_for_the_first_pauses() -> None:
    rng = np.random.default_rng(5)
    gaps = np.where(np.arange(40_000) % 50 == 49, rng.exponential(900.0, 40_000), 1.0)
    found = feed(state(), np.cumsum(gaps))
    assert len(found) <= 6
    assert found.at.max(initial=0) < 4_000


def test_a_pause_that_no_longer_comes_is_forgotten() -> None:
    """From an event an hour to one each five seconds: some weeks later an hour is silence."""
    slow = regular(3_600.0, 20, 0.02)
    rows = state()
    feed(rows, slow)
    assert limit_s(rows) > 7_000
    feed(rows, slow[-1] + regular(5.0, 14) + 5.0)
    assert limit_s(rows) < 60


def test_normal_arrivals_are_never_silent() -> None:
    """Twenty series of each kind over three days, one an event each 5 s to one each 20 min."""
    paces = np.geomspace(5.0, 1_200.0, len(SHAPES))
    assert len(paces) == 20
    for seed, every_s in enumerate(paces):
        assert len(feed(state(), regular(every_s, 3, 0.8, seed))) == 0
        assert len(feed(state(), by_chance(every_s, 3, seed))) == 0, every_s


def test_late_events_and_equal_times_change_nothing() -> None:
    t = regular(5.0, 0.1)
    calm, other = state(), state()
    feed(calm, t)
    feed(other, np.repeat(t, 2))
    late = np.insert(t, 900, t[100:150])
    assert len(feed(state(), late)) == 0
    assert np.array_equal(np.delete(calm, heartbeat.LAST_OFFSET), np.delete(other, 1))


def test_an_expected_pause_counts_as_usual() -> None:
    rows = state()
    feed(rows, regular(5.0, 1))
    assert limit_s(rows) < 20
    heartbeat.allow(rows[0], 1_800e6)
    assert 3_600 <= limit_s(rows) <= 5_200


def test_a_delay_is_kept_by_a_source_that_uploads_and_forgotten_by_one_that_does_not() -> None:
    rows, delays = state(2), Delays.of(2)
    t = regular(1.0, 0.1)
    upload = np.ceil((t + 1) / 600.0) * 600.0
    feed(rows, t, heard=START + 1e6 * upload, delays=delays)
    assert 590 <= delays.delay[0] / 1e6 <= 601
    assert math.isnan(delays.delay[1])
    behind = np.where(t < 4_000, 900.0, 0.5)
    heard = START + 1e6 * np.maximum.accumulate(t + behind)
    feed(rows, t, slot=np.ones(len(t), dtype=np.int64), heard=heard, delays=delays)
    assert delays.delay[1] / 1e6 < 1.0


def test_severity_grows_with_the_length_of_a_silence() -> None:
    row = np.array(Policy().row())
    found = stages(row)
    assert [s.severity for s in found] == [1, 2, 3, 4]
    assert found[0].factor == 1.0
    assert [round(s.score, 4) for s in found] == [0.8, 0.85, 0.9, 0.95]
    scores = [round(score_at(f, row), 2) for f in (1, 2, 4, 16)]
    assert scores == [0.8, 0.87, 0.91, 0.96]


def test_a_policy_shifts_the_onset_unless_it_gives_the_limit_itself() -> None:
    strict = stages(np.array(Policy(threshold=0.9).row()))
    assert [s.severity for s in strict] == [3, 4]
    assert strict[0].factor == pytest.approx(3.3, abs=0.05)
    given = stages(np.array(Policy(threshold=0.9, silence_after_s=30.0).row()))
    assert given[0].factor == 1.0
    lenient = stages(np.array(Policy(threshold=0.6, medium_from=0.7).row()))
    assert (lenient[0].factor, lenient[0].severity) == (1.0, 2)
    flat = stages(np.array(Policy(medium_from=0.9, high_from=0.9, critical_from=1.0).row()))
    assert [s.severity for s in flat] == [1, 3]
