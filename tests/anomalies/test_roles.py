"""Least rights: viewers read, operators work, admins configure; each refusal says who may."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from anomalies.models import Anomaly
from detection.models import QuarantineRelease, ThresholdPolicy, TrainingRun
from streams.models import DeadLetter
from tests import builders

pytestmark = pytest.mark.django_db
SAYS = "Only operators and admins may change this. Ask an admin for the role of an operator."


def of(role: str) -> Client:
    """A client of a viewer, operator or admin."""
    client = Client()
    more = {"operator": {"is_staff": True}, "admin": {"is_staff": True, "is_superuser": True}}
    client.force_login(builders.user(role, **more.get(role, {})))
    return client


@pytest.fixture
def world() -> dict[str, Any]:
    series = builders.series()
    return {"series": series.pk, "odd": builders.anomaly(series).pk,
            "letter": builders.dead_letter().pk, "model": builders.model().pk}  # fmt: skip


PAGES = (
    "/anomalies/{odd}/label", "/streams/dead-letters/handle",
    "/series/{series}/threshold",
    "/models/train", "/models/runs/1/cancel", "/models/studies/start", "/models/studies/1/cancel",
    "/models/{model}/promote", "/models/{model}/challenge", "/models/{model}/retire",
    "/models/{model}/rollback",
)  # fmt: skip
API = (
    "/api/alert", "/api/anomalies/{odd}/label", "/api/models/train", "/api/training/1/cancel",
    "/api/models/{model}/promote", "/api/models/{model}/rollback",
)  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_a_viewer_changes_nothing_by_a_page_and_is_told_why(world: Any, path: str) -> None:
    answer = of("viewer").post(path.format(**world), {"label": "real", "threshold": "0.9"})
    assert answer.status_code == 403
    assert SAYS in answer.content.decode()
    # an operator is let in: refused at most for what was asked
    assert of("operator").post(path.format(**world)).status_code in (302, 400, 404, 409)


@pytest.mark.parametrize("path", API)
def test_a_viewer_changes_nothing_by_the_api_and_is_told_why(world: Any, path: str) -> None:
    body = json.dumps({"label": "real", "reason": "x"})
    answer = of("viewer").post(path.format(**world), body, "application/json")
    assert answer.status_code == 403
    assert answer.json()["error"]["message"] == SAYS
    answer = of("operator").post(path.format(**world), body, "application/json")
    assert answer.status_code in (200, 400, 404, 409)


def test_nothing_was_changed_by_those_who_may_not(world: Any) -> None:
    viewer = of("viewer")
    for path in (*PAGES, *API):
        viewer.post(path.format(**world), {"label": "real"})
    assert Anomaly.objects.get().label == ""
    assert DeadLetter.objects.get().state == DeadLetter.State.WAITING
    assert TrainingRun.objects.count() == 1  # that of the model


def test_the_role_of_who_is_signed_in_counts_in_open_mode_too(
    world: Any, settings: Settings
) -> None:
    api = settings.VIGIL.api.model_copy(update={"open": True})
    settings.VIGIL = settings.VIGIL.model_copy(update={"api": api})
    path, body = f"/api/anomalies/{world['odd']}/label", json.dumps({"label": "real"})
    viewer = of("viewer")
    here = {"host": "127.0.0.1:8000"}
    assert viewer.post(path, body, "application/json", headers=here).status_code == 403
    assert viewer.get("/api/anomalies", headers=here).status_code == 200
    program = Client(headers=here)
    assert program.post(path, body, "application/json").status_code == 200


def test_pages_show_what_one_may_do_and_no_more(world: Any) -> None:
    forms = {
        f"/anomalies/{world['odd']}/": '/label"',
        f"/streams/dead-letters/{world['letter']}/": '/handle"',
        "/models/": '/models/train"',
        f"/models/{world['model']}/": '/rollback"',
        "/models/studies/": '/models/studies/start"',
    }
    viewer, operator = of("viewer"), of("operator")
    for path, action in forms.items():
        assert action not in viewer.get(path).content.decode(), path
        assert action in operator.get(path).content.decode(), path
    assert "/admin/" not in viewer.get("/").content.decode()


def test_operators_look_at_the_admin_and_label_there(world: Any) -> None:
    client = of("operator")
    assert "Threshold policies" in client.get("/admin/").content.decode()
    for name in ("detection/thresholdpolicy", "streams/series", "detection/modelversion"):
        assert client.get(f"/admin/{name}/").status_code == 200, name
    assert client.get("/admin/auth/user/").status_code == 403
    assert client.get("/admin/django_celery_beat/periodictask/").status_code == 403
    assert client.get("/admin/detection/thresholdpolicy/add/").status_code == 403
    policy = ThresholdPolicy.objects.create(name="all")
    path = f"/admin/detection/thresholdpolicy/{policy.pk}"
    assert client.get(f"{path}/change/").status_code == 200
    assert client.post(f"{path}/change/", {"threshold": 0.1}).status_code == 403
    assert client.post(f"{path}/delete/", {"post": "yes"}).status_code == 403
    client.post(f"/admin/anomalies/anomaly/{world['odd']}/change/", {"label": "expected"})
    odd = Anomaly.objects.get()
    assert (odd.label, odd.labelled_by) == ("expected", User.objects.get(username="operator"))
    # it teaches what the button on the page does
    assert QuarantineRelease.objects.get().anomaly_id == odd.pk


def test_viewers_have_no_way_into_the_admin(world: Any) -> None:
    for path in ("/admin/", "/admin/anomalies/anomaly/", "/admin/detection/thresholdpolicy/"):
        answer = of_viewer_once().get(path)
        assert answer.status_code == 302, path
        assert answer["Location"].startswith("/admin/login/")


def of_viewer_once() -> Client:
    client = Client()
    client.force_login(User.objects.filter(username="viewer").first() or builders.user("viewer"))
    return client


def test_admins_configure(world: Any) -> None:
    client = of("admin")
    for name in ("auth/user", "django_celery_beat/periodictask", "detection/thresholdpolicy"):
        assert client.get(f"/admin/{name}/add/").status_code == 200, name
