from __future__ import annotations

import numpy as np
import pytest

from detection.errors import StateLayoutError
from detection.state import StateComponent, StateStore


def components(version: int = 1) -> list[StateComponent]:
    return [
        StateComponent("first", version, np.array([1.0, np.nan, np.inf])),
        StateComponent("second", 1, np.array([-0.0])),
    ]


def test_rows_begin_as_declared_and_survive_growth() -> None:
    store = StateStore(components(), capacity=2)
    first = store.allocate(2)
    store.rows("first")[first] = [[2.0, 3.0, 4.0], [5.0, 6.0, 7.0]]
    later = store.allocate(1000)
    np.testing.assert_array_equal(store.rows("first")[first, 0], [2.0, 5.0])
    np.testing.assert_array_equal(store.rows("first")[later[-1]], [1.0, np.nan, np.inf])
    assert store.capacity == 1024
    assert len(store) == 1002


def test_released_slots_are_fresh_again() -> None:
    store = StateStore(components())
    slots = store.allocate(3)
    store.rows("second")[slots] = 9.0
    store.release(slots[1:2])
    assert len(store) == 2
    assert store.allocate(2).tolist() == [1, 3]
    assert store.rows("second")[:4, 0].tolist() == [9.0, 0.0, 9.0, 0.0]


def test_packing_is_exact_to_the_bit() -> None:
    store = StateStore(components())
    slots = store.allocate(4)
    rng = np.random.default_rng(0)
    store.rows("first")[slots] = rng.normal(0, 1e-300, (4, 3))
    store.rows("first")[slots[2], 1] = np.nan
    packed = store.pack(slots[::-1])
    assert [len(row) for row in packed] == [store.row_bytes] * 4 == [32] * 4
    other = StateStore(components())
    other.allocate(2)
    moved = other.allocate(4)
    other.unpack(moved, packed, store.layout_id)
    assert other.pack(moved[::-1]) == store.pack(slots)


def test_another_layout_is_refused() -> None:
    store, newer = StateStore(components(1)), StateStore(components(2))
    rows = store.pack(store.allocate(1))
    with pytest.raises(StateLayoutError, match="start them cold"):
        newer.unpack(newer.allocate(1), rows, store.layout_id)
    with pytest.raises(StateLayoutError):
        store.unpack(np.array([0]), [rows[0][:-1]], store.layout_id)


def test_slots_never_allocated_are_refused() -> None:
    store = StateStore(components())
    with pytest.raises(IndexError):
        store.pack(np.array([0]))


def test_components_have_their_own_names() -> None:
    with pytest.raises(ValueError, match="share a name"):
        StateStore([*components(), *components()])
