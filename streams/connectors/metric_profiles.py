"""What synthetic metrics look like: units, levels, seasons, noise, bounds; and who has them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Profile:
    """One metric's normal life: level + day·season + week·weekend + trend + AR(1) noise."""

    name: str
    unit: str
    level: float
    day: float  # half of the daily swing
    week: float  # how much lower the weekend is
    trend: float  # half of the swing over four weeks
    noise: float  # standard deviation of the noise
    memory: float = 0.6  # coefficient of the AR(1) noise
    peak_hour: float = 14.0  # UTC
    low: float = -np.inf
    high: float = np.inf
    decimals: int = 2
    family: str = "server"

    @property
    def span(self) -> float:
        """The width of the normal range: what a fault's size is measured by."""
        return 2 * self.day + abs(self.week) + 6 * self.noise


_ALL = (
    Profile("cpu_usage", "%", 34, 13, 7, 2, 2.2, low=0, high=100),
    Profile("mem_usage", "%", 58, 4, 2, 3, 0.6, memory=0.9, low=0, high=100),
    Profile("response_ms", "ms", 120, 28, 12, 5, 6, low=1, decimals=1),
    Profile("disk_io", "MB/s", 45, 14, 9, 3, 3.5, low=0, peak_hour=2),
    Profile("net_in", "MB/s", 80, 30, 18, 5, 5, low=0),
    Profile("requests_per_s", "1/s", 420, 190, 110, 20, 16, low=0, decimals=1),
    Profile("error_rate", "%", 0.8, 0.15, 0.05, 0.05, 0.08, low=0, high=100, decimals=3),
    Profile(
        "temperature", "°C", 21.5, 2.6, 0.8, 0.8, 0.18, memory=0.8, peak_hour=15, family="sensor"
    ),
    Profile("humidity", "%", 46, 5, 1, 2, 0.7, 0.8, peak_hour=5, low=0, high=100, family="sensor"),
    Profile("vibration", "mm/s", 2.8, 0.4, 0.6, 0.1, 0.16, 0.3, low=0, decimals=3, family="sensor"),
    Profile(
        "pressure", "bar", 6.2, 0.12, 0.05, 0.05, 0.03, 0.7, low=0, decimals=3, family="sensor"
    ),
    Profile(
        "payments_per_min", "1/min", 310, 140, 60, 15, 12, 0.4, 18, 0, decimals=0, family="payments"
    ),
    Profile("declined_share", "%", 3.1, 0.4, 0.2, 0.1, 0.22, 0.3, 3, 0, 100, 3, "payments"),
    Profile(
        "checkout_ms", "ms", 640, 90, 40, 20, 24, 0.5, 18, low=1, decimals=1, family="payments"
    ),
)
PROFILES = {profile.name: profile for profile in _ALL}
FAMILIES = {
    "server": ("cpu_usage", "mem_usage", "response_ms"),
    "sensor": ("temperature", "humidity", "vibration"),
    "payments": ("payments_per_min", "declined_share", "checkout_ms"),
}
_NAMES = {
    "server": ("web", "db", "cache", "queue"),
    "sensor": ("sensor",),
    "payments": ("payments-eu", "payments-us", "payments-apac"),
}
_DEMO_ORDER = ("server", "sensor", "payments", "server")


def profile_of(metric: str) -> Profile:
    """The known profile of that name, or a plausible one that its name alone decides."""
    if metric in PROFILES:
        return PROFILES[metric]
    rng = np.random.default_rng(zlib.crc32(metric.encode()))
    level = float(np.round(10 ** rng.uniform(1, 3), 1))
    share = rng.uniform([0.1, 0.03, 0.01, 0.02], [0.4, 0.2, 0.05, 0.06])
    day, week, trend, noise = (level * share).tolist()
    peak = float(rng.uniform(0, 24))
    return Profile(
        metric, "", level, day, week, trend, noise, peak_hour=peak, low=0, family="other"
    )


def source_names(metrics: tuple[str, ...], count: int) -> list[str]:
    """Names that suit the metrics: web-1, db-1 … for servers, sensor-1 …, node-1 for a mixture.

    >>> source_names(("cpu_usage",), 5)
    ['web-1', 'db-1', 'cache-1', 'queue-1', 'web-2']
    """
    families = {profile_of(metric).family for metric in metrics}
    family = families.pop() if len(families) == 1 else "other"
    return [_name(_NAMES.get(family, ("node",)), index) for index in range(count)]


def demo_fleet(count: int) -> list[tuple[str, tuple[str, ...]]]:
    """Sources of all families with their metrics: servers, sensors and payments in turn."""
    seen = dict.fromkeys(FAMILIES, 0)
    fleet: list[tuple[str, tuple[str, ...]]] = []
    for index in range(count):
        family = _DEMO_ORDER[index % len(_DEMO_ORDER)]
        fleet.append((_name(_NAMES[family], seen[family]), FAMILIES[family]))
        seen[family] += 1
    return fleet


def _name(pool: tuple[str, ...], index: int) -> str:
    number, which = divmod(index, len(pool))
    if pool[which].startswith("payments"):
        return pool[which] if number == 0 else f"{pool[which]}-{number + 1}"
    return f"{pool[which]}-{number + 1}"
