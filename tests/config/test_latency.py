"""The latency benchmark matches each message with the commit that passed it."""

from __future__ import annotations

import numpy as np

from config.benchmark.latency import Sent, committed_at, percentiles


def test_a_message_counts_as_stored_when_its_partition_was_first_seen_behind_it() -> None:
    seen = {0: [(2, 10.0), (5, 11.0)], 3: [(1, 20.0)]}
    partition, offset = np.array([0, 3, 0, 0, 0]), np.array([0, 0, 1, 2, 4])
    assert committed_at(partition, offset, seen).tolist() == [10.0, 20.0, 10.0, 11.0, 11.0]


def test_the_first_seconds_are_left_out() -> None:
    sent = Sent([0, 1, 0], [7, 8, 9], [1.0, 2.0, 3.0], [100.0, 103.0, 102.9])
    assert sent.after(3.0) == Sent([1], [8], [2.0], [103.0])


def test_figures_are_milliseconds() -> None:
    found = percentiles(np.arange(101) / 1000)
    assert found == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}
