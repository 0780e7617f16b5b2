"""Pages for what went wrong: what it was, the request's id, and a way on. They ask nothing of the
database, which may be what is wrong; programs get the same as JSON."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string

from config.request_ids import current
from streams.roles import REFUSAL

GONE = (
    "There is nothing at this address. It may be mistyped, or what was here has been deleted or"
    " has aged out."
)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponseBase:
    said = (
        "The request has something that is not allowed here: too many fields, or a host name that"
        " is not this site's."
    )
    return _answer(request, 400, "That can't be read", said)


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponseBase:
    said = str(exception) if exception and str(exception) else REFUSAL
    return _answer(request, 403, "This is not yours to do", said)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponseBase:
    said = exception.args[0] if exception and exception.args else ""
    # Ours are sentences; Django's speak of patterns and queries.
    ours = isinstance(said, str) and said.endswith(".") and "given query" not in said
    return _answer(request, 404, "Not found", said if ours else GONE)


def failed(request: HttpRequest) -> HttpResponseBase:
    return _answer(request, 500, "Something went wrong here", "It is Vigil's fault, not yours, and"
                   " its log says more under this request's id. Events go on being read and"
                   " scored.")  # fmt: skip


def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponseBase:
    return _answer(request, 403, "This form is out of date", "Nothing was changed. You may have"
                   " signed in or out in another tab, or this browser keeps no cookies. Go back,"
                   " load the page again, and send it once more.")  # fmt: skip


def _answer(request: HttpRequest, status: int, title: str, said: str) -> HttpResponseBase:
    if request.path.startswith("/api/"):
        error: dict[str, Any] = {"field": None, "message": said, "allowed": None}
        return JsonResponse({"error": error | {"request": current()}}, status=status)
    context = {"title": title, "said": said, "status": status, "id": current()}
    try:
        page = render_to_string("error.html", context, request=request)
    except Exception:
        # Whatever failed may fail again while it is told.
        text = f"{title}. {said}\nRequest {current()}\n"
        return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")
    return HttpResponse(page, status=status)
