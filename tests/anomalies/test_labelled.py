"""What training leaves out follows the labels of now, whoever found the anomaly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from anomalies.labelled import confirmed
from detection.history import Interval, left_out
from streams.clock import to_us
from tests import builders

pytestmark = pytest.mark.django_db
AT = datetime(2026, 11, 23, 9, tzinfo=UTC)


def test_only_what_is_labelled_real_now_is_left_out() -> None:
    series = builders.series()
    one = builders.anomaly(series, at=AT, end_at=AT + timedelta(minutes=5), label="real")
    builders.anomaly(series, at=AT, label="expected")
    builders.anomaly(builders.series(stream=builders.stream("other")), at=AT, label="real")
    span = Interval("web-03", "cpu_usage", to_us(AT), to_us(AT) + 300_000_000)
    assert confirmed("raw-data") == [span]
    assert span in left_out("raw-data")
    one.label = "false_alarm"
    one.save()
    assert confirmed("raw-data") == []


def test_what_was_reported_by_hand_counts_with_and_without_a_known_series() -> None:
    known = builders.anomaly(builders.series(), at=AT, origin="manual", label="real")
    unknown = builders.anomaly(at=AT, origin="manual", label="real", source="new", stream=None)
    moment = to_us(AT)
    assert confirmed("raw-data") == [
        Interval(row.source, row.metric, moment, moment)
        for row in sorted((known, unknown), key=lambda row: row.pk)
    ]
