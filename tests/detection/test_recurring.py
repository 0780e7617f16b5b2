"""The set of faults that come back: twelve kinds of data, five of faults, each in its place."""

from __future__ import annotations

import numpy as np
import pytest

from detection import recurring, shapes


def test_twelve_by_five() -> None:
    assert (len(recurring.BASES), len(recurring.FAULTS)) == (12, 5)
    assert set(recurring.BASES) <= set(shapes.SHAPES)


@pytest.mark.parametrize("fault", recurring.FAULTS)
@pytest.mark.parametrize("base", recurring.BASES)
def test_a_fault_comes_back_at_least_six_times_and_only_there(base: str, fault: str) -> None:
    made = recurring.make(base, fault, 1)
    again = recurring.make(base, fault, 1)
    assert made.value.tobytes() == again.value.tobytes()
    assert made.faults == again.faults
    normal = shapes.make(base, 1_001, recurring.EVENTS).value
    inside = np.zeros(len(normal), dtype=np.bool_)
    for one in made.faults:
        inside[one.start : one.end] = True
        assert (made.value[one.start : one.end] != normal[one.start : one.end]).any()
    np.testing.assert_array_equal(made.value[~inside], normal[~inside])
    assert [one.occurrence for one in made.faults] == list(range(1, len(made.faults) + 1))
    assert len(made.faults) >= 6
    assert 1_500 <= made.faults[0].start < 2_500
    starts = np.array([one.start for one in made.faults])
    lengths = {one.end - one.start for one in made.faults}
    assert len(lengths) == 1
    assert np.diff(starts).min() >= 500 + lengths.pop()


def test_the_same_fault_each_time_beyond_the_usual_range() -> None:
    made = recurring.make("daily", "spike", 3)
    normal = shapes.make("daily", 1_003, recurring.EVENTS).value
    heights = [made.value[one.start] for one in made.faults]
    width = float(np.ptp(normal))
    assert min(heights) > normal.max() + 0.4 * width
    assert np.ptp(heights) < 0.15 * width


def test_a_trend_carries_its_faults_along() -> None:
    made = recurring.make("trend", "error_value", 2)
    heights = [made.value[one.start] for one in made.faults]
    assert (np.diff(heights) > 0).all()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="base 'flat' is none of normal"):
        recurring.make("flat", "spike", 1)
    with pytest.raises(ValueError, match="fault 'boom' is none of spike"):
        recurring.make("normal", "boom", 1)
