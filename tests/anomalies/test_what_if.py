"""A threshold tried on a series: what it would tell, saved as a policy, reached, and taken back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.conf import settings
from django.http import QueryDict
from django.test import Client
from django.utils import timezone

from anomalies import own_policy, what_if
from anomalies.models import Candidate
from config.wiring import scoring_base
from detection.models import ThresholdPolicy
from detection.thresholds import LEVELS
from detection.versions import payload_of
from streams.models import AuditEntry, Rollup, Series
from tests import builders

pytestmark = pytest.mark.django_db


def tried(*given: tuple[float, str, int]) -> Series:
    """A series with an event for each (score, label, direction); below 0.8 it is a near miss."""
    now = timezone.now()
    series = builders.series(first_event_at=now - timedelta(days=30), last_event_at=now)
    rows = builders.rollups(series, 60)
    for i, (score, label, direction) in enumerate(given):
        at = now - timedelta(hours=12 * i + 1)
        reached = [int(score >= level) for level in LEVELS.tolist()]
        Rollup.objects.filter(series=series, minute=rows[i].minute).update(
            onset_counts=reached, score_counts=reached
        )
        Candidate.objects.create(
            series=series, incarnation=builders.incarnation(), partition=0, offset=i, event_at=at,
            value=9.0, score=score, direction=direction, deviation=direction * 5.0,
            expected_mid=4.0, levels=sum(1 << k for k, n in enumerate(reached) if n),
        )  # fmt: skip
        if score >= 0.8:
            builders.anomaly(
                series, score=score, label=label, at=at, direction=direction, state="closed",
                value=4.0 + 5 * direction, expected_mid=4.0,
            )  # fmt: skip
    return series


SCENE = [(0.97, "real", 1), (0.91, "false_alarm", -1), (0.84, "false_alarm", 1), (0.83, "", 1),
         (0.76, "", 1), (0.71, "", -1)]  # fmt: skip


def look(series: Series, query: str, span: int = 7) -> what_if.WhatIf:
    policy = own_policy.counting(series)
    draft, _ = what_if.draft_of(policy, QueryDict(query))
    return what_if.look(series, policy, draft, span)


def test_a_higher_one_hides_and_says_which_labelled_ones() -> None:
    found = look(tried(*SCENE), "threshold=0.9&budget=0")
    assert (found.stored, found.told, found.hidden, found.added) == (4, 2, 2, 0)
    assert (found.real_found, found.real, found.wrong_avoided, found.wrong) == (1, 1, 1, 2)
    assert found.hidden_unlabelled == 1


def test_a_lower_one_adds_what_no_anomaly_holds() -> None:
    found = look(tried(*SCENE), "threshold=0.7&budget=0")
    assert (found.told, found.hidden, found.added, found.onsets) == (6, 0, 2, 6)


def test_direction_and_least_deviation_count() -> None:
    series = tried(*SCENE)
    assert look(series, "threshold=0.7&direction=down&budget=0").told == 2
    assert look(series, "threshold=0.7&least=5.5&budget=0").told == 0


def test_the_budget_holds_back_in_the_estimate() -> None:
    series = tried(*[(0.82, "", 1)] * 13)
    found = look(series, "threshold=0.7&budget=0.2")
    assert found.onsets == 13
    assert 0 < found.told < 13
    assert found.held == 13 - found.told


def test_a_draft_is_snapped_to_what_is_counted_and_the_rest_left_out() -> None:
    policy = own_policy.counting(builders.series())
    draft, changed = what_if.draft_of(policy, QueryDict("threshold=0.867&direction=x&least=-4"))
    assert (draft.threshold, draft.direction, draft.least, changed) == (0.875, "both", 0.0, True)
    assert what_if.draft_of(policy, QueryDict("threshold=nan"))[1] is False


def test_it_is_saved_audited_counted_and_taken_back(operator: Client) -> None:
    series = tried(*SCENE)
    confirm = operator.get(f"/series/{series.pk}/policy?threshold=0.9&budget=0").content.decode()
    assert "2 anomalies instead of 4" in confirm
    assert ThresholdPolicy.objects.count() == 0, "asking saves nothing"
    answer = operator.post(f"/series/{series.pk}/policy", {"threshold": "0.9", "direction": "up"})
    assert answer.status_code == 302
    mine = own_policy.counting(series)
    assert (mine.threshold, mine.direction, mine.version) == (0.9, "up", 1)
    payload = payload_of(series.stream, scoring_base(settings.VIGIL))
    assert payload["policies"][0]["threshold"] == 0.9, "what consumers take up"
    entry = AuditEntry.objects.latest("pk")
    assert (entry.actor_name, entry.action) == ("olga", "created")
    page = operator.get(f"/series/{series.pk}/").content.decode()
    assert "Undo" in page
    operator.post(f"/series/{series.pk}/policy/undo", {"change": entry.pk})
    assert own_policy.counting(series).threshold == 0.8
    undone = AuditEntry.objects.latest("pk")
    assert undone.reverts == entry
    assert "Undo" not in operator.get(f"/series/{series.pk}/").content.decode()
    again = operator.post(f"/series/{series.pk}/policy/undo", {"change": entry.pk}, follow=True)
    assert "Nothing was taken back" in again.content.decode()


def test_undo_restores_what_was_unless_somebody_changed_it_since(operator: Client) -> None:
    series = tried(*SCENE)
    for threshold in ("0.9", "0.95"):
        operator.post(f"/series/{series.pk}/policy", {"threshold": threshold})
    entry = AuditEntry.objects.latest("pk")
    row = ThresholdPolicy.objects.get()
    row.direction = "down"
    row.save()
    operator.post(f"/series/{series.pk}/policy/undo", {"change": entry.pk})
    assert own_policy.counting(series).threshold == 0.95
    row.direction = "both"
    row.save()
    operator.post(f"/series/{series.pk}/policy/undo", {"change": entry.pk})
    assert own_policy.counting(series).threshold == 0.9


def test_what_is_wider_is_for_admins_and_says_whom_it_reaches(
    operator: Client, client: Client
) -> None:
    series = tried(*SCENE)
    other, third = builders.series("web-04"), builders.series("web-05")
    own_policy.save(third, own_policy.Wish(0.98))
    path = f"/series/{series.pk}/policy"
    for scope in ("metric", "stream"):
        given = {"threshold": "0.9", "scope": scope}
        assert operator.get(path, given).status_code == 403
        assert operator.post(path, given).status_code == 403
    client.force_login(builders.user("root", is_staff=True, is_superuser=True))
    text = client.get(path, {"threshold": "0.9", "scope": "metric"}).content.decode()
    assert "2 of 3 series" in text
    client.post(path, {"threshold": "0.9", "scope": "metric"})
    assert [own_policy.counting(s).threshold for s in (series, other, third)] == [0.9, 0.9, 0.98]
    own_policy.save(series, own_policy.Wish(0.85))
    text = client.get(path, {"threshold": "0.95", "scope": "stream"}).content.decode()
    assert "0 of 3 series" in text
    assert "Not for this series" in text


def test_viewers_see_the_effect_and_save_nothing(web: Client) -> None:
    series = tried(*SCENE)
    text = web.get(f"/series/{series.pk}/?threshold=0.9&whole=1").content.decode()
    assert "An operator can save it" in text
    assert web.post(f"/series/{series.pk}/policy", {"threshold": "0.9"}).status_code == 403
    assert web.get(f"/series/{series.pk}/policy?threshold=0.9").status_code == 403
