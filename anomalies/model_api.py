"""The JSON API of models and training: what there is, what was live, and every change of it.

It lives in this app for the sake of who may call: sessions, tokens and open mode are told apart
here. What can't be done now is answered with 409 and the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, TypeVar, cast

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db.models import Model, QuerySet
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from anomalies.api import caller_of, endpoint, problem
from anomalies.parameters import BadRequestError
from detection import catalogue, model_store, promotion, training_queue
from detection.errors import ArtefactError, TransitionRefused
from detection.live_at import EXAMPLE, By, as_json, live_at, read_moment
from detection.models import ModelVersion, TrainingRun
from detection.promotion import GateFailed
from detection.training_orders import OrderRefused, asked_for, new_order
from detection.training_run import Promote

MAX_BODY, MAX_REASON = 16_000, 2_000
DEFAULT_LIMIT, MAX_LIMIT = 50, 500
Row = TypeVar("Row", bound=Model)
Changing = Callable[[HttpRequest, dict[str, Any], str, int], JsonResponse]


def changing(*fields: str) -> Callable[[Changing], Callable[..., HttpResponseBase]]:
    """A POST with a JSON object of these fields, or nothing."""

    def decorate(change: Changing) -> Callable[..., HttpResponseBase]:
        @endpoint("POST")
        @wraps(change)
        def view(request: HttpRequest, identity: int = 0) -> HttpResponseBase:
            body = _body(request, fields)
            try:
                return change(request, body, caller_of(request).name, identity)
            except ModelVersion.DoesNotExist:
                return problem(404, f"There is no model {identity}.", allowed="GET /api/models")
            except TrainingRun.DoesNotExist:
                return problem(404, f"There is no run {identity}.", allowed="GET /api/training")
            except GateFailed as error:
                answer = {"error": {"field": "anyway", "message": str(error),
                                    "allowed": "true, with a reason, promotes all the same"},
                          "gate": promotion.as_json(error.verdict)}  # fmt: skip
                return JsonResponse(answer, status=409)
            except (ArtefactError, TransitionRefused) as error:
                return problem(409, f"It stays as it was. {error}")

        return view

    return decorate


# ---- Reading ------------------------------------------------------------------------------------
@endpoint("GET", "HEAD")
def models_view(request: HttpRequest) -> HttpResponseBase:
    """The versions, the newest first, narrowed by stream, metric, algorithm and state."""
    rows = catalogue.versions()
    for name, column in (("stream", "stream__name"), ("metric", "metric"),
                         ("algorithm", "algorithm"), ("state", "state")):  # fmt: skip
        if name in request.GET:
            rows = rows.filter(**{column: _plain(name, request.GET[name])})
    state = request.GET.get("state")
    if state is not None and state not in ModelVersion.State.values:
        raise BadRequestError("state", "No state.", ", ".join(ModelVersion.State.values))
    return _page(request, rows, "models", catalogue.model_json)


@endpoint("GET", "HEAD")
def model_view(request: HttpRequest, identity: int) -> HttpResponseBase:
    """One version with its manifest, transitions and evaluations."""
    row = catalogue.versions().filter(pk=identity).first()
    if row is None:
        return problem(404, f"There is no model {identity}.", allowed="GET /api/models")
    return JsonResponse(catalogue.model_json(row, whole=True))


@endpoint("GET", "HEAD")
def live_view(request: HttpRequest) -> HttpResponseBase:
    """What was live at a moment, by the clock or for the events of that minute."""
    by = request.GET.get("by", "clock")
    if by not in ("clock", "event"):
        raise BadRequestError("by", f"{by[:60]!r} is not known.", "clock, event")
    try:
        moment = read_moment(_whole_zone(request.GET.get("at", "")))
    except ValueError:
        raise BadRequestError("at", "This is no moment.", EXAMPLE) from None
    found = live_at(moment, cast(By, by), _plain("stream", request.GET.get("stream", "")))
    return JsonResponse(
        {"at": moment.isoformat().replace("+00:00", "Z"), "by": by, "streams": as_json(found)}
    )


@endpoint("GET", "HEAD")
def runs_view(request: HttpRequest) -> HttpResponseBase:
    """The training runs, the newest first."""
    rows = catalogue.runs()
    status = request.GET.get("status")
    if status is not None and status not in TrainingRun.Status.values:
        raise BadRequestError("status", "No status.", ", ".join(TrainingRun.Status.values))
    if status is not None:
        rows = rows.filter(status=status)
    return _page(request, rows, "runs", catalogue.run_json)


@endpoint("GET", "HEAD")
def run_view(request: HttpRequest, identity: int) -> HttpResponseBase:
    """One training run."""
    row = catalogue.runs().filter(pk=identity).first()
    if row is None:
        return problem(404, f"There is no run {identity}.", allowed="GET /api/training")
    return JsonResponse(catalogue.run_json(row))


# ---- Changing -----------------------------------------------------------------------------------
@changing("reason", "anyway")
def promote_view(
    request: HttpRequest, body: dict[str, Any], actor: str, identity: int
) -> JsonResponse:
    """Make it the champion, through the gate or with `anyway` and a reason past it."""
    anyway = body.get("anyway", False)
    if not isinstance(anyway, bool):
        raise BadRequestError("anyway", "This is no yes or no.", "true, false")
    promotion.promote(identity, actor=actor, reason=_reason(body), anyway=anyway)
    return _model(identity)


@changing("reason")
def challenge_view(
    request: HttpRequest, body: dict[str, Any], actor: str, identity: int
) -> JsonResponse:
    """Let it score beside the champion."""
    model_store.challenge(identity, actor=actor, reason=_reason(body))
    return _model(identity)


@changing("reason")
def retire_view(
    request: HttpRequest, body: dict[str, Any], actor: str, identity: int
) -> JsonResponse:
    """Take it out of use."""
    model_store.retire(identity, actor=actor, reason=_reason(body))
    return _model(identity)


@changing("reason", "to")
def rollback_view(
    request: HttpRequest, body: dict[str, Any], actor: str, identity: int
) -> JsonResponse:
    """Leave this champion for the one before it, or for none."""
    to = body.get("to", "previous")
    if to not in ("previous", "none"):
        raise BadRequestError("to", "This is not known.", "previous, none")
    row = catalogue.versions().get(pk=identity)
    done = model_store.roll_back(
        row.stream, row.metric, row.algorithm, actor=actor, reason=_reason(body),
        to_none=to == "none", away_from=identity,
    )  # fmt: skip
    champion = None
    if done.back is not None:
        champion = catalogue.model_json(catalogue.versions().get(pk=done.back.pk))
    return JsonResponse({"left": identity, "champion": champion})


@changing("stream", "metric", "algorithm", "promote", "seed", "since_hours")
def train_view(
    request: HttpRequest, body: dict[str, Any], actor: str, identity: int
) -> JsonResponse:
    """Queue a training; 202 with the run, whose progress `GET /api/training/{id}` tells."""
    try:
        stream, metric, algorithm = asked_for(
            _word(body, "stream", ""), _word(body, "metric", ""),
            _word(body, "algorithm", "isolation_forest"),
        )  # fmt: skip
    except OrderRefused as error:
        raise BadRequestError(error.field, str(error), error.allowed) from error
    promote = body.get("promote", "first")
    if promote not in ("first", "never"):
        raise BadRequestError("promote", "This is not known.", "first, never")
    seed = body.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise BadRequestError("seed", "This is no seed.", "a whole number from 0 to 2147483647")
    order = new_order(settings.VIGIL, stream, algorithm, metric, seed=seed)
    since = body.get("since_hours")
    usable = isinstance(since, int | float) and not isinstance(since, bool) and 0 < since <= 87_600
    if since is not None and not usable:
        raise BadRequestError("since_hours", "This is no time.", "a number over 0, up to 87600")
    order = training_queue.changed(
        order, cast(Promote, promote), None if since is None else timedelta(hours=float(since))
    )
    user = request.user.pk if request.user.is_authenticated else None
    record = training_queue.queue(order, trigger=TrainingRun.Trigger.API, requested_by=user)
    return JsonResponse(catalogue.run_json(catalogue.runs().get(pk=record.pk)), status=202)


@changing()
def cancel_view(
    request: HttpRequest, body: dict[str, Any], actor: str, identity: int
) -> JsonResponse:
    """End a run: at once while it waits, else within seconds."""
    training_queue.cancel(identity, actor)
    return JsonResponse(catalogue.run_json(catalogue.runs().get(pk=identity)))


# ---- Parts --------------------------------------------------------------------------------------
def _model(identity: int) -> JsonResponse:
    return JsonResponse(catalogue.model_json(catalogue.versions().get(pk=identity)))


def _body(request: HttpRequest, fields: tuple[str, ...]) -> dict[str, Any]:
    allowed = f"a JSON object of {', '.join(fields)}" if fields else "nothing, or {}"
    try:
        text = request.body
    except RequestDataTooBig:
        text = b" " * (MAX_BODY + 1)
    if len(text) > MAX_BODY:
        raise BadRequestError("body", "The body is too long.", f"{MAX_BODY} bytes")
    if not text.strip():
        return {}
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise BadRequestError("body", "The body is no JSON.", allowed) from None
    if not isinstance(body, dict):
        raise BadRequestError("body", "The body is no JSON object.", allowed)
    unknown = [name for name in body if name not in fields]
    if unknown:
        raise BadRequestError(unknown[0][:60], "This field is not known.", allowed)
    return body


def _reason(body: dict[str, Any]) -> str:
    return _word(body, "reason", "", MAX_REASON)


def _word(body: dict[str, Any], field: str, default: str, longest: int = 255) -> str:
    value = body.get(field, default)
    if not isinstance(value, str) or "\x00" in value or len(value) > longest:
        raise BadRequestError(field, "This is no text that fits.", f"up to {longest} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRequestError(field, "This is no valid Unicode.", "Unicode text") from None
    return value


def _plain(field: str, text: str) -> str:
    return _word({field: text}, field, "")


def _page(
    request: HttpRequest, rows: QuerySet[Row], name: str, as_json: Callable[[Row], dict[str, Any]]
) -> JsonResponse:
    """Rows below the `cursor` of the query, the newest first, and the cursor of the next page."""
    limit = _whole(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)
    if request.GET.get("cursor"):
        rows = rows.filter(pk__lt=_whole(request, "cursor", 1, 10**15))
    found = list(rows[: limit + 1])
    return JsonResponse({
        name: [as_json(row) for row in found[:limit]],
        "next": str(found[limit - 1].pk) if len(found) > limit else None,
    })  # fmt: skip


def _whole_zone(text: str) -> str:
    """With the + of its zone, which an address has to write as %2B and seldom does."""
    return text.replace(" ", "+") if "T" in text else text


def _whole(request: HttpRequest, field: str, default: int, most: int) -> int:
    text = request.GET.get(field, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 17 and 1 <= int(text) <= most):
        raise BadRequestError(field, f"{text[:60]!r} is out of range.", f"1 to {most}")
    return int(text)
