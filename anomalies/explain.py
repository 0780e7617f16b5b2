"""The type of an anomaly and one plain sentence why, from what the detectors saw at its onset."""

from __future__ import annotations

import datetime as dt
import math
from zoneinfo import ZoneInfo

from anomalies.models import AnomalyType
from detection.detectors.online import REASONS

_SPIKE_WORDS = {1: "above", -1: "below", 0: "away from"}


def anomaly_type(reason: int, direction: int, features: dict[str, float]) -> AnomalyType:
    """What kind of oddness the strongest test of the online detector speaks of."""
    name = REASONS[reason]
    if name == "flat":
        return AnomalyType.FLATLINE
    if name == "season":
        return AnomalyType.CONTEXTUAL
    if name == "block":
        return (
            AnomalyType.LEVEL_SHIFT if abs(features.get("spread", 0.0)) < 1 else AnomalyType.PATTERN
        )
    if name == "residual" and features.get("spread", 0.0) > 1.5:
        return AnomalyType.VARIANCE_CHANGE
    if name == "pair" and abs(features.get("residual", 0.0)) < 3:
        return AnomalyType.PATTERN
    return AnomalyType.DIP if direction < 0 else AnomalyType.SPIKE


def number(value: float) -> str:
    """Four significant digits, as a person would write them.

    >>> number(1284.04), number(0.018349), number(97.0)
    ('1,284', '0.01835', '97')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(digits, 12)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def sentence(
    source: str,
    metric: str,
    value: float,
    expected: tuple[float, float, float] | None,
    kind: AnomalyType,
    direction: int,
    onset_at: dt.datetime,
    time_zone: str,
) -> str:
    """ "cpu_usage on web-3 was 97, 4.1 × its usual spread above the 41 expected …"."""
    local = onset_at.astimezone(ZoneInfo(time_zone))
    when = f"for a {local:%A} at {local:%H:%M}"
    start = f"{metric} on {source} was {number(value)}"
    if expected is None:
        return f"{start}, unlike anything this series has shown so far."
    low, mid, high = expected
    band = f"{number(low)} to {number(high)}"
    if kind is AnomalyType.FLATLINE:
        return f"{start} and has not moved for longer than this series usually stays still."
    half = (high - low) / 2
    if low <= value <= high or half <= 0:
        return (
            f"{start}, inside the {band} expected {when}, but the way it got there is unlike"
            " what this series has done before."
        )
    times = abs(value - mid) / half
    return (
        f"{start}, {number(times)} × its usual spread {_SPIKE_WORDS[direction]} the {number(mid)}"
        f" expected {when} (usually {band})."
    )
