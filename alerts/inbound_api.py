"""`POST /api/alertmanager`: where an Alertmanager's webhook sends."""

from __future__ import annotations

import json

from django.core.exceptions import RequestDataTooBig
from django.db import Error as DatabaseError
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from alerts import inbound
from alerts.errors import IntakeError
from alerts.models import InboundSource
from anomalies import access
from anomalies.api import problem

MAX_BODY = 2_000_000
API = "api"


@csrf_exempt
def alertmanager_view(request: HttpRequest) -> HttpResponseBase:
    """200 with what became of the alerts. Alertmanager sends again after 5xx, and gives up on 4xx.

    Let in is who knows a source's token or the API's; neither a session nor open mode is enough.
    """
    if request.method != "POST":
        answer = problem(405, "Method not allowed.", allowed="POST")
        answer["Allow"] = "POST"
        return answer
    try:
        return _taken(request)
    except DatabaseError:
        return problem(503, "PostgreSQL does not answer.")


def _taken(request: HttpRequest) -> HttpResponseBase:
    source = _let_in(request)
    if isinstance(source, JsonResponse):
        return source
    if request.content_type != "application/json":
        return problem(415, "The body's type is not JSON.", field="Content-Type",
                       allowed="application/json")  # fmt: skip
    try:
        text = request.body
    except RequestDataTooBig:
        text = b" " * (MAX_BODY + 1)
    if len(text) > MAX_BODY:
        return problem(413, "The body is too long.", field="body",
                       allowed=f"{MAX_BODY} bytes; its max_alerts bounds it")  # fmt: skip
    try:
        message = inbound.read(json.loads(text))
    except IntakeError as error:
        return problem(400, error.message, field=error.field, allowed=error.allowed)
    except (ValueError, RecursionError):
        return problem(400, "The body is no JSON.", field="body", allowed="a JSON object")
    name = source.name if source is not None else API
    return JsonResponse(inbound.take_in(message, name, source).as_json())


def _let_in(request: HttpRequest) -> InboundSource | JsonResponse | None:
    """The source that calls, None for the API's token, or the answer that says why not."""
    token = access.token_of({name.lower(): value for name, value in request.headers.items()})
    if token is not None:
        if (source := inbound.source_of(token)) is not None:
            return source
        if access.token_is_valid(token):
            return None
    said = "The token is not known." if token else "A token is missing."
    refused = problem(401, said, field="Authorization", allowed="Bearer and a source's token")
    refused["WWW-Authenticate"] = "Bearer"
    return refused
