"""The JSON API of this app: health, statistics and anomalies; docs/api.md documents it.

What can't be read is answered with 400 and `{"error": {"field", "message", "allowed"}}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.serializers.json import DjangoJSONEncoder
from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from anomalies import access, feedback, health, listing, queries, surroundings
from anomalies.filters import Filters
from anomalies.kept import kept
from anomalies.models import Anomaly
from anomalies.parameters import (
    BadRequestError,
    incident_of,
    moment,
    one_of,
    score_of,
    severity_of,
    shown,
    text_of,
    whole,
)
from anomalies.results import result_of
from detection import drift
from streams.roles import REFUSAL, may_operate

MAX_BODY = 4_000
DEFAULT_LIMIT, MAX_LIMIT = 100, 1_000
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
View = Callable[..., HttpResponseBase]


def problem(status: int, message: str, *, field: str | None = None, allowed: str | None = None
            ) -> JsonResponse:  # fmt: skip
    error = {"field": field, "message": message, "allowed": allowed}
    return JsonResponse({"error": error}, status=status)


def endpoint(*methods: str) -> Callable[[View], View]:
    """Lets in who may call, for these methods, and answers every mistake in JSON.

    Whatever is no reading is for operators, tokens and, in open mode, programs of this machine.
    """

    def decorate(view: View) -> View:
        @csrf_exempt
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if request.method not in methods:
                answer = problem(405, "Method not allowed.", allowed=", ".join(methods))
                answer["Allow"] = ", ".join(methods)
                return answer
            refused = _refusal(request)
            if refused is not None:
                return refused
            try:
                if request.method not in SAFE_METHODS and not caller_of(request).may_write:
                    return problem(403, REFUSAL)
                return view(request, *args, **kwargs)
            except BadRequestError as error:
                return JsonResponse(error.body, status=400)
            except DatabaseError:
                return problem(503, "PostgreSQL does not answer.")

        return guarded

    return decorate


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, for the record, and whether they may change things."""

    name: str
    may_write: bool


def caller_of(request: HttpRequest) -> Caller:
    """Of a request that was let in: a program by its token, a user by their role, else a program
    that open mode lets in.

    A token and open mode are given to programs that may do what an operator may.
    """
    headers = {name.lower(): value for name, value in request.headers.items()}
    if access.token_is_valid(access.token_of(headers)):
        return Caller("token (API)", True)
    if request.user.is_authenticated:
        return Caller(request.user.get_username(), may_operate(request.user))
    return Caller("this machine (API)", access.open_to(request.META.get("REMOTE_ADDR"), headers))


def _refusal(request: HttpRequest) -> JsonResponse | None:
    """None where the caller is let in, else the answer that says why not."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    if access.open_to(request.META.get("REMOTE_ADDR"), headers):
        return None
    token = access.token_of(headers)
    if token is not None:
        return None if access.token_is_valid(token) else problem(401, "The token is not known.")
    try:
        signed_in = request.user.is_authenticated
    except DatabaseError:
        return problem(503, "PostgreSQL does not answer.")
    if not signed_in:
        answer = problem(401, "Sign in, or send `Authorization: Bearer` with a token.")
        answer["WWW-Authenticate"] = "Bearer"
        return answer
    if request.method not in SAFE_METHODS:
        # A session's cookie is sent by other sites' forms too, so it needs the CSRF token.
        checked = _Csrf(_no_view)
        checked.process_request(request)
        if checked.process_view(request, _no_view, (), {}) is not None:
            return problem(403, "The CSRF token is missing or wrong.", field="X-CSRFToken")
    return None


def _no_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


class _Csrf(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        return HttpResponse(reason, status=403)


# ---- Health and statistics ----------------------------------------------------------------------
@endpoint("GET", "HEAD")
def health_view(request: HttpRequest) -> HttpResponseBase:
    """Each component's state; 503 where events are not read, scored and stored."""
    parts = health.components()
    return JsonResponse(health.as_json(parts), status=200 if health.is_ready(parts) else 503)


@endpoint("GET", "HEAD")
def statistics_view(request: HttpRequest) -> HttpResponseBase:
    """The whole system's figures, some seconds old at most (`dashboard.keep_s`)."""

    def made() -> str:
        return json.dumps(queries.statistics(timezone.now()), cls=DjangoJSONEncoder)

    body = kept("statistics", settings.VIGIL.dashboard.keep_s, made)
    return HttpResponse(body, content_type="application/json")


@endpoint("GET", "HEAD")
def drift_view(request: HttpRequest) -> HttpResponseBase:
    """How far live features and scores have moved from training's, by champion and metric."""
    rules = drift.settings_of(settings.VIGIL)
    return JsonResponse({"reports": [drift.as_json(r, rules) for r in drift.latest()]})


# ---- Anomalies ----------------------------------------------------------------------------------
@endpoint("GET", "HEAD")
def anomalies_view(request: HttpRequest, source: str | None = None) -> HttpResponseBase:
    """The newest anomalies by event time, narrowed by filters, page by page."""
    query = request.GET
    limit = whole("limit", query.get("limit", str(DEFAULT_LIMIT)), 1, MAX_LIMIT)
    if source is not None:
        source = text_of("source", source)
    filters = Filters(
        source=source if source is not None else text_of("source", query.get("source", "")),
        metric=text_of("metric", query.get("metric", "")),
        series=text_of("series", query.get("series", "")),
        stream=text_of("stream", query.get("stream", "")),
        anomaly_type=text_of("type", query.get("type", "")),
        severity=severity_of(query.get("severity", "")),
        label=one_of("label", query.get("label", ""), ["", "none", "not_false_alarm",
                                                        *filter(None, Anomaly.Label.values)]),
        state=one_of("state", query.get("state", ""), ["", *Anomaly.State.values]),
        origin=one_of("origin", query.get("origin", ""), ["", *Anomaly.Origin.values]),
        score=score_of(query.get("min_score", "")),
        incident=incident_of(query.get("incident", "")),
        start=moment("since", query.get("since", "")),
        end=moment("until", query.get("until", "")),
    )  # fmt: skip
    orders = [name for name in listing.SORTS if name]
    sort = listing.SORTS[one_of("sort", query.get("sort", ""), ["", *orders])]
    before = query.get("cursor", "")
    if before and listing.read_cursor(before, sort) is None:
        raise BadRequestError(
            "cursor", "No cursor of this API, or of another order.", "`next` of the last answer"
        )
    page = listing.page_of(filters, sort=sort, before=before, size=limit, whole=True)
    return JsonResponse(
        {"count": len(page.rows), "anomalies": [result_of(a) for a in page.rows],
         "next": page.older}
    )  # fmt: skip


@endpoint("GET", "HEAD")
def evidence_view(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """One anomaly with everything that is known of why."""
    anomaly = Anomaly.objects.select_related("stream", "series").filter(pk=pk).first()
    if anomaly is None:
        return problem(404, "No anomaly has this id.", field="id")
    evidence = surroundings.of(anomaly)
    return JsonResponse(result_of(anomaly) | {"label": anomaly.label or None,
                        "features": anomaly.features, "evidence": evidence})  # fmt: skip


@endpoint("POST")
def label_view(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Store what somebody says of an anomaly: `{"label": "real"}`; null takes it back."""
    # Only JSON: a browser sends that to another site only after asking, which we never grant.
    if request.content_type != "application/json":
        return problem(415, "The body's type is not JSON.", field="Content-Type",
                       allowed="application/json")  # fmt: skip
    if not access.same_origin({name.lower(): value for name, value in request.headers.items()}):
        return problem(403, "Another site's page may not label.", field="Origin")
    allowed = ", ".join([*filter(None, Anomaly.Label.values), "null"])
    try:
        body = json.loads(request.body[:MAX_BODY])
    except (ValueError, RecursionError, RequestDataTooBig):
        return problem(400, "The body is no JSON.", field="body", allowed="a JSON object")
    if not isinstance(body, dict) or "label" not in body:
        return problem(400, "The body has no label.", field="label", allowed=allowed)
    label = body["label"] if body["label"] is not None else ""
    if not isinstance(label, str) or label not in Anomaly.Label.values:
        return problem(400, f"{shown(str(label))} is no label.", field="label", allowed=allowed)
    user = request.user if request.user.is_authenticated else None
    try:
        anomaly = feedback.set_label(pk, label, user)
    except Anomaly.DoesNotExist:
        return problem(404, "No anomaly has this id.", field="id")
    return JsonResponse(result_of(anomaly) | {
        "label": anomaly.label or None,
        "labelled_by": anomaly.labelled_by.get_username() if anomaly.labelled_by else None,
        "labelled_at": anomaly.labelled_at.isoformat() if anomaly.labelled_at else None,
    })  # fmt: skip


@endpoint("GET", "HEAD")
def feedback_view(request: HttpRequest) -> HttpResponseBase:
    """How often detectors and series were right, by the labels."""
    return JsonResponse(feedback.as_json(feedback.by_detector(), feedback.by_series()))
