"""`POST /api/alert`: an anomaly that somebody or something else found."""

from __future__ import annotations

import json

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from alerts.errors import IntakeError
from alerts.intake import read_report, take_in
from anomalies.access import same_origin
from anomalies.api import endpoint, problem
from anomalies.results import result_of

MAX_BODY = 64_000
KEY_LENGTH = 255


@endpoint("POST")
def alert_view(request: HttpRequest) -> HttpResponseBase:
    """201 with the stored result; 200 where this Idempotency-Key was seen before."""
    # Only JSON: a browser sends that to another site only after asking, which we never grant.
    if request.content_type != "application/json":
        return problem(415, "The body's type is not JSON.", field="Content-Type",
                       allowed="application/json")  # fmt: skip
    headers = {name.lower(): value for name, value in request.headers.items()}
    if not same_origin(headers):
        return problem(403, "Another site's page may not report.", field="Origin")
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 0 < len(key) <= KEY_LENGTH:
        return problem(400, "The key's length is wrong.", field="Idempotency-Key",
                       allowed=f"1 to {KEY_LENGTH} characters")  # fmt: skip
    try:
        text = request.body
    except RequestDataTooBig:
        text = b" " * (MAX_BODY + 1)
    if len(text) > MAX_BODY:
        return problem(413, "The body is too long.", field="body", allowed=f"{MAX_BODY} bytes")
    try:
        anomaly, made = take_in(read_report(json.loads(text)), key)
    except (ValueError, RecursionError):
        return problem(400, "The body is no JSON.", field="body", allowed="a JSON object")
    except IntakeError as error:
        return problem(400, error.message, field=error.field, allowed=error.allowed)
    return JsonResponse(result_of(anomaly), status=201 if made else 200)
