"""What went wrong is told in people's words with the request's id, also where nothing works."""

from __future__ import annotations

import logging

import pytest
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.test import Client, RequestFactory, override_settings
from django.urls import path

from config import error_views, request_ids
from config.logs import EventFormatter
from config.urls import urlpatterns as real


def broken(request: HttpRequest) -> HttpResponseBase:
    logging.getLogger("config").warning("about.to_break")
    raise RuntimeError("secret detail")


urlpatterns = [path("broken", broken), path("api/broken", broken), *real]
handler400, handler403 = error_views.bad_request, error_views.forbidden
handler404, handler500 = error_views.not_found, error_views.failed


@pytest.fixture
def visitor() -> Client:
    return Client(raise_request_exception=False)


def test_a_missing_page_says_so_with_the_requests_id_and_a_way_on(visitor: Client) -> None:
    answer = visitor.get("/nowhere/", headers={"x-request-id": "<b>forged"})
    text = answer.content.decode()
    assert answer.status_code == 404
    assert "There is nothing at this address" in text
    assert len(answer["X-Request-ID"]) == 8
    assert f"<code>{answer['X-Request-ID']}</code>" in text
    assert 'href="/search/"' in text
    assert answer["X-Request-ID"] != visitor.get("/nowhere/")["X-Request-ID"]


@override_settings(ROOT_URLCONF=__name__)
def test_a_failure_tells_its_id_and_nothing_of_its_inside(
    visitor: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.setFormatter(EventFormatter())
    answer = visitor.get("/broken")
    text = answer.content.decode()
    assert answer.status_code == 500
    assert "Something went wrong here" in text
    assert "secret detail" not in text
    assert f"about.to_break request={answer['X-Request-ID']}" in caplog.text
    told = visitor.get("/api/broken")
    assert told.json()["error"]["request"] == told["X-Request-ID"]
    assert request_ids.current() == ""


def test_a_page_that_fails_while_it_tells_is_told_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise RuntimeError

    monkeypatch.setattr(error_views, "render_to_string", fail)
    answer = error_views.failed(RequestFactory().get("/"))
    assert (answer.status_code, answer["Content-Type"]) == (500, "text/plain; charset=utf-8")


def test_a_form_without_its_token_says_what_to_do() -> None:
    answer = Client(enforce_csrf_checks=True).post("/login/", {"username": "anna"})
    assert answer.status_code == 403
    assert "This form is out of date" in answer.content.decode()


def test_a_foreign_host_is_refused_in_the_same_dress(visitor: Client) -> None:
    with override_settings(ALLOWED_HOSTS=["vigil.example"]):
        answer = visitor.get("/login/", headers={"host": "evil.example"})
    assert answer.status_code == 400
    assert "host name" in answer.content.decode()
