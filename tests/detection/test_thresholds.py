"""Policies: the first match wins, and what matches nothing gets the default."""

from __future__ import annotations

import numpy as np

from detection import thresholds
from detection.thresholds import Policy, PolicyTable

NAMES = [("web-1", "cpu"), ("web-1", "mem"), ("db", "cpu"), ("Web-1", "cpu")]


def test_the_first_match_wins_and_the_last_one_takes_the_rest() -> None:
    table = PolicyTable(
        [
            Policy("both", source_pattern="web-*", metric_pattern="cpu"),
            Policy("metric", metric_pattern="cpu"),
            Policy("rest"),
        ]
    )
    assert table.index(NAMES).tolist() == [0, 2, 1, 1]


def test_where_no_policy_is_for_all_the_default_one_is_added() -> None:
    table = PolicyTable([Policy("some", source_pattern="web-*", threshold=0.6)])
    assert [p.name for p in table.policies] == ["some", "default"]
    assert table.rows[:, thresholds.THRESHOLD].tolist() == [0.6, 0.8]
    assert table.index(NAMES).tolist() == [0, 0, 1, 1]
    assert PolicyTable([]).index(NAMES).tolist() == [0, 0, 0, 0]


def test_the_index_grows_with_the_names() -> None:
    table = PolicyTable([Policy("db", source_pattern="db"), Policy("rest")])
    assert table.index(NAMES[:1]).tolist() == [1]
    assert table.index(NAMES).tolist() == [1, 1, 0, 1]
    assert table.index([]).tolist() == [1, 1, 0, 1]


def test_a_policy_survives_its_stored_form() -> None:
    policy = Policy("p", 3, "a*", "b?", 0.7, "down", 1.5, 0.1, 0.8, 0.85, 0.9)
    assert Policy(**policy.as_dict()) == policy
    learnt = -1.0  # how long a silence may last
    row = policy.row()
    assert row == [0.7, -1.0, 1.5, 0.1, 0.8, 0.85, 0.9, policy.max_onsets_per_day, learnt]


def test_levels_rise_and_hold_the_default_threshold() -> None:
    assert (np.diff(thresholds.LEVELS) > 0).all()
    assert len(thresholds.LEVELS) == 20
    assert 0.8 in thresholds.LEVELS
