"""Models: what was trained, from what, which one serves, and what was live when.

Views parse, query, render. Every change is a POST by an operator after a page that asks once more.
"""

from __future__ import annotations

from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from detection import catalogue, model_store, promotion, training_queue
from detection.cancelling import ask_for_end
from detection.drift import drift_context
from detection.errors import ArtefactError, TransitionRefused
from detection.forecast import first_trainings
from detection.gate import KIND_GATE
from detection.live_at import EXAMPLE, By, events_read, live_at, read_moment
from detection.models import ModelVersion, TrainingRun
from detection.promotion import GateFailed
from detection.registry import MODEL_DETECTORS
from detection.shadow import shadow_context
from detection.training_orders import OrderRefused, asked_for, new_order
from detection.training_run import order_of
from streams.models import Series, Stream
from streams.roles import may_operate, operator_required

RUNS, VERSIONS, METRICS = 15, 30, 200
AGAIN = (TrainingRun.Status.FAILED, TrainingRun.Status.CANCELLED, TrainingRun.Status.SKIPPED)
ACTIONS = {
    "promote": "Promote", "challenge": "Let it challenge", "retire": "Retire",
    "rollback": "Roll back",
}  # fmt: skip


# ---- The list -----------------------------------------------------------------------------------
@login_required
@require_GET
def model_list(request: HttpRequest) -> HttpResponse:
    """Every line with what scores, challenges and waits in it; training beside it."""
    return render(request, "detection/model_list.html", _list_context(request))


@login_required
@require_GET
def run_list(request: HttpRequest) -> HttpResponse:
    """The card of training runs, asked for again and again by the pages; models too once one
    of the runs that were active has ended."""
    context = _runs_context(request)
    if request.GET.get("active") == "1" and not context["active"]:
        context |= _list_context(request) | {"swap": True}
    return render(request, "detection/_runs.html", context)


@require_POST
@operator_required
def train(request: HttpRequest) -> HttpResponseBase:
    """Queue what the form asks for."""
    given = {name: request.POST.get(name, "") for name in ("stream", "metric", "algorithm")}
    try:
        stream, metric, algorithm = asked_for(**given)
    except OrderRefused as error:
        said = f"{error} There is: {error.allowed}."
        context = _list_context(request) | {"refused": said, "given": given}
        return render(request, "detection/model_list.html", context, status=400)
    order = new_order(settings.VIGIL, stream, algorithm, metric)
    record = training_queue.queue(
        order, trigger=TrainingRun.Trigger.BUTTON, requested_by=request.user.pk
    )
    messages.success(request, f"Training run {record.pk} waits for a worker.")
    return _back(request)


@require_POST
@operator_required
def run_cancel(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Ask for a run's end."""
    get_object_or_404(TrainingRun, pk=pk)
    who = request.user.get_username()
    ask_for_end(request, f"Training run {pk}", lambda: training_queue.cancel(pk, who))
    return _back(request)


@require_POST
@operator_required
def run_again(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Queue the order of a run that came to nothing once more."""
    record = get_object_or_404(TrainingRun.objects.select_related("stream"), pk=pk)
    if record.status not in AGAIN:
        messages.warning(request, f"Training run {pk} is {record.status}: nothing to repeat.")
        return redirect("models")
    try:
        order = order_of(record)
    except ValueError as error:
        messages.error(request, f"{str(error).capitalize()}: it can't be repeated.")
        return redirect("models")
    again = training_queue.queue(
        order, trigger=TrainingRun.Trigger.BUTTON, requested_by=request.user.pk
    )
    messages.success(request, f"Training run {again.pk} repeats run {pk} and waits for a worker.")
    return _back(request)


def _back(request: HttpRequest) -> HttpResponseBase:
    """To the page of the line that the form stood on, else to the list."""
    line = request.POST.get("line", "")
    pk = int(line) if line.isdecimal() and len(line) < 19 else 0
    known = pk and ModelVersion.objects.filter(pk=pk).exists()
    return redirect("model-line", pk=pk) if known else redirect("models")


def _list_context(request: HttpRequest) -> dict[str, Any]:
    now = timezone.now()
    lines, streams = catalogue.lines(), list(Stream.objects.order_by("name"))
    trained = {(line.stream, line.algorithm) for line in lines if not line.metric}
    enabled = settings.VIGIL.anomaly_detection.detectors.enabled
    metrics = Series.objects.order_by("metric").values_list("metric", flat=True).distinct()
    return _runs_context(request) | {
        "lines": lines,
        "versions": ModelVersion.objects.count(),
        "forecasts": first_trainings(
            streams, [n for n in enabled if n in MODEL_DETECTORS], trained, now
        ),
        "streams": streams,
        "metrics": metrics[:METRICS],
        "algorithms": sorted(MODEL_DETECTORS),
        "off": [name for name in sorted(MODEL_DETECTORS) if name not in enabled],
        "now": now,
    }


def _runs_context(request: HttpRequest) -> dict[str, Any]:
    rows = list(catalogue.runs()[:RUNS])
    active = [row for row in rows if row.status in catalogue.ACTIVE]
    return {
        "runs": rows, "active": active, "operator": may_operate(request.user),
        "stages": catalogue.STAGE_NAMES, "every_s": 2 if active else 15,
    }  # fmt: skip


# ---- One version --------------------------------------------------------------------------------
@login_required
@require_GET
def model_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One version: figures, manifest, tests, changes, and the others of its line."""
    row = _version(pk)
    line = model_store.line_of(row.stream, row.metric, row.algorithm).select_related("run")
    previous = None
    if row.state == ModelVersion.State.CHAMPION:
        previous = model_store.previous_champion(row.stream, row.metric, row.algorithm)
    context = {
        "model": row, "figures": catalogue.figures(row.manifest), "versions": line[:VERSIONS],
        "transitions": row.transitions.order_by("-pk")[:50],
        # The gate's verdict has a card of its own.
        "tests": catalogue.tests(row, without=KIND_GATE),
        "facts": _manifest(row), "metrics": sorted((row.manifest.get("metrics") or {}).items()),
        "actions": _actions(row), "previous": previous, "operator": may_operate(request.user),
        "shadow": shadow_context(row) if row.state == ModelVersion.State.CHALLENGER else None,
        "drift": drift_context(row) if row.state == ModelVersion.State.CHAMPION else None,
    }  # fmt: skip
    return render(request, "detection/model_detail.html", context)


@login_required
@require_GET
def model_shadow(request: HttpRequest, pk: int) -> HttpResponse:
    """A version beside the champion: where the two differ, and what the gate says."""
    model = _version(pk)
    context = {"model": model, "title": "Challenger", "part": "detection/_shadow.html"}
    shadow = {"shadow": shadow_context(model)}
    return render(request, "detection/model_part.html", context | shadow)


@login_required
@require_GET
def model_drift(request: HttpRequest, pk: int) -> HttpResponse:
    """How far live events have moved from those that a version was trained on."""
    model = _version(pk)
    context = {"model": model, "title": "Drift", "part": "detection/_drift.html"}
    return render(request, "detection/model_part.html", context | {"drift": drift_context(model)})


@require_http_methods(["GET", "HEAD", "POST"])
@operator_required
def model_change(request: HttpRequest, pk: int, action: str) -> HttpResponseBase:
    """GET asks once more and shows what will come of it; POST does it."""
    if action not in ACTIONS:
        raise Http404(f"There is no {action} of a model.")
    row = _version(pk)
    line = (row.stream, row.metric, row.algorithm)
    champion = model_store.champion(*line)
    previous = model_store.previous_champion(*line) if action == "rollback" else None
    context: dict[str, Any] = {
        "model": row, "action": action, "label": ACTIONS[action], "champion": champion,
        "previous": previous, "figures": catalogue.figures(row.manifest),
        "champion_figures": catalogue.figures(champion.manifest) if champion else None,
    }  # fmt: skip
    if request.method == "POST":
        try:
            said = _change(request, row, action)
        except GateFailed as error:
            context |= {"verdict": error.verdict, "refused": str(error)}
            return render(request, "detection/model_change.html", context, status=409)
        except (ArtefactError, TransitionRefused) as error:
            context |= {"refused": f"It stays as it was. {error}."}
            return render(request, "detection/model_change.html", context, status=409)
        messages.success(request, said)
        return redirect("model", pk=pk)
    if action == "promote" and not promotion.was_champion(row):
        try:
            context["verdict"] = promotion.verdict_of(row)
        except ArtefactError as error:
            context["refused"] = f"{error}."
    return render(request, "detection/model_change.html", context)


def _change(request: HttpRequest, row: ModelVersion, action: str) -> str:
    actor, reason = request.user.get_username(), request.POST.get("reason", "").strip()[:2_000]
    reason = reason.replace("\x00", "")
    name = f"v{row.version}"
    if action == "promote":
        anyway = request.POST.get("anyway") == "1"
        promotion.promote(row.pk, actor=actor, reason=reason, anyway=anyway)
        return f"{name} is the champion. Consumers take it up within seconds."
    if action == "challenge":
        model_store.challenge(row.pk, actor=actor, reason=reason)
        return f"{name} scores beside the champion and alerts nobody."
    if action == "retire":
        model_store.retire(row.pk, actor=actor, reason=reason)
        return f"{name} is retired."
    done = model_store.roll_back(
        row.stream, row.metric, row.algorithm, actor=actor, reason=reason,
        to_none=request.POST.get("to") == "none", away_from=row.pk,
    )  # fmt: skip
    if done.back is None:
        return f"{name} left; the other detectors score without a stored model."
    return f"v{done.back.version} is the champion again. Consumers take it up within seconds."


def _version(pk: int) -> ModelVersion:
    rows = catalogue.versions().select_related("stream", "run__requested_by", "parent")
    return get_object_or_404(rows.defer("artefact", "parent__artefact"), pk=pk)


def _actions(row: ModelVersion) -> list[tuple[str, str]]:
    """What may be done with a version in its state: (name, label)."""
    state, of = row.state, ModelVersion.State
    if state == of.CHAMPION:
        return [("rollback", "Roll back"), ("retire", "Retire")]
    names = ["promote", "challenge", "retire"]
    if state == of.CHALLENGER:
        names.remove("challenge")
    if state == of.RETIRED:
        names.remove("retire")
    return [(name, ACTIONS[name]) for name in names]


def _manifest(row: ModelVersion) -> list[tuple[str, Any]]:
    """The manifest as lines that people read; what it does not say has no line."""
    said = row.manifest
    libraries = said.get("libraries") or {}
    params = said.get("params") or {}
    offsets = said.get("offsets") or {}
    lines = [
        ("sha256", row.sha256),
        ("Libraries", ", ".join(f"{name} {version}" for name, version in libraries.items())),
        ("Features", ", ".join(said.get("feature_names") or ())),
        ("Feature version", said.get("feature_version")),
        ("Settings", ", ".join(f"{name} {value}" for name, value in params.items())),
        ("Seed", said.get("seed")),
        ("Events", f"{said['events']:,} of {said.get('series', 0):,} series"
                   if "events" in said else None),
        ("Rows", f"{said['rows_used']:,}" if "rows_used" in said else None),
        ("Left out", f"{said.get('events_warming', 0):,} warming up, "
                     f"{said['events_in_anomalies']:,} in confirmed anomalies, "
                     f"{said.get('events_sampled_out', 0):,} by sampling"
                     if "events_in_anomalies" in said else None),
        ("Held out", f"the last {said['holdout']:.0%} in time" if "holdout" in said else None),
        ("Offsets", ", ".join(f"{p}: {start:,} to {end:,}"
                              for p, (start, end) in list(offsets.items())[:32])),
        ("Time zone", said.get("time_zone")),
    ]  # fmt: skip
    return [(name, value) for name, value in lines if value not in (None, "")]


# ---- What was live ------------------------------------------------------------------------------
@login_required
@require_GET
def live(request: HttpRequest) -> HttpResponse:
    """What scored at a moment; a plain form, so the answer has an address."""
    text, by = request.GET.get("at", ""), request.GET.get("by", "clock")
    by = by if by in ("clock", "event") else "clock"
    context: dict[str, Any] = {"by": by, "at": text, "example": EXAMPLE}
    moment = timezone.now()
    status = 200
    if text:
        try:
            moment = read_moment(text)
        except ValueError as error:
            context["refused"], status = f"{error}.", 400
    if status == 200:
        found = live_at(moment, cast(By, by))
        known = {m["id"] for live in found for one in live.versions for m in one.models}
        stored = ModelVersion.objects.filter(pk__in=known).values_list("pk", flat=True)
        context |= {
            "moment": moment, "found": found, "stored": set(stored),
            "read": events_read(moment) if by == "clock" else None,
        }  # fmt: skip
        local = timezone.localtime(moment)
        context["at"] = f"{local:%Y-%m-%dT%H:%M}"
    return render(request, "detection/live_at.html", context, status=status)
