"""Faults put into history: where they are said to be, of the size they are said to have."""

from __future__ import annotations

import numpy as np
import pytest

from detection.base import FloatArray
from detection.injection import KINDS, RECURRENCES, inject, spread
from tests.detection.series import daily


def noise(n: int = 6000, seed: int = 3) -> FloatArray:
    return np.random.default_rng(seed).normal(100.0, 2.0, n)


def test_the_same_seed_gives_the_same_and_the_input_stays() -> None:
    value = daily(6000, 1)
    before = value.copy()
    one, two = inject(value, seed=7), inject(value, seed=7)
    assert one.value.tobytes() == two.value.tobytes()
    assert one.faults == two.faults
    assert inject(value, seed=8).faults != one.faults
    np.testing.assert_array_equal(value, before)


def test_only_labelled_events_change_and_faults_lie_apart() -> None:
    value = daily(12_000, 2)
    found = inject(value, seed=1, each=2, start=1000, apart=150)
    changed = found.value != value
    assert not (changed & ~found.label).any()
    assert {fault.kind for fault in found.faults} == set(KINDS)
    assert found.faults[0].start >= 1000 + 150
    assert found.faults[-1].end <= 12_000 - 150
    for one, next_one in zip(found.faults, found.faults[1:], strict=False):
        assert next_one.start - one.end >= 150 - 3  # recurring spikes count from their starts
    for fault in found.faults:
        assert changed[fault.start : fault.end].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_what_its_name_says(kind: str) -> None:
    value = daily(4000, 5)
    found = inject(value, seed=2, kinds=[kind])
    fault = found.faults[0]
    part, normal = found.value[fault.start : fault.end], value[fault.start : fault.end]
    unit = spread(value)
    size = np.abs(part - normal)
    checks = {
        "spike": size.min() >= 6 * unit and len(part) <= 3,
        "recurring_spike": size.min() >= 5 * unit and len(part) <= 3,
        "level_shift": 4 * unit <= size.min() and np.ptp(part - normal) < 1e-9,
        "drift": size[0] == 0 and 5 * unit <= size[-1] <= 10 * unit,
        "variance": 2 * unit * 0.8 <= np.std(part - normal) <= 4 * unit * 1.2,
        "flat_line": len(part) >= 40 and np.ptp(part) == 0 and part[0] == normal[0],
        "pattern": value.min() <= part.min() and part.max() <= value.max(),
        "contextual": value.min() <= part.min() and abs((part - normal).mean()) >= 1.5 * unit,
    }
    assert checks[kind]


def test_a_recurring_spike_comes_back_as_the_same() -> None:
    value = daily(4000, 5)
    found = inject(value, seed=4, kinds=["recurring_spike"])
    assert [fault.occurrence for fault in found.faults] == list(range(1, RECURRENCES + 1))
    peaks = [found.value[fault.start] for fault in found.faults]
    assert np.ptp(peaks) < spread(value)
    assert len(np.unique(peaks)) == RECURRENCES


def test_what_cannot_be_seen_is_not_claimed() -> None:
    """White noise has no context: a mirrored piece of it is as normal as before."""
    found = inject(noise(), seed=1, kinds=["contextual", "spike"])
    assert {fault.kind for fault in found.faults} == {"spike"}


def test_counts_stay_counts() -> None:
    value = np.random.default_rng(1).poisson(3.0, 8000).astype(np.float64)
    found = inject(value, seed=1, each=2)
    assert (found.value == np.round(found.value)).all()
    assert (found.value >= 0).all()
    spikes = [fault for fault in found.faults if fault.kind == "spike"]
    assert all(found.value[fault.start] > 8 for fault in spikes)


def test_a_flat_line_is_longer_than_the_usual_runs() -> None:
    value = np.repeat(np.random.default_rng(2).integers(0, 2, 200), 50).astype(np.float64)
    runs = np.diff(np.flatnonzero(np.diff(value)))
    found = inject(value, seed=1, kinds=["flat_line"])
    assert found.faults[0].end - found.faults[0].start >= 3 * runs.max()


def test_the_spread_is_the_series_own() -> None:
    rng = np.random.default_rng(0)
    white = rng.normal(0.0, 2.0, 20_000)
    assert spread(white) == pytest.approx(2.0, rel=0.05)
    spiked = white.copy()
    spiked[::50] = 500.0
    assert spread(spiked) == pytest.approx(2.0, rel=0.1)
    assert spread(white + np.linspace(0, 1000, 20_000)) < 5.0  # the trend is not its spread
    assert spread(7.0 * white) == pytest.approx(7.0 * spread(white))
    assert spread(np.full(100, 50.0)) == pytest.approx(0.5)
    assert spread(np.zeros(100)) > 0
    assert spread((rng.random(5000) < 0.1).astype(np.float64)) == pytest.approx(0.12, rel=0.5)


def test_it_takes_what_room_there_is() -> None:
    value = noise(700)
    found = inject(value, seed=1, each=3)
    assert 1 <= len({fault.start for fault in found.faults}) < 3 * len(KINDS)
    with pytest.raises(ValueError, match="300 events are too few"):
        inject(noise(300), seed=1, kinds=["drift"])


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="'spikes' is none of spike, "):
        inject(noise(), seed=1, kinds=["spikes"])
    holed = noise()
    holed[5] = np.nan
    with pytest.raises(ValueError, match="finite"):
        inject(holed, seed=1)
