"""A slow, plain-Python online detector, written from the recipe's formulas and nothing else.

The kernel must agree with it to 1e-9; it shares no code with the product on purpose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

LEVELS = (0.039, 0.154, 0.083, 0.051, 0.25)
BOOK = 64


@dataclass
class DecayedRange:
    """Largest and smallest value seen, both forgetting slowly."""

    high: float = -math.inf
    low: float = math.inf

    def update(self, value: float) -> float:
        self.high = max(self.high, value)
        self.low = min(self.low, value)
        shrink = 1e-4 * (self.high - self.low)
        self.high -= shrink
        self.low += shrink
        return self.high - self.low + 1e-9 + 1e-6 * abs(self.high)


@dataclass
class Book:
    """Prototypes of vectors; the least recently used one makes room."""

    radius: float
    centres: list[list[float]] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    clock: int = 0

    def novelty(self, vector: list[float], scale: float) -> float:
        self.clock += 1
        if not self.centres:
            self._insert(vector)
            return 0.0
        gaps = [
            sum(abs(v - c) for v, c in zip(vector, centre, strict=True)) / len(vector) / scale
            for centre in self.centres
        ]
        nearest = gaps.index(min(gaps))
        distance = min(1.0, gaps[nearest])
        if distance > self.radius:
            self._insert(vector)
        else:
            centre = self.centres[nearest]
            self.centres[nearest] = [c + 0.1 * (v - c) for v, c in zip(vector, centre, strict=True)]
            self.used[nearest] = self.clock
        return distance

    def _insert(self, vector: list[float]) -> None:
        if len(self.centres) < BOOK:
            self.centres.append(list(vector))
            self.used.append(self.clock)
        else:
            oldest = self.used.index(min(self.used))
            self.centres[oldest] = list(vector)
            self.used[oldest] = self.clock


@dataclass
class QuarantineBook:
    """Prototypes of values; those learnt while the series was faulty stay flagged."""

    centres: list[float] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    flagged: list[bool] = field(default_factory=list)

    def distances(self, value: float, scale: float) -> tuple[float, float, int, int]:
        """(to the nearest unflagged, to the nearest, index of each)."""
        if not self.centres:
            return 0.0, 0.0, -1, -1
        gaps = [abs(value - c) / scale for c in self.centres]
        free = [i for i, flag in enumerate(self.flagged) if not flag]
        any_index = gaps.index(min(gaps))
        free_index = min(free, key=lambda i: gaps[i]) if free else -1
        normal = min(1.0, gaps[free_index]) if free else 1.0
        return normal, min(1.0, gaps[any_index]), free_index, any_index

    def learn(
        self, value: float, normal: float, nearest: float, free: int, any_: int, hot: bool, t: int
    ) -> None:
        if not self.centres or nearest > 0.03:
            if len(self.centres) < BOOK:
                self.centres.append(value)
                self.used.append(t)
                self.flagged.append(hot)
            else:
                oldest = self.used.index(min(self.used))
                self.centres[oldest] = value
                self.used[oldest] = t
                self.flagged[oldest] = hot
            return
        moved = free if normal <= 0.03 and free >= 0 else any_
        self.centres[moved] += 0.1 * (value - self.centres[moved])
        self.used[moved] = t
        if not hot:
            self.flagged[moved] = False


@dataclass
class Profile:
    """Mean value of each bin of the day or the week."""

    bins: int
    seconds: int
    rate: float
    free_visits: int
    start: list[float] = field(default_factory=list)
    visits: list[int] = field(default_factory=list)
    current: int = -1
    total: float = 0.0
    count: int = 0
    error: float = 0.0
    plain: float = 0.0
    updates: int = 0

    def __post_init__(self) -> None:
        self.start = [0.0] * self.bins
        self.visits = [0] * self.bins

    def residual(self, epoch: int, value: float, scale: float) -> float | None:
        now = epoch // self.seconds % self.bins
        if now != self.current:
            if self.current >= 0:
                self._leave(scale)
            self.current, self.total, self.count = now, 0.0, 0
        self.total += value
        self.count += 1
        if self.visits[now] < 2:
            return None
        return (value - self.start[now]) / scale

    def _leave(self, scale: float) -> None:
        b = self.current
        step = self.total / self.count - self.start[b]
        self.visits[b] += 1
        if self.visits[b] > self.free_visits:
            limit = 6.0 * self.error * scale
            step = max(-limit, min(limit, step))
        self.start[b] += max(self.rate, 1.0 / self.visits[b]) * step


class ReferenceOnline:
    """One series; call it event by event."""

    def __init__(self) -> None:
        self.t = 0
        self.range = DecayedRange()
        self.error_range = DecayedRange()
        self.book1 = QuarantineBook()
        self.book2, self.book3, self.book4 = Book(0.10), Book(0.05), Book(0.03)
        self.block2: list[float] = []
        self.block3: list[float] = []
        self.previous2: float | None = None
        self.previous3: float | None = None
        self.z2 = self.z3 = 0.0
        self.mean = self.mean_season = 0.0
        self.weights = [1.0, 0.0, 0.0]
        self.cov = [[10.0 if i == j else 0.0 for j in range(3)] for i in range(3)]
        self.spread = 0.0
        self.scale = 1.0
        self.last: list[float] = []
        self.day = Profile(48, 1800, 0.1, 3)
        self.week = Profile(168, 3600, 0.2, 2)
        self.residuals: list[float] = []
        self.gap = 0.0
        self.epoch = 0
        self.fault_day = [[-99, 0] for _ in range(48)]
        self.fault_week = [[-99, 0] for _ in range(168)]
        self.odd_share = 0.0
        self.hot_at = 0
        self.run, self.runs, self.longest = 1, 0, 0.0
        self.habit = 0.0
        self.onset_at = -(10**9)
        self.peak = 1.0

    def step(self, epoch: int, x: float) -> tuple[float, int, bool]:
        t = self.t
        before_scale = self.scale
        scale = self.range.update(x)
        if t > 0:
            gap = min(max(epoch - self.epoch, 0), 7 * 86400)
            self.gap += max(0.01, 1.0 / t) * (gap - self.gap)
        else:
            self.mean = self.mean_season = x
        expected = self._expected(epoch)
        regime = self.odd_share > 0.3
        z1, z1n, normal = self._value_novelty(x, scale, regime)
        self._blocks(x, scale)
        z2, z3 = self.z2, self.z3
        if t < 10:
            z1 = z1n = z2 = z3 = 0.0
        z4 = self._forecast(x, before_scale)
        z5 = self._season(epoch, x, scale)
        z6 = self._flat(x, scale, regime)
        parts = [z1 / LEVELS[0], z2 / LEVELS[1], z3 / LEVELS[2], z4 / LEVELS[3], z5 / LEVELS[4]]
        parts.append(0.0 if expected else z6)
        m = max(parts)
        reason = parts.index(m)
        mn = max(m, z1n / LEVELS[0], z6)
        o_a = m * math.exp(-self.habit)
        o_k = mn if mn > m and not expected else 0.0
        o = max(o_a, o_k) if t >= 150 else o_a
        onset = False
        if t >= 150:
            self.odd_share += 0.000714 * (float(mn >= 1.0) - self.odd_share)
            if mn >= 1.0:
                self._fault_season(epoch)
            reason, onset = self._onset(o, o_a, o_k, reason)
        if normal >= 0.13:
            self.hot_at = t
        self.habit = min(0.4, max(0.0, self.habit - 0.00025))
        self.scale, self.epoch = scale, epoch
        self.last = [x, *self.last[:1]]
        self.t += 1
        return o, reason, onset

    def _expected(self, epoch: int) -> bool:
        kd, kw = epoch // 1800, epoch // 3600
        last, n = self.fault_day[kd % 48]
        by_day = n >= 3 and kd // 48 - last <= 1 and self.gap <= 6 * 3600
        last, n = self.fault_week[kw % 168]
        by_week = n >= 3 and kw // 168 - last <= 1 and self.gap <= 86400
        return by_day or by_week

    def _fault_season(self, epoch: int) -> None:
        for k, table in ((epoch // 1800, self.fault_day), (epoch // 3600, self.fault_week)):
            for near in (k - 1, k, k + 1):
                slot = table[near % len(table)]
                v = near // len(table)
                if v - slot[0] == 1:
                    slot[1] = min(slot[1] + 1, 9)
                elif v - slot[0] > 1:
                    slot[1] = 1
                slot[0] = max(slot[0], v)

    def _value_novelty(self, x: float, scale: float, regime: bool) -> tuple[float, float, float]:
        t = self.t
        normal, nearest, free, any_ = self.book1.distances(x, scale)
        hot = (
            t >= 700
            and not regime
            and (normal >= 0.13 or (t - self.hot_at <= 20 and normal >= 0.03))
        )
        self.book1.learn(x, normal, nearest, free, any_, hot, t)
        return max(0.0, nearest - self.spread), max(0.0, normal - self.spread), normal

    def _blocks(self, x: float, scale: float) -> None:
        self.block2.append(x)
        if len(self.block2) == 2:
            mean = sum(self.block2) / 2
            if self.previous2 is not None:
                self.z2 = self.book2.novelty([self.previous2, mean], scale)
            self.previous2, self.block2 = mean, []
        self.block3.append(x)
        if len(self.block3) == 12:
            mean = sum(self.block3) / 12
            if self.previous3 is not None:
                self.z3 = self.book3.novelty([self.previous3, mean], scale)
            self.previous3, self.block3 = mean, []

    def _forecast(self, x: float, before: float) -> float:
        t = self.t
        e = 0.0
        if t >= 2:
            phi = [(self.last[0] - self.mean) / before, (self.last[1] - self.mean) / before, 1.0]
            predicted = sum(w * p for w, p in zip(self.weights, phi, strict=True))
            e = (x - self.mean) / before - predicted
            gain = [sum(row[j] * phi[j] for j in range(3)) for row in self.cov]
            den = 0.999 + sum(p * g for p, g in zip(phi, gain, strict=True))
            limit = 5.0 * self.spread + 0.01
            clipped = max(-limit, min(limit, e))
            self.weights = [w + g / den * clipped for w, g in zip(self.weights, gain, strict=True)]
            self.cov = [
                [(self.cov[i][j] - gain[i] * gain[j] / den) / 0.999 for j in range(3)]
                for i in range(3)
            ]
            if self.cov[0][0] + self.cov[1][1] + self.cov[2][2] > 1e4:
                self.cov = [[0.5 * c for c in row] for row in self.cov]
            self.spread += max(0.01, 1.0 / (t + 1)) * (min(abs(e), limit) - self.spread)
        self.mean += max(0.002, 1.0 / (t + 1)) * (x - self.mean)
        counted = 0.0 if t <= 20 else e
        z4 = self.book4.novelty([counted], self.error_range.update(counted))
        return z4 if t >= 50 else 0.0

    def _season(self, epoch: int, x: float, scale: float) -> float:
        results = []
        for profile in (self.day, self.week):
            r = profile.residual(epoch, x, scale)
            if r is not None:
                rc = min(abs(r), 5.0 * profile.error + 0.02)
                profile.error += 0.003 * (rc - profile.error)
                profile.plain += 0.003 * (abs(x - self.mean_season) / scale - profile.plain)
                profile.updates += 1
            results.append(r)
        self.mean_season += max(0.002, 1.0 / (self.t + 1)) * (x - self.mean_season)
        use_week = self.week.updates > 300 and self.week.error < self.day.error
        chosen, r = (self.week, results[1]) if use_week else (self.day, results[0])
        if r is not None:
            self.residuals = [*self.residuals[-11:], r]
        skill = 1.0 - (chosen.error + 1e-4) / (self.day.plain + 1e-4)
        if skill <= 0.2:
            return 0.0
        return abs(sum(self.residuals) / 12) * skill

    def _flat(self, x: float, scale: float, regime: bool) -> float:
        if self.t > 0:
            if abs(x - self.last[0]) <= 1e-6 * scale:
                self.run += 1
            else:
                if self.t < 700 or self.run < 8 + 2 * self.longest or regime:
                    self.longest = max(self.longest, self.run)
                self.runs += 1
                self.run = 1
        self.longest -= 1e-4 * (self.longest - 1)
        return self.run / (8 + 2 * self.longest) if self.runs >= 30 else 0.0

    def _onset(self, o: float, o_a: float, o_k: float, reason: int) -> tuple[int, bool]:
        since = self.t - self.onset_at
        ready = since > 80 or (since > 5 and o >= 3.0 * self.peak)
        onset = False
        if ready and o_a >= 1.0:
            onset = True
            self.habit += 0.1
        elif ready and o_k >= 1.0 and self.t - self.hot_at > 20:
            onset, reason = True, 6
        if onset:
            self.onset_at, self.peak = self.t, max(1.0, o)
        else:
            self.peak = max(self.peak, o)
        return reason, onset
