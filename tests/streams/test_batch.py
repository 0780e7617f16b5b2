"""The spine keeps its columns equal in length and nobody's to change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streams.batch import EventBatch


def batch(n: int = 4, **more: object) -> EventBatch:
    columns = {
        "event_time": np.arange(n, dtype=np.int64), "series": np.arange(n, dtype=np.int32),
        "values": np.arange(n, dtype=np.float64).reshape(-1, 1),
        "partition": np.zeros(n, dtype=np.int32), "offset": np.arange(n, dtype=np.int64),
        "committable": {0: n},
    } | more  # fmt: skip
    return EventBatch(**columns)


def test_dropping_events_never_drops_their_offset() -> None:
    some = batch().take(np.array([True, False, False, True]))
    assert some.offset.tolist() == [0, 3]
    assert some.committable == {0: 4}
    none = some.take(np.zeros(2, dtype=np.bool_))
    assert len(none) == 0
    assert none.committable == {0: 4}


@pytest.mark.parametrize("name", ["event_time", "series", "values", "partition", "offset"])
def test_columns_are_read_only(name: str) -> None:
    with pytest.raises(ValueError, match="read-only"):
        getattr(batch(), name)[0] = 1


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="column series has 3 rows, event_time has 4"):
        batch(series=np.zeros(3, dtype=np.int32))
    with pytest.raises(ValueError, match="columns name"):
        batch(values=np.zeros((4, 2)))


def test_pieces_joined_are_the_batch_they_were_cut_from() -> None:
    whole = batch(6, partition=np.array([0, 0, 1, 1, 0, 1], dtype=np.int32))
    cut = [whole.take(np.arange(0, 2)), whole.take(np.arange(2, 6))]
    places = [{0: 2}, {0: 5, 1: 6}]
    pieces = [replace(p, committable=c) for p, c in zip(cut, places, strict=True)]
    joined = EventBatch.joined(pieces)
    for name in ("event_time", "series", "values", "partition", "offset"):
        assert getattr(joined, name).tolist() == getattr(whole, name).tolist()
    assert joined.committable == {0: 5, 1: 6}
    assert joined.columns == whole.columns
    assert len(EventBatch.joined([])) == 0


def test_of_some_partitions_neither_events_nor_places_of_others_stay() -> None:
    whole = batch(4, partition=np.array([0, 1, 1, 2], dtype=np.int32), committable={0: 1, 1: 3})
    some = whole.of([1, 7])
    assert some.offset.tolist() == [1, 2]
    assert some.committable == {1: 3}
