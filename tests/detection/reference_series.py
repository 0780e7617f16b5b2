"""The statistical detectors once more, in plain Python with lists and dictionaries.

Written from the formulas in docs/detection.md, to hold the kernels against.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

NAN = math.nan


def clip(x: float, most: float) -> float:
    return max(-most, min(most, x))


@dataclass
class Moments:
    """Exponentially weighted mean and variance, exact over the first 1/rate values."""

    rate: float
    n: float = 0.0
    mean: float = 0.0
    variance: float = 0.0

    @property
    def deviation(self) -> float:
        return math.sqrt(self.variance)

    def learn(self, x: float, most: float = math.inf) -> None:
        if self.n == 0:
            self.mean = x
        share = max(self.rate, 1 / (self.n + 1))
        gap = clip(x - self.mean, most)
        self.mean += share * gap
        self.variance = (1 - share) * (self.variance + share * gap * gap)
        self.n += 1


def usable(x: float) -> bool:
    return not math.isnan(x) and abs(x) <= 1e150


def floored(own: float, past: float, centre: float) -> float:
    tiny = 1e-9 + 1e-6 * abs(centre)
    return max(past, tiny) if own <= tiny else max(own, past / 4)


def mad(values: Sequence[float], threshold: float = 3.0) -> list[float]:
    window: deque[float] = deque(maxlen=128)
    past, out = Moments(0.002), []
    for x in values:
        o, spread = NAN, math.inf
        if usable(x):
            if past.n >= 30:
                median = statistics.median(window)
                own = statistics.median(abs(v - median) for v in window)
                own /= statistics.NormalDist().inv_cdf(0.75)
                spread = floored(own, past.deviation, median)
                o = min(abs(x - median) / spread, 1e6) / threshold
            window.append(x)
            past.learn(x, 20 * max(spread, past.deviation))
        out.append(o)
    return out


def iqr(values: Sequence[float], threshold: float = 3.0) -> list[float]:
    window: deque[float] = deque(maxlen=128)
    past, out = Moments(0.002), []
    normal = 2 * statistics.NormalDist().inv_cdf(0.75)
    for x in values:
        o, spread = NAN, math.inf
        if usable(x):
            if past.n >= 30:
                low, _, high = statistics.quantiles(window, n=4, method="inclusive")
                spread = floored((high - low) / normal, past.deviation, (low + high) / 2)
                beyond = max(low - x, x - high, 0.0)
                o = min(beyond / (normal * spread), 1e6) / (threshold / 2)
            if past.n < 128 or int(past.n) * 2654435769 % 2**32 < 2**29:
                window.append(x)
            past.learn(x, 20 * max(spread, past.deviation))
        out.append(o)
    return out


def ewma(values: Sequence[float], threshold: float = 3.0, weight: float = 0.1) -> list[float]:
    value, charted = Moments(0.002), Moments(0.002)
    chart, out = 0.0, []
    for x in values:
        if not usable(x):
            out.append(NAN)
            continue
        if value.n == 0:
            value.mean = charted.mean = chart = x
        mature = value.n >= 60
        tiny = 1e-9 + 1e-6 * abs(value.mean)
        most = 3 * max(value.deviation, tiny) if mature else math.inf
        chart = (1 - weight) * chart + weight * (value.mean + clip(x - value.mean, most))
        if mature:
            ideal = value.variance * weight / (2 - weight)
            share = max(0.002, 1 / (value.n + 1))
            limit = math.sqrt(max(charted.variance, ideal) + share * value.variance)
            out.append(min(abs(chart - charted.mean) / max(limit, tiny), 1e6) / threshold)
        else:
            out.append(NAN)
        value.learn(x)
        charted.learn(chart)
    return out


@dataclass
class Profile:
    """Levels by hour of a season: visits, and the mean square of what they missed."""

    size: int
    level: dict[int, float] = field(default_factory=dict)
    visits: dict[int, int] = field(default_factory=dict)

    def at(self, seconds: int, drawn: bool) -> float | None:
        hour, part = seconds // 3600, seconds % 3600 / 3600
        mine = self.level.get(hour % self.size)
        if mine is None or not drawn:
            return mine
        beside = self.level.get((hour + (1 if part >= 0.5 else -1)) % self.size)
        return mine if beside is None else mine + abs(part - 0.5) * (beside - mine)

    def times(self, hour: int) -> int:
        return self.visits.get(hour % self.size, 0)

    def learn(self, hour: int, misses: list[float], raw: list[float]) -> None:
        key, times = hour % self.size, self.times(hour)
        if times == 0:
            self.level[key] = sum(raw) / len(raw)
        else:
            self.level[key] += max(0.2, 1 / (times + 1)) * sum(misses) / len(misses)
        self.visits[key] = times + 1


def seasonal(epochs: Sequence[int], values: Sequence[float], threshold: float = 3.0) -> list[float]:
    day, week = Profile(24), Profile(168)
    level, pooled, hours = 0.0, 0.0, 0
    square, events = dict.fromkeys(range(24), 0.0), dict.fromkeys(range(24), 0.0)
    errors, compared = [0.0, 0.0], 0
    flat_error, drawn_error = 0.0, 0.0
    seen, far_hours = 0, 0
    now: int | None = None
    visit: list[dict[str, float]] = []
    out = []
    for seconds, x in zip(epochs, values, strict=True):
        if not usable(x):
            out.append(NAN)
            continue
        hour = seconds // 3600
        late = now is not None and 0 < now - hour <= 24
        if now is not None and hour != now and not late:
            if visit:
                n, at = len(visit), now % 24
                means = {k: sum(e[k] for e in visit) / n for k in visit[0]}
                raw = [e["raw"] for e in visit]
                day_times, week_times = day.times(now), week.times(now)
                old_level = level
                if day_times > 0:
                    square[at] += max(0.2, 1 / day_times) * (means["used2"] - square[at])
                    events[at] = min(200.0, events[at] + n)
                    hours += 1
                    pooled += max(1 / 48, 1 / hours) * (means["used2"] - pooled)
                    level += means["used"] / 24
                    share = max(1 / 72, 1 / hours)
                    flat_error += share * (means["flat2"] - flat_error)
                    drawn_error += share * (means["drawn2"] - drawn_error)
                if week_times >= 2:
                    compared += 1
                    share = max(1 / 72, 1 / compared)
                    errors[0] += share * (means["day2"] - errors[0])
                    errors[1] += share * (means["week2"] - errors[1])
                raw = [v - old_level for v in raw]
                day.learn(now, [e["day"] for e in visit], raw)
                week.learn(now, [e["week"] for e in visit], raw)
                far_hours = far_hours + 1 if 2 * sum(e["far"] for e in visit) > n else 0
                visit = []
            now = hour
        if now is None:
            now = hour
        seen += 1
        smooth = drawn_error < flat_error

        def miss(profile: Profile, drawn: bool) -> float:
            found = profile.at(seconds, drawn)  # noqa: B023
            return 0.0 if found is None else x - level - found  # noqa: B023

        used = miss_day = miss(day, smooth)
        miss_week = miss(week, smooth)
        if week.times(hour) >= 2 and compared >= 24 and errors[1] < errors[0]:
            used = miss_week
        o, most, most2, far = NAN, math.inf, math.inf, False
        if day.times(hour) >= 2:
            at = hour % 24
            known = events[at]
            deviation = math.sqrt((known * square[at] + 10 * pooled) / (known + 10))
            deviation = max(deviation, 1e-9 + 1e-6 * abs(x - used))
            far = abs(used) > 3 * deviation
            if seen > 30:
                o = min(abs(used) / deviation, 1e6) / threshold
            if day.times(hour) >= 3 and far_hours < 3:
                most, most2 = 3 * deviation, 10 * deviation
        out.append(o)
        if not late:
            week_most = most if week.times(hour) >= 2 else math.inf
            visit.append({
                "raw": x, "day": clip(miss(day, False), most),
                "week": clip(miss(week, False), week_most),
                "flat2": clip(miss(day, False), most2) ** 2,
                "drawn2": clip(miss(day, True), most2) ** 2,
                "used": clip(used, most), "day2": clip(miss_day, most2) ** 2,
                "week2": clip(miss_week, most2) ** 2, "used2": clip(used, most2) ** 2,
                "far": float(far),
            })  # fmt: skip
    return out


@dataclass
class Sum:
    """A cumulative sum: what its excursions from 0 reached, and the gaps of the present one."""

    cube: float = 8.0
    excursions: int = 0
    value: float = 0.0
    peak: float = 0.0
    gaps: list[float] = field(default_factory=list)

    def end(self, *, cut: bool = False) -> None:
        if self.peak > 0 and not cut:
            self.excursions += 1
            share = max(0.005, 1 / (5 + self.excursions))
            self.cube += share * (self.peak**3 - self.cube)
        self.value, self.peak, self.gaps = 0.0, 0.0, []

    def step(self, by: float, gap: float) -> float:
        self.value += by - 0.5
        if self.value <= 0:
            self.end()
            return 0.0
        self.peak = max(self.peak, self.value)
        self.gaps.append(gap)
        return float(self.value / self.cube ** (1 / 3))


def change_point(values: Sequence[float], threshold: float = 8.0) -> list[float]:
    rate = 0.003
    base, sizes = Moments(rate), Moments(rate)
    sums = [Sum() for _ in range(4)]
    out = []
    for x in values:
        if not usable(x):
            out.append(NAN)
            continue
        if base.n == 0:
            base.mean = x
        mean = base.mean
        gap = x - mean
        reached: list[float] = []
        if base.n >= 30:
            u = clip(gap / max(base.deviation, 1e-9 + 1e-6 * abs(mean)), 4)
            w = 0.0
            if sizes.n >= 30:
                w = clip((abs(u) - sizes.mean) / max(sizes.deviation, 0.05), 4)
            steps = [u, -u, w, -w]
            reached = [s.step(by, gap) / threshold for s, by in zip(sums, steps, strict=True)]
            away = abs(u) - sizes.mean  # the first size is a deviation from 0 as well
            share = max(rate, 1 / (sizes.n + 1))
            sizes.mean += share * away
            sizes.variance = (1 - share) * (sizes.variance + share * away**2)
            sizes.n += 1
        out.append(max(reached, default=NAN))
        base.learn(x)
        over = [j for j, r in enumerate(reached) if r >= 1]
        if over:
            gaps = sums[over[0]].gaps
            shift = sum(gaps) / len(gaps)
            if over[0] < 2:
                base.mean = mean + shift
            elif len(gaps) > 1:
                base.variance = max(0.0, sum(g * g for g in gaps) / len(gaps) - shift**2)
            base.n = max(len(gaps), 30)
            for j, s in enumerate(sums):
                s.end(cut=j != over[0])
    return out
