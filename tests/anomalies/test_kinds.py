"""The kind of an anomaly: known faults of every kind in normal data, and how often it is told.

`pytest -s` prints the confusion tables. The rules were made on other seeds than these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import product

import numpy as np
import pytest

from anomalies import kinds
from anomalies.models import AnomalyType
from detection.base import FloatArray
from detection.detectors.online import REASONS, OnlineDetector, strengths
from detection.features import FEATURE_NAMES
from detection.injection import inject
from tests.detection import series

N, START, DAY = 3_600, 2_000, 288
SEEDS = range(500, 508)
INJECTED = {
    "spike": "spike", "dip": "spike", "level_shift": "level_shift", "trend_change": "drift",
    "variance_change": "variance", "flatline": "flat_line", "pattern": "pattern",
    "contextual": "contextual",
}  # fmt: skip
Table = Counter[tuple[str, str]]


def steady(n: int, seed: int) -> FloatArray:
    """An autoregression around a level."""
    noise = np.random.default_rng(seed).normal(0, 1, n)
    value = np.empty(n)
    x = 0.0
    for i, e in enumerate(noise.tolist()):
        x = 0.5 * x + e
        value[i] = 50 + x
    return value


def skewed(n: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).gamma(4, 10, n)


BASES: dict[str, Callable[[int, int], FloatArray]] = {
    "steady": steady, "daily": series.daily, "skewed": skewed,
}  # fmt: skip


def faulty(base: str, kind: str, seed: int) -> tuple[FloatArray, int, int] | None:
    """Values with one fault of the kind, from its first event up to but without its end."""
    value = BASES[base](N, seed)
    if kind in ("spike", "dip"):
        dice = np.random.default_rng(seed)
        start, length = int(dice.integers(2_500, 3_000)), int(dice.integers(1, 4))
        height = dice.uniform(4, 7) * float(np.std(np.diff(value)))
        near = value[start - 200 : start + 200]
        out = value.copy()
        out[start : start + length] = (
            near.max() + height if kind == "spike" else near.min() - height
        )
        return out, start, start + length
    found = inject(value, seed=seed, kinds=[INJECTED[kind]], start=START, size=1.5)
    if not found.faults:
        return None
    return found.value, found.faults[0].start, found.faults[0].end


def readings(base: str, kind: str, seed: int) -> tuple[str, str, str] | None:
    """The kind at the onset, 24 events on and after the end, as a consumer and the task read it."""
    made = faulty(base, kind, seed)
    if made is None:
        return None
    value, start, end = made
    oddness, out = series.score_alone(OnlineDetector(), series.regular(N), value)
    over = np.flatnonzero(oddness >= 1)
    inside = over[(over >= start - 2) & (over < end + 12)]
    if not len(inside):
        return None
    i = int(inside[0])
    features = dict(zip(FEATURE_NAMES, out.features[i].tolist(), strict=True))
    first = kinds.at_onset(
        REASONS[out.reason[i]],
        int(np.sign(value[i] - out.expected[i, 1])),
        features,
        strengths(out.features[i], out.tests[i]),
        value[i - 59 : i + 1],
    )
    close = last = i
    while close < N - 1 and close - last < 80:
        close += 1
        if oddness[close] >= 1:
            last = close
    so_far, second = (again(value, i, end) or first for end in (i + 24, close))
    return str(first.value), str(so_far.value), str(second.value)


def again(value: FloatArray, i: int, close: int) -> AnomalyType | None:
    """The reading of the course from before the onset `i` up to `close`."""
    part, lagged = value[i - 120 : close + 1], value[i - 120 - DAY : close + 1 - DAY]
    n = 120 - kinds.LEAD
    usual, known = np.full(len(part), float(np.median(part[:n]))), None
    if np.median(np.abs(part[:n] - lagged[:n])) < 0.7 * np.median(np.abs(part[:n] - usual[:n])):
        day = value[i - DAY : i - kinds.LEAD]
        usual, known = lagged, (float(day.min()), float(day.max()))
    return kinds.afterwards(part, usual, 120, known=known)


@cache
def tables() -> tuple[Table, Table, Table]:
    at_onset: Table = Counter()
    so_far: Table = Counter()
    afterwards: Table = Counter()
    for base, kind, seed in product(BASES, INJECTED, SEEDS):
        if kind == "contextual" and base != "daily":
            continue
        if found := readings(base, kind, seed):
            at_onset[kind, found[0]] += 1
            so_far[kind, found[1]] += 1
            afterwards[kind, found[2]] += 1
    return at_onset, so_far, afterwards


def accuracy(table: Table, kind: str | None = None) -> float:
    rows = {key: n for key, n in table.items() if kind in (None, key[0])}
    return sum(n for (made, told), n in rows.items() if made == told) / sum(rows.values())


def printed(name: str, table: Table) -> None:
    print(f"\n{name}: {accuracy(table):.0%} of {table.total()}")
    for kind in INJECTED:
        told = {k[1]: n for k, n in sorted(table.items()) if k[0] == kind}
        print(f"  {kind:16} {told}")


def test_after_its_end_nearly_every_kind_is_told() -> None:
    at_onset, so_far, afterwards = tables()
    printed("at the onset", at_onset)
    printed("24 events on", so_far)
    printed("after the end", afterwards)
    assert afterwards.total() >= 120
    assert accuracy(afterwards) >= 0.9
    for kind in INJECTED:
        assert accuracy(afterwards, kind) >= 0.6, kind


def test_at_the_onset_what_one_event_shows_is_told() -> None:
    at_onset, _, _ = tables()
    for kind in ("spike", "dip", "flatline"):
        assert accuracy(at_onset, kind) >= 0.9, kind


def test_while_it_goes_on_most_kinds_are_told() -> None:
    at_onset, so_far, _ = tables()
    assert accuracy(so_far) >= 0.8
    assert accuracy(so_far) >= accuracy(at_onset) + 0.3


def first_reading(reason: str, direction: int = 1, **features: float) -> str:
    return str(kinds.at_onset(reason, direction, features, {}, np.zeros(0)).value)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (first_reading("residual"), "spike"),
        (first_reading("residual", -1), "dip"),
        (first_reading("residual", spread=2.0), "variance_change"),
        (first_reading("flat"), "flatline"),
        (first_reading("season"), "contextual"),
        (first_reading("block"), "level_shift"),
        (first_reading("block", spread=1.5), "pattern"),
        (first_reading("pair"), "pattern"),
        (first_reading("pair", -1, residual=-4.0), "dip"),
    ],
)
def test_without_a_past_the_kind_follows_the_strongest_test(found: str, expected: str) -> None:
    assert found == expected


def test_every_reason_and_any_past_has_a_kind() -> None:
    pasts = [np.zeros(0), np.zeros(60), np.arange(60.0), np.full(60, 1e300), np.ones(3)]
    for reason, direction, past in product(REASONS, (-1, 0, 1), pasts):
        assert kinds.at_onset(reason, direction, {}, {}, past) in AnomalyType


def test_too_little_says_nothing() -> None:
    value = steady(100, 1)
    assert kinds.afterwards(value, np.full(100, 50.0), 10) is None
    assert kinds.afterwards(value, np.full(100, 50.0), 99) is None
    assert kinds.afterwards(value, np.full(100, 50.0), 60) is None
