"""The page of one line: everything of it at once, honest where something is missing, and cheap."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from detection import bins, line_page, model_store
from detection.forecast import SCHEDULED, next_training
from detection.models import DriftReport, FeatureHour, ModelVersion, ShadowHour, TrainingRun
from tests import builders
from tests.detection import lines

pytestmark = pytest.mark.django_db


@pytest.fixture
def line() -> list[ModelVersion]:
    PeriodicTask.objects.filter(task=SCHEDULED).delete()
    return lines.world(every_h=24)


def html(client: Client, pk: int, part: str = "") -> str:
    answer = client.get(f"/models/lines/{pk}/{part}")
    assert answer.status_code == 200
    found: str = answer.content.decode()
    assert " style=" not in found
    assert "<script>" not in found
    return found


def text(client: Client, pk: int, part: str = "") -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html(client, pk, part)))


def data(page: str, name: str) -> Any:
    found = re.search(rf'<script id="{name}" type="application/json">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


def found(pk: int) -> line_page.Line:
    one = line_page.line_with(pk)
    assert one is not None
    return one


def test_any_version_leads_to_its_line_and_an_unknown_one_nowhere(
    viewer: Client, line: list[ModelVersion]
) -> None:
    builders.model()  # of another line
    for row in line:
        assert [m.version for m in found(row.pk).models] == [4, 3, 2, 1]
        assert "webshop · payment_latency_ms · isolation forest" in text(viewer, row.pk)
        for part in ("", "shadow/", "drift/"):
            assert viewer.get(f"/models/{row.pk}/{part}").status_code == 200
    assert viewer.get("/models/lines/999999/").status_code == 404
    assert viewer.get("/models/lines/999999/run/").status_code == 404
    assert viewer.get(f"/models/lines/{10**30}/").status_code == 404
    assert Client().get(f"/models/lines/{line[0].pk}/").status_code == 302
    assert f'href="/models/lines/{line[3].pk}/"' in viewer.get("/models/").content.decode()
    detail = viewer.get(f"/models/{line[0].pk}/").content.decode()
    assert f'href="/models/lines/{line[0].pk}/"' in detail


def test_it_says_all_that_is_stored_of_the_pair(operator: Client, line: list[ModelVersion]) -> None:
    said = text(operator, line[0].pk)
    for part in (
        "1 series", "Roll back to v2", "Train a version", "18 hours so far",
        "Precision on labels 0.91 0.94 +0.03 better", "Recall on labels 0.88 0.91 +0.03 better",
        "Recall on test faults 0.91 0.92 +0.01 better", "Alerts a day 5.3 2.7 −2.7 better",
        "30 differ", "21.30 µs 24.10 µs 2.80 µs slower",
        "30 of 33 real found, champion 29; 2 of 6 false alarms again, champion 3",
        "931 of 1,008 found, champion 921", "2.7 a day, champion 5.3, at most 6.4",
        "18 of 24 hours, 21,600 events; ready at about", "1 of 4 is open", "Promote anyway",
    ):  # fmt: skip
        assert part in said, part
    page = html(operator, line[0].pk)
    assert 'aria-disabled="true" aria-describedby="not-ready">Promote v4' in page
    assert f'href="/models/{line[3].pk}/shadow/">30 differ' in page


def test_a_viewer_reads_and_has_nothing_to_press(viewer: Client, line: list[ModelVersion]) -> None:
    page = html(viewer, line[0].pk)
    assert "Ready to promote?" in page
    for absent in ("Promote v4", "Promote anyway", "Train a version", "Roll back to", "Cancel"):
        assert absent not in page, absent


def test_it_is_ready_once_every_answer_is_yes(operator: Client, line: list[ModelVersion]) -> None:
    hour = ShadowHour.objects.order_by("hour").first()
    assert hour is not None
    for ago in range(1, 7):
        ShadowHour.objects.create(challenger=line[3], hour=hour.hour - timedelta(hours=ago),
                                  events=100, champion_us=1, challenger_us=1)  # fmt: skip
    page = html(operator, line[0].pk)
    assert f'<a class="button primary" href="/models/{line[3].pk}/promote">Promote v4' in page
    assert "Promote anyway" not in page
    # One that alarms too often is not, whatever the gate said before.
    ShadowHour.objects.filter(challenger=line[3]).update(challenger_onsets=3)
    page = html(operator, line[0].pk)
    assert "Promote anyway" in page
    assert '<span class="sr">No: </span><span><b>Alerts within the budget' in page


def test_answers_of_the_gate_are_those_about_this_champion() -> None:
    shadow: dict[str, Any] = {"hours": 0, "events": 0, "needs_hours": 24.0, "needs_events": 10_000,
              "onsets_a_day": None, "until": None, "compared": []}  # fmt: skip
    now = datetime(2026, 5, 20, 12, tzinfo=UTC)

    def states(figures: dict[str, Any]) -> list[str]:
        return [check.state for check in line_page.checks(shadow, figures, now)]

    good = lines.figures(3)
    assert states({}) == ["wait"] * 4
    assert states(good) == ["ok", "ok", "wait", "wait"]
    good["labels"]["challenger_false"] = 4
    assert states(good)[0] == "no"
    assert states({"labels": {"real": 0, "false_alarms": 0}})[0] == "ok"
    good["injected"]["paired"]["least_lost"] = 0.08
    assert states(good)[1] == "no"
    good["injected"]["series"] = 0
    found = line_page.checks(shadow, good, now)[1]
    assert (found.state, "too little history" in found.said) == ("no", True)
    # Figures of a rule of before lack what is compared now: they are measured again.
    assert states({"injected": {"series": 3}})[1] == "wait"


def test_figures_of_a_champion_before_are_not_shown(
    operator: Client, line: list[ModelVersion]
) -> None:
    gate = {"figures": lines.figures(2), "passed": True, "reasons": []}
    ModelVersion.objects.filter(pk=line[3].pk).update(gate=gate)
    said = text(operator, line[0].pk)
    assert "Precision on labels" not in said
    assert "A worker asks every ten minutes." in said


@pytest.mark.parametrize(
    ("events_ago_h", "hours", "events", "expected_h"),
    [(0, 12, 60_000, 12.0), (0, 24, 5_000, 24.0), (5, 12, 60_000, None)],
)
def test_when_it_was_watched_long_enough(
    events_ago_h: int, hours: int, events: int, expected_h: float | None
) -> None:
    now = datetime(2026, 5, 20, 12, tzinfo=UTC)
    shadow = {"hours": hours, "events": events, "needs_hours": 24.0, "needs_events": 10_000,
              "onsets_a_day": None, "until": now + timedelta(hours=1 - events_ago_h)}  # fmt: skip
    watched = line_page.checks(shadow, {}, now)[3]
    assert watched.state == "wait"
    assert watched.at == (None if expected_h is None else now + timedelta(hours=expected_h))


def test_without_a_challenger_it_says_what_to_do(
    operator: Client, line: list[ModelVersion]
) -> None:
    model_store.challenge(line[1].pk)  # makes v4 a candidate again
    model_store.retire(line[1].pk)
    page = html(operator, line[0].pk)
    assert f'href="/models/{line[3].pk}/challenge">Let v4 challenge' in page
    model_store.retire(line[3].pk)
    assert "no younger version waits" in text(operator, line[0].pk)
    model_store.retire(line[2].pk, reason="noisy")
    said = text(operator, line[0].pk)
    assert "no champion" in said
    assert "Taken out: noisy" in said
    assert "Scores are counted of a champion only" in said


def test_each_version_says_in_words_what_became_of_it(
    viewer: Client, line: list[ModelVersion]
) -> None:
    def words() -> list[str]:
        rows = line_page.versions_context(found(line[0].pk))["versions"]
        return [row.word for row in rows]

    assert words() == ["In shadow", "Live", "Replaced by v3", "Replaced by v2"]
    assert "In shadow for 18 h" in text(viewer, line[0].pk)
    assert "Live for 13 d" in text(viewer, line[0].pk)
    of = (line[0].stream, line[0].metric, line[0].algorithm)
    model_store.roll_back(*of, reason="false alarms at night")
    assert words()[1:3] == ["Rolled back: false alarms at night", "Live"]
    model_store.roll_back(*of)
    assert words()[2:] == ["Rolled back: to v1", "Live"]
    model_store.promote(line[3].pk)
    assert words() == ["Live", "Rolled back: false alarms at night", "Rolled back: to v1",
                       "Replaced by v4"]  # fmt: skip


def test_a_rollback_leads_where_the_store_says(line: list[ModelVersion]) -> None:
    of = (line[0].stream, line[0].metric, line[0].algorithm)
    for _ in range(3):
        expected = model_store.previous_champion(*of)
        shown = line_page.versions_context(found(line[0].pk))["previous"]
        assert (shown and shown.pk) == (expected and expected.pk)
        model_store.roll_back(*of)


def test_precision_is_told_of_champions_by_the_gate_of_the_next(line: list[ModelVersion]) -> None:
    rows = line_page.versions_context(found(line[0].pk))["versions"]
    assert [round(row.precision, 3) for row in rows] == [0.938, 0.906, 0.906, 0.828]
    assert {row.of for row in rows} == {"labels"}
    ModelVersion.objects.update(gate={})
    rows = line_page.versions_context(found(line[0].pk))["versions"]
    assert [row.precision for row in rows] == [None] * 4


def test_drift_goes_over_all_champions_with_gaps_and_marks(
    viewer: Client, line: list[ModelVersion]
) -> None:
    DriftReport.objects.all().delete()
    now = timezone.now()
    for ago, model, residual in ((400, 1, 0.2), (399, 1, 0.21), (3, 2, 0.04), (2, 2, 0.05)):
        row = DriftReport.objects.create(
            model=line[model], metric=lines.METRIC, from_hour=now, to_hour=now, events=1, ks={},
            psi={"residual": residual, "level": 0.03, "gap": 0.02, "pair": 0.01, "score": 0.9},
        )  # fmt: skip
        DriftReport.objects.filter(pk=row.pk).update(created_at=now - timedelta(hours=ago))
    page = html(viewer, line[0].pk)
    shown = data(page, "drift-data")
    assert {one["name"]: one["values"] for one in shown["lines"]} == {
        "residual": [0.2, 0.21, None, 0.04, 0.05],
        "level": [0.03, 0.03, None, 0.03, 0.03], "gap": [0.02, 0.02, None, 0.02, 0.02],
    }  # fmt: skip
    assert [mark["text"] for mark in shown["marks"]] == ["v3 live", "v4 in shadow"]
    assert shown["alarm_text"] == "drifted above 0.25"
    assert "No input has drifted: residual 0.05" in page
    DriftReport.objects.filter(model=line[2]).update(
        psi={"residual": 0.01, "rate_of_change": 0.4, "score": 0.9}
    )
    assert "Rate of change has drifted: 0.40 is not below 0.25" in html(viewer, line[0].pk)
    DriftReport.objects.all().delete()
    assert "Not measured yet" in html(viewer, line[0].pk)


def test_scores_are_shares_above_each_edge(viewer: Client, line: list[ModelVersion]) -> None:
    FeatureHour.objects.all().delete()
    now = timezone.now()
    counts = [0] * bins.BINS
    counts[0], counts[3], counts[16] = 90, 8, 2
    for days, feature in ((1, f"score:{line[2].pk}"), (9, f"score:{line[2].pk}"),
                          (1, f"score:{line[3].pk}"), (1, "residual")):  # fmt: skip
        FeatureHour.objects.create(stream=line[0].stream, metric=lines.METRIC, feature=feature,
                                   hour=now - timedelta(days=days), counts=counts)  # fmt: skip
    page = html(viewer, line[0].pk)
    shown = data(page, "scores-data")
    live, training = (one["values"] for one in shown["lines"])
    assert shown["t"][:2] == [0.0, 0.05]
    assert live == [1.0, 0.1, 0.1, 0.1, *[0.02] * 13, None, None, None]
    given = np.array(line[2].manifest["score_counts"])
    assert training[10] == pytest.approx(given[10:].sum() / given.sum())
    assert shown["level"] == pytest.approx(0.8)
    assert "Of 100 sampled live events 2 % scored over the alarm level 0.80" in page
    FeatureHour.objects.all().delete()
    assert "No live event of v3 was counted in 7 days" in html(viewer, line[0].pk)
    ModelVersion.objects.filter(pk=line[2].pk).update(manifest={})
    assert "No scores are counted" in html(viewer, line[0].pk)


def test_recorded_data_has_its_own_last_days(line: list[ModelVersion]) -> None:
    """Scores count back from the newest event that drift knows of, not from the clock."""
    FeatureHour.objects.all().delete()
    long_ago = datetime(2014, 4, 10, 12, tzinfo=UTC)
    DriftReport.objects.update(to_hour=long_ago)
    for days in (1, 8):
        FeatureHour.objects.create(
            stream=line[0].stream, metric=lines.METRIC, hour=long_ago - timedelta(days=days),
            feature=f"score:{line[2].pk}", counts=[5] * bins.BINS,
        )  # fmt: skip
    assert line_page.page_context(found(line[0].pk), timezone.now())["scores"]["live_events"] == 100


def test_the_card_of_training_follows_a_run_to_its_end(
    operator: Client, line: list[ModelVersion]
) -> None:
    page = html(operator, line[0].pk, "run/")
    assert "81 %" in page
    assert "about 19 s left" in re.sub(r"1[89] s left", "19 s left", page)
    assert "?active=1" in page
    assert "line-versions" not in page
    other = TrainingRun.objects.create(stream=line[0].stream, algorithm="isolation_forest")
    assert f"Training run {other.pk}" not in page
    mine = TrainingRun.objects.get(metric=lines.METRIC)
    pressed = operator.post(f"/models/runs/{mine.pk}/cancel", {"line": str(line[0].pk)})
    assert pressed.headers["Location"] == f"/models/lines/{line[0].pk}/"
    assert "ending" in html(operator, line[0].pk, "run/")
    TrainingRun.objects.filter(pk=mine.pk).update(
        status="failed", reason="the broker does not answer", finished_at=timezone.now()
    )
    page = html(operator, line[0].pk, "run/?active=1")
    assert "the broker does not answer" in page
    assert 'id="line-versions" hx-swap-oob="true"' in page
    assert "The schedule trains nothing of this line" in page
    TrainingRun.objects.all().delete()
    assert "No run of this line is recorded." in html(operator, line[0].pk, "run/")


def test_what_came_of_the_last_run(viewer: Client, line: list[ModelVersion]) -> None:
    mine = TrainingRun.objects.get()
    TrainingRun.objects.update(status="done", rows=180_000, finished_at=timezone.now())
    ModelVersion.objects.filter(pk=line[3].pk).update(run=mine)
    said = text(viewer, line[0].pk, "run/")
    assert "v4 came of it" in said
    assert "180,000" in said


def task(**kwargs: Any) -> PeriodicTask:
    every, _ = IntervalSchedule.objects.get_or_create(every=60, period="seconds")
    return PeriodicTask.objects.create(
        name=f"t{PeriodicTask.objects.count()}", task=SCHEDULED, interval=every,
        kwargs=json.dumps(kwargs),
    )  # fmt: skip


def test_when_the_schedule_trains_the_next(line: list[ModelVersion]) -> None:
    newest, on = line[3], ("isolation_forest",)

    def hours(**more: Any) -> float | None:
        at = next_training(newest, **{"served": True, "enabled": on} | more)
        return None if at is None else (at - newest.created_at) / timedelta(hours=1)

    assert hours() is None
    one = task()
    assert hours() == 24
    assert hours(served=False) is None  # a metric gets its first model from people
    assert hours(enabled=()) is None
    one.kwargs = '{"max_age_hours": 6, "stream": "webshop"}'
    one.save()
    assert hours() == 6
    for kwargs in ('{"stream": "another"}', '{"algorithm": "one_class_svm"}', '{"metric": "cpu"}'):
        PeriodicTask.objects.update(kwargs=kwargs)
        assert hours() is None, kwargs
    for kwargs in ("{", "[]", '{"max_age_hours": "soon"}', '{"max_age_hours": 1e300}', "null"):
        PeriodicTask.objects.update(kwargs=kwargs)
        assert hours() == 24, kwargs
    PeriodicTask.objects.update(enabled=False)
    assert hours() is None


def test_training_from_the_line_comes_back_to_it(
    operator: Client, line: list[ModelVersion]
) -> None:
    builders.series("b", lines.METRIC, stream=line[0].stream)
    given = {"stream": "webshop", "metric": lines.METRIC, "algorithm": "isolation_forest"}
    pk = line[0].pk
    for told, to in ((str(pk), f"/models/lines/{pk}/"), ("", "/models/"), ("x", "/models/"),
                     ("9" * 40, "/models/"), ("999999", "/models/")):  # fmt: skip
        answer = operator.post("/models/train", given | {"line": told})
        assert (answer.status_code, answer.headers["Location"]) == (302, to), told
    assert TrainingRun.objects.filter(metric=lines.METRIC, status="queued").exists()


def test_few_queries_however_long_the_line(operator: Client, line: list[ModelVersion]) -> None:
    def asked() -> int:
        with CaptureQueriesContext(connection) as found:
            assert operator.get(f"/models/lines/{line[0].pk}/").status_code == 200
        assert not any('"artefact"' in query["sql"] for query in found)
        return len(found)

    few = asked()
    assert few <= 15
    for _ in range(70):
        saved = model_store.save(lines.trained(1, 259_200, 40, 3_000), stream=line[0].stream,
                                 algorithm="isolation_forest", metric=lines.METRIC)  # fmt: skip
        TrainingRun.objects.create(stream=saved.stream, metric=saved.metric, status="failed",
                                   algorithm="isolation_forest")  # fmt: skip
    assert asked() == few
    context = line_page.versions_context(found(line[0].pk))
    assert len(context["versions"]) == line_page.VERSIONS
    assert found(line[0].pk).champion == line[2]  # older than those that are shown
    assert context["previous"] == line[1]


def test_a_bare_line_answers_as_well(viewer: Client) -> None:
    """A model of before manifests, and nothing else."""
    bare = builders.model()
    said = text(viewer, bare.pk)
    for part in ("every metric", "Not measured yet", "No scores are counted", "No challenger"):
        assert part in said, part
    ModelVersion.objects.filter(pk=bare.pk).update(state="challenger", promoted_at=None)
    said = text(viewer, bare.pk)
    assert "No event yet" in said
    assert "no champion" in said
