"""The pages of a challenger and of drift say what is stored, and say so where there is nothing."""

from __future__ import annotations

import datetime as dt

import pytest
from django.test import Client
from django.utils import timezone

from detection import shadow
from detection.models import Disagreement, DriftReport, ModelVersion, ShadowHour
from tests import builders

pytestmark = pytest.mark.django_db


def challenger(**gate: object) -> ModelVersion:
    """Beside the champion of `builders.model`, with two hours of figures."""
    champion = builders.model()
    made = ModelVersion.objects.create(
        stream=champion.stream, algorithm=champion.algorithm, version=4, state="challenger",
        sha256="ab" * 32, artefact=b"", manifest={}, gate=gate,
    )  # fmt: skip
    now = timezone.now().replace(minute=0, second=0, microsecond=0)
    for i in range(2):
        for partition in range(2):
            ShadowHour.objects.create(
                challenger=made, hour=now - dt.timedelta(hours=i), partition=partition, events=500,
                both=6, only_champion=1, only_challenger=3, champion_onsets=2, challenger_onsets=3,
                champion_us=10_000, challenger_us=5_000,
            )  # fmt: skip
    series = builders.series("web-1", "cpu")
    for offset, (a, b) in enumerate([(0.6, 0.9), (0.85, 0.7)]):
        Disagreement.objects.create(
            challenger=made, series=series, incarnation=builders.incarnation(), partition=0,
            offset=offset, event_at=now, value=97.5, champion_score=a, challenger_score=b,
        )  # fmt: skip
    return made


def test_figures_side_by_side() -> None:
    found = shadow.shadow_context(challenger())
    lines = {line.name: line for line in found["compared"]}
    a_day = lines["Alerts a day"]
    assert (a_day.champion, a_day.challenger) == ("96.0", "144.0")
    assert (a_day.change, a_day.better) == ("48.0 more", False)
    assert lines["Agreement on all events"].challenger == "99.2 %"
    assert lines["Agreement on flagged ones"].challenger == "60 %"
    cost = lines["Time per event"]
    assert (cost.champion, cost.challenger, cost.change) == (
        "20.00 µs",
        "10.00 µs",
        "10.00 µs faster",
    )
    assert (found["hours"], found["events"], found["differing"]) == (2, 2_000, 16)


def test_the_challengers_page(web: Client) -> None:
    made = challenger(
        passed=False, reasons=["It would send <48> alerts a day."],
        figures={"shadow": {}, "injected": {}, "labels": {"real": 0, "false_alarms": 0}},
    )  # fmt: skip
    text = web.get(f"/models/{made.pk}/shadow/").content.decode()
    assert "It would send &lt;48&gt; alerts a day." in text
    assert "v3 champion" in text
    assert "v4 challenger" in text
    assert text.count('class="cover"') == 2
    assert f"/models/{made.pk}/shadow/" in web.get("/models/").content.decode()


@pytest.mark.parametrize("part", ["shadow", "drift"])
def test_pages_without_figures_say_so_and_others_are_not_found(web: Client, part: str) -> None:
    made = builders.model()
    text = web.get(f"/models/{made.pk}/{part}/").content.decode()
    assert ("Not a challenger" if part == "shadow" else "Nothing to compare with") in text
    assert web.get(f"/models/{made.pk + 1}/{part}/").status_code == 404
    assert Client().get(f"/models/{made.pk}/{part}/").status_code == 302


def test_the_page_of_drift_names_what_moved(web: Client) -> None:
    made = builders.model()
    now = timezone.now()
    for metric, worst in (("cpu", 0.31), ("", 0.04)):
        DriftReport.objects.create(
            model=made, metric=metric, from_hour=now - dt.timedelta(hours=24), to_hour=now,
            events=2_000, psi={"level": 0.01, "spread": worst}, ks={"level": 0.02, "spread": 0.2},
            worst_feature="spread", worst_psi=worst,
        )  # fmt: skip
    text = web.get(f"/models/{made.pk}/drift/").content.decode()
    assert text.index("drifted</span>") < text.index("steady</span>")
    assert text.index("Spread</td>") < text.index("Level</td>")
    assert "0.310" in text
