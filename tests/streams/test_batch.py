"""The spine keeps its columns equal in length and nobody's to change."""

from __future__ import annotations

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
