"""One plain sentence why something is an anomaly, from what the detectors saw at its onset."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from zoneinfo import ZoneInfo

from anomalies.models import AnomalyType

_MOST = 0.8  # a share beside which no other is worth naming
_SPIKE_WORDS = {1: "above", -1: "below", 0: "away from"}


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


def spoken(seconds: float) -> str:
    """A length of time as a person would say it.

    >>> spoken(12.4), spoken(850.0), spoken(7_800.0), spoken(3.2)
    ('12 s', '14 min', '2 h 10 min', '3.2 s')
    """
    if seconds < 9.95:
        return f"{number(float(f'{seconds:.2g}'))} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    if seconds < 5_370:
        return f"{seconds / 60:.0f} min"
    if seconds < 47.5 * 3_600:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{seconds / 86_400:.0f} days"


def silence_sentence(
    source: str, metric: str, lasted_s: float, usual_s: float, limit_s: float
) -> str:
    """ "No event of heartbeat on edge-fra-1 for 14 min; usually one comes every 5 s …"."""
    usual = f"usually one comes every {spoken(usual_s)}, and " if usual_s > 0 else ""
    return (
        f"No event of {metric} on {source} for {spoken(lasted_s)}; {usual}silence is odd from"
        f" {spoken(limit_s)} on."
    )


CAME_LATE = "What was missing came late: the series was not silent after all."
NOT_WATCHED = "Its silence is no longer watched."


def vector_sentence(
    source: str,
    distance: float,
    usual: float,
    alarm: float,
    shares: Mapping[str, float],
    values: Mapping[str, Mapping[str, float | None]] | None = None,
) -> str:
    """ "The values of pump-3 together lay 6.2 from their usual pattern …".

    `distance`, the `usual` one and the one at which an `alarm` begins are in deviations; `shares`
    are those of each value in the squared distance, empty where it is not known. Of the one with
    the largest share, `values` says its level and the one that goes with all the others.
    """
    start = f"The values of {source} together lay {number(distance)} from their usual pattern"
    scale = f"usually {number(usual)}, an alarm from {number(alarm)} on"
    if distance < alarm or not shares:
        return (
            f"{start}, which is no alarm by itself ({scale}), but their combination is one that"
            " the trained models do not know."
        )
    ranked = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    named = ranked[:1] if ranked[0][1] >= _MOST else ranked[:3]
    parts = [f"{name} ({100 * share:.0f} %)" for name, share in named if share >= 0.05]
    told = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    most = "Most of that" if sum(share for _, share in named) > 0.5 else "The largest parts of that"
    verb = "is" if most == "Most of that" or len(parts) == 1 else "are"
    first = (values or {}).get(named[0][0], {})
    level, expected = first.get("level"), first.get("expected")
    goes = ""
    if told and level is not None and expected is not None:
        goes = (
            f" {named[0][0]} lay at {number(level)}; {number(expected)} would go with the other"
            " values."
        )
    return f"{start} ({scale}). {most} {verb} {told or 'spread over all of them'}.{goes}"
