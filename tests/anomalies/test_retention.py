"""Retention of anomalies: old ones go, labelled and open ones stay."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest

from anomalies import retention
from anomalies.labelled import confirmed
from anomalies.models import Anomaly, Candidate, Outbox
from anomalies.tasks import apply_retention
from detection.history import Interval
from streams.clock import to_us
from streams.models import Series, Stream, TopicIncarnation

NOW = dt.datetime(2026, 5, 20, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.fixture
def series(db: None) -> Series:
    stream = Stream.objects.create(name="raw", topic="raw")
    return Series.objects.create(stream=stream, source="a", metric="cpu", last_event_at=NOW)


def anomaly(series: Series, age: float, state: str = "closed", label: str = "") -> Anomaly:
    row = Anomaly.objects.create(
        id=uuid.uuid4(), stream=series.stream, series=series, source="a", metric="cpu",
        anomaly_type="spike", severity=1, onset_at=NOW - 4_000 * DAY,
        end_at=NOW - 3_999 * DAY, state=state, label=label,
    )  # fmt: skip
    Anomaly.objects.filter(pk=row.pk).update(stored_at=NOW - age * DAY)
    return row


def apply() -> retention.Dropped:
    return retention.apply(NOW, anomalies_days=30, candidates_days=20, outbox_days=7)


def test_anomalies_go_by_when_they_were_stored_unless_somebody_labelled_them(
    series: Series,
) -> None:
    kept = [anomaly(series, 29), anomaly(series, 31, state="open")]
    kept += [anomaly(series, 31, label=label) for label in ("real", "false_alarm", "expected")]
    gone = anomaly(series, 31)
    outbox = Outbox.objects.create(anomaly=gone, sequence=0, kind="onset", payload={})
    assert apply().anomalies == 1
    assert set(Anomaly.objects.values_list("pk", flat=True)) == {row.pk for row in kept}
    assert not Outbox.objects.filter(pk=outbox.pk).exists()


def test_only_what_was_published_and_judged_goes(series: Series) -> None:
    row = anomaly(series, 1)
    rows = [("update", None, 8), ("update", 8, None), ("update", 1, 8), ("update", 8, 1),
            ("manual", None, None), ("update", 8, 8), ("manual", None, 8)]  # fmt: skip
    for sequence, (kind, published, judged) in enumerate(rows):
        Outbox.objects.create(
            anomaly=row, sequence=sequence, kind=kind, payload={},
            published_at=None if published is None else NOW - published * DAY,
            evaluated_at=None if judged is None else NOW - judged * DAY,
        )  # fmt: skip
    assert apply().outbox == 2
    assert set(Outbox.objects.values_list("sequence", flat=True)) == {0, 1, 2, 3, 4}


def test_near_misses_age_from_their_series_newest_event(series: Series) -> None:
    life = TopicIncarnation.objects.create(stream=series.stream, topic_id="id-1")
    recorded = Series.objects.create(
        stream=series.stream, source="nab", metric="cpu", last_event_at=NOW - 4_000 * DAY
    )
    for offset, (row, age) in enumerate(
        ((series, 1), (series, 21), (recorded, 4_010), (recorded, 4_021))
    ):
        Candidate.objects.create(
            series=row, incarnation=life, partition=0, offset=offset, event_at=NOW - age * DAY,
            value=1, score=0.7, direction=1, levels=1,
        )  # fmt: skip
    assert apply().candidates == 2
    assert Candidate.objects.count() == 2


def test_the_task_reads_the_settings(series: Series) -> None:
    row = anomaly(series, 0)
    Anomaly.objects.filter(pk=row.pk).update(stored_at=dt.datetime.now(dt.UTC) - 366 * DAY)
    assert apply_retention()["anomalies"] == 1


def test_training_is_told_what_is_confirmed(series: Series) -> None:
    anomaly(series, 1)
    anomaly(series, 1, label="expected")
    real = anomaly(series, 1, label="real")
    assert confirmed("raw") == [Interval("a", "cpu", to_us(real.onset_at), to_us(real.end_at))]
    assert confirmed("other") == []
