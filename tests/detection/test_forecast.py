"""When the first training comes: by rows that are missing, and by the rate that there is."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from detection.forecast import Forecast, events_until, first_trainings
from detection.models import TrainingRun
from streams.models import Stream
from tests import builders


@pytest.mark.parametrize(
    ("seen", "needed"),
    [
        ([1_150], 0),
        ([1_000], 150),
        ([650, 650], 0),
        ([600, 600], 100),
        ([10], 1_140),
        ([150] * 10, 1_000),
        ([1_100, 10], 51),  # the small series still warms up and takes its share
        ([], 1_150),
    ],
)
def test_events_until_a_thousand_rows(seen: list[int], needed: int) -> None:
    counts = np.array(seen, dtype=np.int64)
    assert events_until(counts, 1_000) == needed
    more = counts + needed * counts / max(1, counts.sum())
    assert not seen or np.maximum(0, more - 150).sum() >= 1_000


def forecast(now: datetime) -> list[Forecast]:
    return first_trainings(list(Stream.objects.all()), ["isolation_forest"], set(), now)


@pytest.mark.django_db
def test_a_forecast_says_events_rate_and_time() -> None:
    now = timezone.now()
    for source in ("a", "b"):
        builders.series(source, "cpu", events=500)
    builders.consumer()  # 100 + 101 + 102 + 103 events a second of this topic
    (found,) = forecast(now)
    assert (found.stream.name, found.events, found.rate) == ("raw-data", 300, 406.0)
    assert found.in_s == pytest.approx(300 / 406)
    assert found.scheduled
    PeriodicTask.objects.filter(task="detection.tasks.train_models").update(enabled=False)
    (found,) = forecast(now + timedelta(minutes=5))
    assert (found.in_s, found.scheduled) == (None, False)


@pytest.mark.django_db
def test_wide_events_as_a_whole_count_for_no_model_of_single_values() -> None:
    builders.series("a", "cpu", events=1_000)
    builders.series("a", "vector: cpu, mem", events=1_000)
    (found,) = forecast(timezone.now())
    assert found.events == 150


@pytest.mark.django_db
def test_after_an_attempt_in_vain_it_waits_for_a_fifth_more_events() -> None:
    of = builders.series(events=2_000).stream
    TrainingRun.objects.create(
        stream=of, algorithm="isolation_forest", status="skipped", params={"events": 2_000}
    )
    (found,) = forecast(timezone.now())
    assert found.events == 400


@pytest.mark.django_db
def test_what_has_a_model_waits_for_none_and_the_others_are_told_together() -> None:
    of = builders.model().stream
    names = ["isolation_forest", "one_class_svm", "local_outlier_factor"]
    trained = {(of.name, "isolation_forest")}
    (found,) = first_trainings([of], names, trained, timezone.now())
    assert found.algorithms == ("local_outlier_factor", "one_class_svm")
    assert first_trainings([of], ["isolation_forest"], trained, timezone.now()) == []
