"""Faults put into wide events: where they say they are and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from detection.injection import spread
from detection.wide_injection import APART, KINDS, inject


def plant(n: int = 6_000, k: int = 6, seed: int = 1) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    hidden = np.stack([np.sin(np.arange(n) / p) for p in (9, 31, 113)], axis=1)
    return hidden @ rng.normal(0, 1, (3, k)) + rng.normal(0, 0.2, (n, k))


def test_only_what_is_said_is_changed_and_only_there() -> None:
    values = plant()
    before = values.copy()
    found = inject(values, seed=3, each=2, start=500)
    assert np.array_equal(values, before)
    assert {f.kind for f in found.faults} == set(KINDS)
    assert found.faults[0].start >= 700
    starts = [f.start for f in found.faults]
    assert starts == sorted(starts)
    changed = found.values != before
    for fault, columns in zip(found.faults, found.touched, strict=True):
        part = changed[fault.start : fault.end]
        assert 1 <= len(columns) <= 3
        assert part[:, list(columns)].any(axis=0).all()
        changed[fault.start : fault.end, list(columns)] = False
    assert not changed.any()
    gaps = [b.start - a.end for a, b in zip(found.faults, found.faults[1:], strict=False)]
    assert min(gaps) >= 200


def test_equal_seeds_are_equal_and_others_are_not() -> None:
    one, same, other = (inject(plant(), seed=s) for s in (4, 4, 5))
    assert one.values.tobytes() == same.values.tobytes()
    assert one.faults == same.faults
    assert one.values.tobytes() != other.values.tobytes()


def test_values_that_part_stay_usual_each_by_itself() -> None:
    values = plant()
    found = inject(values, seed=2, kinds=[APART], each=4)
    assert len(found.faults) == 4
    for fault, columns in zip(found.faults, found.touched, strict=True):
        for j in columns:
            part, own = found.values[fault.start : fault.end, j], values[:, j]
            assert np.isin(part, own).all()
            away = np.sqrt(np.mean((part - values[fault.start : fault.end, j]) ** 2))
            assert away >= spread(own)


def test_a_missing_value_stays_missing_and_a_dead_one_is_left_alone() -> None:
    values = plant()
    values[::7, 1] = np.nan
    values[100:, 2] = np.nan
    values[:, 3] = 5.0
    found = inject(values, seed=1, each=3)
    assert np.array_equal(np.isnan(found.values), np.isnan(values))
    assert {j for columns in found.touched for j in columns} <= {0, 1, 4, 5}
    assert (found.values[:, 3] == 5.0).all()


def test_what_can_not_be_is_refused() -> None:
    with pytest.raises(ValueError, match="none of"):
        inject(plant(), seed=1, kinds=["pattern"])
    with pytest.raises(ValueError, match="fewer than two values move"):
        inject(np.ones((5_000, 3)), seed=1)
    with pytest.raises(ValueError, match="too few"):
        inject(plant(300), seed=1, start=200)
