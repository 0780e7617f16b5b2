"""What stored rows add to the evidence: only what is there, kept once, again after the end."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from django.test import Client
from django.utils import timezone

from anomalies import detail, surroundings
from anomalies.models import Anomaly
from anomalies.tasks import complete_evidence
from detection import model_store
from detection.features import FEATURE_NAMES
from detection.thresholds import LEVELS
from detection.training import train
from streams.models import Rollup, Series
from streams.vectors import label_of
from tests import builders

pytestmark = pytest.mark.django_db


def scored(of: Series, minutes: int, *scores: float) -> list[Rollup]:
    """Minutes of six scored events each; the last ones hold these scores as well."""
    rows = builders.rollups(of, minutes)
    for row, score in zip(rows[-len(scores) :], scores, strict=True):
        counts = [int(score >= level) for level in LEVELS.tolist()]
        Rollup.objects.filter(series=of, minute=row.minute).update(
            score_counts=counts, max_score=score
        )
    return rows


def test_rarity_is_counted_at_the_level_below_the_score() -> None:
    series = builders.series()
    rows = scored(series, 100, 0.93, 0.97, 0.95)
    odd = builders.anomaly(series, score=0.955, at=rows[-1].minute + timedelta(seconds=20))
    rarity = surroundings.rarity(odd)
    assert rarity == {"events": 600, "reached": 2, "level": 0.95, "days": 1}
    assert detail.rare(rarity) == "higher than 99.6 % of 600 scored events of 1 day"


@pytest.mark.parametrize(
    ("events", "reached", "said"),
    [
        (48_210, 14, "higher than 99.97 % of 48,210 scored events of 30 days"),
        (48_210, 0, "higher than all 48,210 scored events of 30 days"),
        (50, 1, "1 of 50 scored events of 30 days reached 0.9"),
        (10_000_000, 1, "higher than 99.9999 % of 10,000,000 scored events of 30 days"),
    ],
)
def test_rarity_never_says_more_than_is_stored(events: int, reached: int, said: str) -> None:
    given = {"events": events, "reached": reached, "level": 0.9, "days": 30}
    assert detail.rare(given) == said


def test_the_nearest_value_is_one_of_a_minute_that_was_not_odd() -> None:
    series = builders.series()
    rows = builders.rollups(series, 60)
    Rollup.objects.filter(series=series, minute=rows[5].minute).update(max=900.0, max_score=0.9)
    Rollup.objects.filter(series=series, minute=rows[6].minute).update(max=400.0)
    odd = builders.anomaly(series, at=rows[-1].minute)
    found = surroundings.nearest_value(odd)
    assert found == {
        "value": 400.0, "away": pytest.approx(884.0), "at": rows[6].minute.isoformat(),
    }  # fmt: skip


def test_alike_are_those_of_the_series_first_then_of_the_metric() -> None:
    series, other = builders.series(), builders.series("web-04")
    stranger = builders.series("web-03", "memory")
    now = timezone.now()
    odd = builders.anomaly(series, at=now)
    same = builders.anomaly(series, at=now - timedelta(days=1))
    shape = builders.anomaly(series, at=now - timedelta(days=2), anomaly_type="spike")
    far = dict.fromkeys(("residual", "change", "level", "seasonal", "drift"), -10.0)
    builders.anomaly(series, at=now - timedelta(days=3), features=far)
    elsewhere = builders.anomaly(other, at=now - timedelta(days=4))
    builders.anomaly(stranger, at=now - timedelta(days=4))
    builders.anomaly(series, at=now + timedelta(minutes=1))
    found = surroundings.similar(odd)
    assert found == [
        {"id": str(same.pk), "likeness": 1.0, "same_series": True},
        {"id": str(shape.pk), "likeness": 0.8, "same_series": True},
        {"id": str(elsewhere.pk), "likeness": 1.0, "same_series": False},
    ]


def test_neighbours_moved_when_odd_or_outside_their_band_in_that_minute() -> None:
    series = builders.series()
    rows = builders.rollups(series, 10)
    at = rows[-1].minute
    odd = builders.anomaly(series, at=at + timedelta(seconds=31))
    calm, wild, out = (builders.series("web-03", name) for name in ("disk", "memory", "load"))
    away = builders.series("web-09")
    for one in (calm, wild, out, away):
        builders.rollups(one, 10)
    Rollup.objects.filter(series=wild, minute=at).update(max_score=0.97)
    Rollup.objects.filter(series=out, minute=at).update(max=5_000.0)
    Rollup.objects.filter(series=calm, minute=at - timedelta(minutes=1)).update(max_score=0.99)
    found: Any = surroundings.neighbours(odd)
    assert (found["source"]["looked_at"], found["source"]["moved"]) == (3, 2)
    assert [row["metric"] for row in found["source"]["most"]] == ["memory", "load"]
    assert (found["metric"]["looked_at"], found["metric"]["moved"]) == (1, 0)


def test_a_stored_model_says_which_features_made_it_odd() -> None:
    series = builders.series()
    rows = np.random.default_rng(3).normal(0, 1, (900, len(FEATURE_NAMES)))
    trained = train("isolation_forest", rows, seed=1, params={"n_estimators": 50})
    row = model_store.save(trained, stream=series.stream, algorithm="isolation_forest")
    used = {"version": row.version, "sha256": row.sha256, "metric": ""}
    features = dict.fromkeys(FEATURE_NAMES, 0.1) | {"drift": 9.0}
    odd = builders.anomaly(series, features=features, models_used={"isolation_forest": used})
    found: Any = surroundings.models(odd)
    shares = found["isolation_forest"]["shares"]
    assert max(shares, key=lambda name: shares[name]) == "drift"
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-3)
    assert abs(found["isolation_forest"]["nearest"]["drift"]) < 5
    other = builders.anomaly(
        series, features=features, models_used={"isolation_forest": used | {"sha256": "another"}}
    )
    assert surroundings.models(other) is None
    type(row).objects.update(artefact=b"VIGILMDL")
    assert surroundings.models(odd) is None


def test_nothing_is_said_of_what_is_not_stored() -> None:
    odd = builders.anomaly(builders.series(), features={}, models_used={})
    assert surroundings.look(odd) == {}
    assert surroundings.of(builders.anomaly(None, origin="manual")) == {}


def test_the_task_completes_once_and_again_after_the_end() -> None:
    series = builders.series()
    builders.rollups(series, 60)
    odd = builders.anomaly(series, evidence={"event": 7, "tests": {"value": 2.0}})
    assert complete_evidence() == 0  # its minute may not be written yet
    Anomaly.objects.update(stored_at=timezone.now() - timedelta(minutes=5))
    assert [complete_evidence(), complete_evidence()] == [1, 0]
    odd.refresh_from_db()
    assert odd.evidence["event"] == 7
    assert odd.evidence["around"]["closed"] is False
    Anomaly.objects.update(state="closed")
    assert [complete_evidence(), complete_evidence()] == [1, 0]
    odd.refresh_from_db()
    assert odd.evidence["around"]["closed"] is True


def test_while_it_goes_on_the_kind_is_read_again_each_minute_and_page_and_api_say_so_far() -> None:
    series = builders.series()
    now = timezone.now()
    # of a night: where the day's swing is steep, a minute may lie apart by itself
    night = now.replace(hour=4, minute=0, second=0, microsecond=0)
    rows = builders.rollups(series, 200, end=night - timedelta(days=night > now))
    onset = rows[180].minute
    odd = builders.anomaly(series, at=onset, anomaly_type="spike")
    Anomaly.objects.update(stored_at=now - timedelta(minutes=5))

    def looked(at: datetime) -> str:
        complete = Anomaly.objects.select_related("stream", "series").get()
        surroundings.of(complete, at)
        return Anomaly.objects.get().anomaly_type

    assert looked(now) == "spike"
    for row in rows[180:]:
        Rollup.objects.filter(series=series, minute=row.minute).update(mean=row.mean + 400)
    assert looked(now + timedelta(seconds=20)) == "spike"  # not yet a minute
    assert surroundings.due(now + timedelta(seconds=20), 9) == []
    assert [a.pk for a in surroundings.due(now + timedelta(seconds=70), 9)] == [odd.pk]
    assert looked(now + timedelta(seconds=70)) == "level_shift"

    client = Client()
    client.force_login(builders.user())
    text = client.get(f"/anomalies/{odd.pk}/").content.decode()
    assert "level shift so far" in text
    assert 'hx-trigger="every 10s"' in text
    part = client.get(f"/anomalies/{odd.pk}/why").content.decode()
    assert 'id="reading" class="reading" hx-swap-oob="true"' in part
    assert 'id="facts" hx-swap-oob="true"' in part
    assert client.get(f"/api/anomalies/{odd.pk}/evidence").json()["anomaly_type_so_far"] is True
    Anomaly.objects.update(state="closed")
    text = client.get(f"/anomalies/{odd.pk}/why").content.decode()
    assert "so far" not in text
    assert "every 10s" not in text
    assert client.get(f"/api/anomalies/{odd.pk}/evidence").json()["anomaly_type_so_far"] is False


def test_after_the_end_the_kind_is_read_again() -> None:
    series = builders.series()
    rows = builders.rollups(series, 300)
    onset = rows[180].minute
    for row in rows[180:]:
        Rollup.objects.filter(series=series, minute=row.minute).update(mean=row.mean + 400)
    given = {"at": onset, "end_at": onset + timedelta(minutes=40), "anomaly_type": "spike"}
    odd = builders.anomaly(series, state="closed", **given)
    Anomaly.objects.update(stored_at=timezone.now() - timedelta(minutes=5))
    odd.refresh_from_db()
    surroundings.of(odd)
    odd.refresh_from_db()
    assert odd.anomaly_type == "level_shift"


def test_the_page_and_the_api_show_it(web: Client) -> None:
    series = builders.series()
    rows = scored(series, 120, 0.93, 0.97)
    near = builders.series("web-03", "memory")
    builders.rollups(near, 10)
    Rollup.objects.filter(series=near, minute=rows[-1].minute).update(max_score=0.97)
    before = builders.anomaly(series, at=rows[10].minute, label="real")
    evidence = {"event": 900, "reason": "value", "tests": {"value": 6.0, "pair": 2.0, "flat": 0.0}}
    odd = builders.anomaly(series, at=rows[-1].minute, score=0.97, evidence=evidence)
    page = web.get(f"/anomalies/{odd.pk}/").content.decode()
    assert "a value never seen" in page
    assert "75 %" in page
    assert f'hx-get="/anomalies/{odd.pk}/why"' in page
    part = web.get(f"/anomalies/{odd.pk}/why").content.decode()
    for text in ("higher than 99.8 % of 720 scored events", "Seen before", "In the same minute",
                 f"/anomalies/{before.pk}/", "memory", "1 neighbour moved", "as a level shift",
                 "the nearest value that was normal"):  # fmt: skip
        assert text in part, text
    answer = web.get(f"/api/anomalies/{odd.pk}/evidence").json()
    assert answer["evidence"]["tests"]["value"] == 6.0
    assert answer["evidence"]["around"]["similar"][0]["id"] == str(before.pk)
    json.dumps(answer)


def wide_anomaly(of: Series, ago_h: float, **z: float) -> Anomaly:
    """An anomaly of wide events: z by value, the largest explained."""
    total = sum(x * x for x in z.values())
    names = sorted(z)
    return builders.anomaly(
        of, at=timezone.now() - timedelta(hours=ago_h), anomaly_type="multivariate",
        features={n: z[n] for n in names}, detectors={"vector": 0.9}, models_used={},
        evidence={
            "shares": {n: z[n] ** 2 / total for n in names},
            "values": {n: {"value": None if n == "volt" else 10 + z[n], "level": 10 + z[n] / 2,
                           "usual": 10.0, "expected": 10.5} for n in names},
        },
    )  # fmt: skip


def test_wide_anomalies_are_alike_where_the_same_values_leave_the_same_way(web: Client) -> None:
    metric = label_of(("amps", "flow", "level", "volt"))
    own = builders.series("pump-1", metric)
    alike = wide_anomaly(own, 5, amps=0.1, flow=11, level=0.5, volt=0.2)
    wide_anomaly(own, 4, amps=0.1, flow=-11, level=0.5, volt=0.2)  # the other way
    wide_anomaly(own, 3, amps=9, flow=0.3, level=0.5, volt=0.2)  # another value
    elsewhere = wide_anomaly(builders.series("pump-2", metric), 2, amps=0, flow=8, level=0, volt=0)
    odd = wide_anomaly(own, 1, amps=0.2, flow=10, level=0.4, volt=0.1)
    found = surroundings.similar(odd) or []
    assert [row["id"] for row in found] == [str(alike.pk), str(elsewhere.pk)]
    assert found[0]["likeness"] > 0.8 > found[1]["likeness"] > 0.6
    assert [v.name for v in detail.wide_values(odd)][:2] == ["flow", "level"]
    page = web.get(f"/anomalies/{odd.pk}/?look=now").content.decode()
    assert "Value by value" in page
    assert "missing" in page
    told = web.get(f"/api/anomalies/{odd.pk}/evidence").json()["evidence"]
    assert told["values"]["flow"] == {"value": 20, "level": 15, "usual": 10, "expected": 10.5}
    narrow = builders.anomaly(builders.series())
    assert "Value by value" not in web.get(f"/anomalies/{narrow.pk}/").content.decode()
