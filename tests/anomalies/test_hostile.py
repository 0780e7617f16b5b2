"""Bad cursors, ids, numbers and moments, NUL bytes, other people's things: answers, no failures."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from django.test import Client

from anomalies.models import Note, SavedView
from tests import builders

pytestmark = pytest.mark.django_db
GARBAGE = ["", "x", "-1", "9" * 40, "\x00", "ä€\ud7ff", "1e400", "nan", "0001-01-01T00:00:00Z",
           "9999-12-31T23:59:59.999999Z", "a" * 9_000, "*?*?*[(\\' OR 1=1 --"]  # fmt: skip
NAMES = ("range", "stream", "severity", "label", "state", "score", "type", "source", "metric",
         "series", "origin", "incident", "start", "end", "sort", "before", "after", "window",
         "done", "view", "edit", "look", "q", "cursor", "limit", "min_score", "since",
         "until")  # fmt: skip
ANSWERS = (200, 302, 400, 404)


def turned(names: tuple[str, ...], by: int) -> dict[str, str]:
    """Each name with another piece of garbage."""
    return {name: GARBAGE[(i + by) % len(GARBAGE)] for i, name in enumerate(names)}


def test_garbage_is_answered_and_changes_nothing(operator: Client) -> None:
    odd = builders.anomaly(builders.series())
    mine, theirs = builders.user("nina"), builders.user("karl", is_staff=True)
    note = Note.objects.create(anomaly=odd, author=theirs, text="theirs")
    view = SavedView.objects.create(owner=mine, name="theirs", query="label=none")
    huge = "9" * 40
    part = {"hx-request": "true", "hx-target": "table"}
    for path in ("/anomalies/", f"/anomalies/{odd.pk}/", f"/anomalies/{odd.pk}/why", "/search/",
                 "/anomalies/since", f"/anomalies/{uuid4()}/", f"/anomalies/views/{view.pk}/",
                 f"/anomalies/views/{huge}/", "/anomalies/export.xml", "/api/anomalies",
                 "/feedback/", "/login/"):  # fmt: skip
        for by in range(len(GARBAGE)):
            query, headers = turned(NAMES, by), part if by % 2 else {}
            answer = operator.get(path, query, headers=headers)
            assert answer.status_code in ANSWERS, (path, query)
    for path, names in (
        ("/anomalies/label", ("id", "label", "query", "all", "sure", "until")),
        (f"/anomalies/label/{huge}/undo", ("query",)), ("/anomalies/label/1/undo", ("query",)),
        ("/anomalies/views/save", ("name", "query", "shared", "default")),
        (f"/anomalies/views/{view.pk}/delete", ()), (f"/anomalies/views/{view.pk}/default", ()),
        (f"/anomalies/{odd.pk}/label", ("label",)), (f"/anomalies/{uuid4()}/label", ("label",)),
        (f"/anomalies/{odd.pk}/notes", ("text",)), (f"/anomalies/{uuid4()}/notes", ("text",)),
        (f"/anomalies/notes/{note.pk}/change", ("text",)), (f"/anomalies/notes/{huge}/delete", ()),
        (f"/anomalies/notes/{note.pk}/delete", ()), ("/theme", ("theme", "next")),
    ):  # fmt: skip
        for by, text in enumerate(GARBAGE):
            given = turned(names, by) | {"id": [text, str(odd.pk)]}
            assert operator.post(path, given).status_code in ANSWERS, (path, given)
        for body in ("", "{", json.dumps([huge])):
            answer = operator.post(path, body, content_type="application/json")
            assert answer.status_code in ANSWERS, path
    for until in GARBAGE:
        given = {"all": "1", "label": "real", "query": "label=none", "until": until}
        assert operator.post("/anomalies/label", given).status_code in ANSWERS
    note.refresh_from_db()
    odd.refresh_from_db()
    assert (note.text, odd.label) == ("theirs", "")
    assert SavedView.objects.filter(pk=view.pk).exists()
