"""Labels: who and when, what they teach, precision, and the thresholds that they speak for."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone

from anomalies import feedback, own_policy, proposals
from anomalies.labelled import confirmed
from anomalies.models import Anomaly
from config.wiring import scoring_base
from detection.models import QuarantineRelease, ThresholdPolicy
from detection.thresholds import LEVELS
from detection.versions import payload_of
from streams.models import Rollup, Series
from tests import builders

pytestmark = pytest.mark.django_db


def releases(of: Series) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = payload_of(of.stream, scoring_base(settings.VIGIL)).get(
        "releases", []
    )
    return found


def test_expected_asks_for_one_release_and_taking_it_back_withdraws_it() -> None:
    series = builders.series()
    at = timezone.now() - timedelta(minutes=30)
    rows = builders.rollups(series, 60)
    odd = builders.anomaly(series, at=at, end_at=at + timedelta(minutes=5), peak_value=1300.0,
                           evidence={"event": 4_000})  # fmt: skip
    for _ in range(2):
        feedback.set_label(odd.pk, "expected", builders.user(f"a{_}"))
    (release,) = releases(series)
    covered = sum(
        r.count for r in rows if at - timedelta(minutes=1) <= r.minute <= at + timedelta(minutes=5)
    )
    assert release == {
        "id": QuarantineRelease.objects.get().pk, "source": "web-03", "metric": "cpu_usage",
        "partition": 3, "first": 4_000, "last": 4_000 + covered - 1, "values": [1284.0, 1300.0],
        "flat": False, "pause_s": 0.0,
    }  # fmt: skip
    assert QuarantineRelease.objects.get().requested_by == "a0"
    feedback.set_label(odd.pk, "real")
    assert releases(series) == []


def test_of_a_manual_report_nothing_is_released() -> None:
    odd = builders.anomaly(None, origin="manual")
    feedback.set_label(odd.pk, "expected")
    assert not QuarantineRelease.objects.exists()


def test_training_leaves_out_what_is_real_until_the_label_changes() -> None:
    odd = builders.anomaly(builders.series())
    assert confirmed("raw-data") == []
    for label, kept_out in (("real", 1), ("expected", 0), ("real", 1), ("false_alarm", 0),
                            ("real", 1), ("", 0)):  # fmt: skip
        feedback.set_label(odd.pk, label)
        assert len(confirmed("raw-data")) == kept_out, label


def test_precision_counts_those_who_voted_for_it() -> None:
    series = builders.series()
    given = [("real", 0.9, 0.95), ("real", 0.9, 0.1), ("false_alarm", 0.85, 0.9),
             ("expected", 0.99, None), ("", 0.9, 0.9)]  # fmt: skip
    for label, online, zscore in given:
        builders.anomaly(series, label=label, detectors={"online": online, "zscore": zscore})
    builders.anomaly(None, label="real", origin="manual", detectors={})
    counted = {c.name: c.as_dict() for c in feedback.by_detector()}
    assert counted == {
        "online": {"real": 2, "false_alarm": 1, "expected": 1, "precision": 2 / 3},
        "zscore": {"real": 1, "false_alarm": 1, "expected": 0, "precision": 0.5},
    }
    (row,) = feedback.by_series()
    assert (row.name, row.metric, row.series) == ("web-03", "cpu_usage", series.pk)
    assert (row.real, row.false_alarm, row.expected) == (2, 1, 1)
    assert feedback.total().total == 4


# ---- Proposed thresholds ------------------------------------------------------------------------
def labelled_series(*scores: tuple[str, float]) -> Series:
    """A series with a week of rollups whose onsets are those of its anomalies."""
    series = builders.series()
    rows = builders.rollups(series, 30)
    for i, (label, score) in enumerate(scores):
        builders.anomaly(series, score=score, label=label, at=rows[i].minute)
        counts = [int(score >= level) for level in LEVELS.tolist()]
        Rollup.objects.filter(series=series, minute=rows[i].minute).update(onset_counts=counts)
    return series


def test_the_threshold_avoids_false_alarms_and_loses_nothing_real() -> None:
    series = labelled_series(("false_alarm", 0.84), ("false_alarm", 0.91), ("real", 0.945),
                             ("", 0.83), ("false_alarm", 0.97))  # fmt: skip
    found = proposals.propose(series)
    assert found is not None
    assert (found.now.onsets, found.now.false_alarms_left) == (5, 3)
    assert (found.then.threshold, found.then.onsets) == (0.92, 2)
    assert (found.then.real_lost, found.then.false_alarms_left) == (0, 1)
    lossy = next(p for p in found.levels if p.threshold == 0.95)
    assert lossy.real_lost == 1


@pytest.mark.parametrize(
    "scores",
    [
        [("real", 0.9)],
        [("real", 0.81), ("false_alarm", 0.95)],
        [("", 0.9)],
        [("false_alarm", 0.995)],
    ],
)
def test_without_a_gain_nothing_is_proposed(scores: list[tuple[str, float]]) -> None:
    assert proposals.propose(labelled_series(*scores)) is None


def test_an_operator_sets_it_for_this_series_alone_and_others_may_not(client: Client) -> None:
    series = labelled_series(("false_alarm", 0.84), ("real", 0.95))
    other = builders.series("web-03*", "cpu_usage")
    ThresholdPolicy.objects.create(name="all web", source_pattern="web-*", priority=5,
                                   threshold=0.75, direction="up")  # fmt: skip
    found = proposals.propose(series)
    assert found is not None
    given = {"threshold": found.then.threshold}
    client.force_login(builders.user("viewer"))
    assert client.post(f"/series/{series.pk}/threshold", given).status_code == 403
    client.force_login(builders.user("operator", is_staff=True))
    page = client.get(f"/series/{series.pk}/?whole=1").content.decode()
    assert "1 instead of 2" in page
    assert "none of the 1 you marked real lost" in page
    for text in ("", "x", "0.8123", "nan", "2"):
        answer = client.post(f"/series/{series.pk}/threshold", {"threshold": text})
        assert answer.status_code == 400, text
    for _ in range(2):
        assert client.post(f"/series/{series.pk}/threshold", given).status_code == 302
    assert ThresholdPolicy.objects.count() == 2
    mine = own_policy.counting(series)
    assert (mine.threshold, mine.direction, mine.version) == (found.then.threshold, "up", 2)
    assert own_policy.counting(other).threshold == 0.75
    assert proposals.propose(series) is None


def test_it_counts_though_a_policy_came_later_and_the_rest_is_as_in_that_one() -> None:
    series = labelled_series(("false_alarm", 0.84), ("real", 0.95))
    proposals.apply(series, 0.9)
    assert own_policy.counting(series).max_onsets_per_day == default_budget()
    ThresholdPolicy.objects.create(
        name="all web, later", stream=series.stream, source_pattern="web-*", threshold=0.75,
        direction="up", max_onsets_per_day=0,
    )  # fmt: skip
    assert own_policy.counting(series).name == "all web, later"
    made = proposals.apply(series, 0.92)
    counts = own_policy.counting(series)
    assert (counts.name, counts.threshold) == (made.name, 0.92)
    assert (counts.direction, counts.max_onsets_per_day) == ("up", 0)
    assert proposals.apply(series, 0.94).priority == made.priority


def test_the_budget_goes_on_following_the_configuration() -> None:
    series = labelled_series(("false_alarm", 0.84), ("real", 0.95))
    assert proposals.apply(series, 0.9).max_onsets_per_day is None


def default_budget() -> float:
    budget: float = settings.VIGIL.anomaly_detection.max_onsets_per_day
    return budget


# ---- Pages and API ------------------------------------------------------------------------------
def test_the_page_counts_and_leads_on(web: Client) -> None:
    assert "Nothing is labelled yet" in web.get("/feedback/").content.decode()
    labelled_series(("false_alarm", 0.84), ("real", 0.95))
    text = web.get("/feedback/").content.decode()
    assert "Online detector" in text
    assert "50 %" in text


def post(client: Client, odd: Any, body: Any, **headers: str) -> Any:
    return client.post(f"/api/anomalies/{odd}/label", body, "application/json", headers=headers)


def test_a_label_by_the_api(operator: Client) -> None:
    odd = builders.anomaly(builders.series())
    answer = post(operator, odd.pk, {"label": "false_alarm"}).json()
    assert (answer["label"], answer["labelled_by"], answer["id"]) == (
        "false_alarm", "olga", str(odd.pk),
    )  # fmt: skip
    assert post(operator, odd.pk, {"label": None}).json()["label"] is None
    assert Anomaly.objects.get().label == ""
    assert operator.get("/api/feedback").json()["all"]["real"] == 0


def test_a_wrong_label_is_told_and_never_fails(operator: Client) -> None:
    odd = builders.anomaly()
    bodies: list[Any] = [{}, {"label": "odd"}, {"label": 3}, {"label": ["real"]}, []]
    bodies += ["real", "{", "\x00", "[" * 3_000]
    for body in bodies:
        text = body if isinstance(body, str) else json.dumps(body)
        answer = post(operator, odd.pk, text)
        assert answer.status_code == 400, body
        assert answer.json()["error"]["allowed"], body
    gone = "00000000-0000-0000-0000-000000000000"
    assert post(operator, gone, {"label": "real"}).status_code == 404
    assert operator.get(f"/api/anomalies/{gone}/evidence").status_code == 404
    assert operator.get(f"/api/anomalies/{odd.pk}/label").status_code == 405
    form = operator.post(f"/api/anomalies/{odd.pk}/label", {"label": "real"})
    assert form.status_code == 415
    foreign = post(operator, odd.pk, {"label": "real"}, origin="https://evil.example")
    assert foreign.status_code == 403
    assert Anomaly.objects.get().label == ""


def test_the_api_needs_the_csrf_token_of_a_session() -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(builders.user(is_staff=True))
    odd = builders.anomaly()
    answer = strict.post(
        f"/api/anomalies/{odd.pk}/label",
        {"label": "real"},
        "application/json",
        REMOTE_ADDR="1.2.3.4",
    )
    assert answer.status_code == 403
