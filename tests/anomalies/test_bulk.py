"""Many labels at once and back, saved views, notes: who may, and what stays as it was."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from anomalies import bulk
from anomalies.models import Anomaly, BulkLabel, DefaultView, Note, SavedView
from detection.models import QuarantineRelease
from tests import builders

pytestmark = pytest.mark.django_db
START = datetime(2024, 1, 1, tzinfo=UTC)


def test_ticked_ones_are_labelled_after_a_question_and_given_back(operator: Client) -> None:
    series = builders.series()
    plain, other = builders.anomaly(series), builders.anomaly(series, label="real")
    same, apart = builders.anomaly(series, label="expected"), builders.anomaly(series)
    given = {"id": [plain.pk, other.pk, same.pk], "label": "expected", "query": "source=web-03"}
    asked = operator.post("/anomalies/label", given).content.decode()
    assert "Label 2 anomalies expected?" in asked
    assert "1 of them has another label" in asked
    assert not BulkLabel.objects.exists()
    answer = operator.post("/anomalies/label", given | {"sure": "1"})
    assert re.fullmatch(r"/anomalies/\?source=web-03&done=\d+", answer["Location"])
    labels = dict(Anomaly.objects.values_list("pk", "label"))
    assert [labels[a.pk] for a in (plain, other, same, apart)] == ["expected"] * 3 + [""]
    assert QuarantineRelease.objects.filter(anomaly_id__in=[plain.pk, other.pk]).count() == 2
    page = operator.get(answer["Location"]).content.decode()
    assert "2 anomalies labelled expected." in page
    # Whoever labels one anew meanwhile keeps that.
    operator.post(f"/anomalies/{plain.pk}/label", {"label": "false_alarm"})
    done = BulkLabel.objects.get()
    operator.post(f"/anomalies/label/{done.pk}/undo", {"query": "source=web-03"})
    labels = dict(Anomaly.objects.values_list("pk", "label"))
    assert [labels[a.pk] for a in (plain, other, same)] == ["false_alarm", "real", "expected"]
    assert not QuarantineRelease.objects.filter(anomaly_id=other.pk).exists()
    assert "Undo gives" not in operator.get(answer["Location"]).content.decode()


def test_all_that_match_are_those_that_were_counted(operator: Client) -> None:
    for i in range(60):
        builders.anomaly(at=START + timedelta(minutes=i))
    builders.anomaly(source="pump")
    given = {"all": "1", "label": "real", "query": "source=web-03&before=x&done=7"}
    asked = operator.post("/anomalies/label", given).content.decode()
    assert "Label 60 anomalies real?" in asked
    until = re.search(r'name="until" value="([^"]+)"', asked)
    assert until is not None
    late = builders.anomaly()
    operator.post("/anomalies/label", given | {"until": until[1], "sure": "1"})
    assert Anomaly.objects.filter(label="real").count() == 60
    late.refresh_from_db()
    assert late.label == ""


def test_too_many_are_refused_whole(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MOST", 2)
    for _ in range(3):
        builders.anomaly()
    given = {"all": "1", "label": "real", "query": ""}
    assert "at most 2" in operator.post("/anomalies/label", given).content.decode()
    assert operator.post("/anomalies/label", given | {"sure": "1"}).status_code == 400
    assert not Anomaly.objects.exclude(label="").exists()


def test_viewers_neither_label_many_nor_write_notes_nor_share_views(web: Client) -> None:
    odd = builders.anomaly()
    assert web.post("/anomalies/label", {"id": [odd.pk], "label": "real"}).status_code == 403
    assert web.post(f"/anomalies/{odd.pk}/notes", {"text": "x"}).status_code == 403
    page = web.get("/anomalies/").content.decode()
    assert 'name="id"' not in page
    assert "for everybody" not in page
    web.post("/anomalies/views/save", {"name": "Mine", "query": "", "shared": "1"})
    assert not SavedView.objects.exists()


def test_a_view_is_kept_opened_changed_and_deleted(web: Client, operator: Client) -> None:
    web.post("/anomalies/views/save", {
        "name": " Bad  ones ", "query": "severity=3&before=x&label=&sort=score", "default": "1",
    })  # fmt: skip
    view = SavedView.objects.get()
    assert (view.name, view.query) == ("Bad ones", "severity=3&sort=score")
    assert web.get("/anomalies/")["Location"] == f"/anomalies/?{view.query}&view={view.pk}"
    assert "Bad ones" in web.get("/anomalies/", follow=True).content.decode()
    assert web.get("/anomalies/?range=all").status_code == 200
    web.post("/anomalies/views/save", {"name": "Bad ones", "query": "severity=4"})
    assert SavedView.objects.get().query == "severity=4"
    # Others neither see nor open nor delete it.
    for path in (f"/anomalies/views/{view.pk}/", f"/anomalies/?view={view.pk}"):
        assert "Bad ones" not in operator.get(path).content.decode()
    assert operator.post(f"/anomalies/views/{view.pk}/delete").status_code == 404
    assert operator.post(f"/anomalies/views/{view.pk}/default").status_code == 404
    web.post(f"/anomalies/views/{view.pk}/default", {"off": "1"})
    assert not DefaultView.objects.exists()
    web.post(f"/anomalies/views/{view.pk}/delete")
    assert not SavedView.objects.exists()


def test_a_shared_view_is_everybodys_to_open_and_its_owners_to_delete(
    web: Client, operator: Client
) -> None:
    operator.post("/anomalies/views/save", {"name": "Shift", "query": "label=none", "shared": "1"})
    view = SavedView.objects.get()
    assert web.get(f"/anomalies/views/{view.pk}/")["Location"].startswith("/anomalies/?label=none")
    assert "by olga" in web.get("/anomalies/").content.decode()
    assert web.post(f"/anomalies/views/{view.pk}/delete").status_code == 404
    web.post(f"/anomalies/views/{view.pk}/default")
    assert web.get("/anomalies/").status_code == 302
    SavedView.objects.update(shared=False)
    assert web.get("/anomalies/").status_code == 200


def test_notes_are_text_and_their_authors(operator: Client, client: Client) -> None:
    odd = builders.anomaly()
    operator.post(f"/anomalies/{odd.pk}/notes", {"text": "<b>Provider</b>\r\ndown\x00"})
    note = Note.objects.get()
    assert note.text == "<b>Provider</b>\ndown"
    page = operator.get(f"/anomalies/{odd.pk}/").content.decode()
    assert "&lt;b&gt;Provider&lt;/b&gt;<br>down" in page
    client.force_login(builders.user("otto", is_staff=True))
    for act in ("change", "delete"):
        answer = client.post(f"/anomalies/notes/{note.pk}/{act}", {"text": "gone"})
        assert answer.status_code == 404
    assert (
        f"/anomalies/notes/{note.pk}/" not in client.get(f"/anomalies/{odd.pk}/").content.decode()
    )
    operator.post(f"/anomalies/notes/{note.pk}/change", {"text": "Provider back"})
    note.refresh_from_db()
    assert note.text == "Provider back"
    assert note.changed_at is not None
    part = {"hx-request": "true", "hx-target": "notes"}
    said = operator.post(f"/anomalies/{odd.pk}/notes", {"text": " "}, headers=part)
    assert "A note needs some text." in said.content.decode()
    operator.post(f"/anomalies/notes/{note.pk}/delete")
    assert not Note.objects.exists()
