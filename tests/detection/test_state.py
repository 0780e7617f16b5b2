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
    store.rows("second")[slots] = -0.0
    packed = store.pack(slots[::-1])
    assert [len(row) for row in packed] == [store.row_bytes] * 4 == [32] * 4
    other = StateStore(components())
    other.allocate(2)
    moved = other.allocate(4)
    other.unpack(moved, packed, store.layout_id)
    assert other.pack(moved[::-1]) == store.pack(slots)


def test_another_layout_is_refused() -> None:
    store, newer = StateStore(components(1)), StateStore(components(2))
    slots = store.allocate(1)
    store.rows("first")[slots] = 1.0
    rows = store.pack(slots)
    assert not newer.readable(store.layout_id)
    with pytest.raises(StateLayoutError, match="start them cold"):
        newer.unpack(newer.allocate(1), rows, store.layout_id)
    with pytest.raises(StateLayoutError):
        store.unpack(np.array([0]), [rows[0][:-1]], store.layout_id)


def test_a_component_takes_room_once_it_is_used_and_begins_with_its_initial_row() -> None:
    store = StateStore(components())
    slots = store.allocate(2)
    assert store.row_bytes == 0
    assert store.layout_id == ""
    store.rows("first")[slots[1]] = 5.0
    np.testing.assert_array_equal(store.rows("first")[slots[0]], components()[0].initial)


def test_rows_packed_before_a_component_was_there_or_gone_are_restored() -> None:
    first, second = components()
    before = StateStore([first, StateComponent("gone", 1, np.zeros(2))])
    slots = before.allocate(1)
    before.rows("gone")[slots] = 3.0
    before.rows("first")[slots] = 7.0
    after = StateStore([second, first])
    moved = after.allocate(1)
    after.rows("second")[moved] = 4.0
    assert after.readable(before.layout_id)
    after.unpack(moved, before.pack(slots), before.layout_id)
    assert after.rows("first")[moved[0]].tolist() == [7.0] * first.width
    assert after.rows("second")[moved[0]].tolist() == [4.0] * second.width


def test_a_text_that_is_no_layout_is_refused() -> None:
    store = StateStore(components())
    assert not store.readable("0123456789abcdef")


def test_slots_never_allocated_are_refused() -> None:
    store = StateStore(components())
    with pytest.raises(IndexError):
        store.pack(np.array([0]))


def test_components_have_their_own_names() -> None:
    with pytest.raises(ValueError, match="share a name"):
        StateStore([*components(), *components()])
