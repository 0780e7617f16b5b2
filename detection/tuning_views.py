"""Studies: the search for settings, its trials, and what made the difference.

Views parse, query, render. Starting and ending one is a POST by an operator.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from detection import study_queue, tuning, tuning_run
from detection.cancelling import ask_for_end
from detection.models import ModelVersion, Study
from streams.models import Series, Stream
from streams.roles import may_operate, operator_required
from streams.vectors import PREFIX

SHOWN, METRICS = 50, 200
FORM = {"stream": "", "metric": "", "trials": "20", "minutes": "10", "seed": "0"}


@login_required
@require_GET
def study_list(request: HttpRequest) -> HttpResponse:
    """All studies, the newest first, and the form that starts one."""
    return render(request, "detection/study_list.html", _list_context(request, FORM))


@require_POST
@operator_required
def study_start(request: HttpRequest) -> HttpResponseBase:
    """Make a study of what the form asks for and send word to a worker."""
    given = {name: request.POST.get(name, usual).strip() for name, usual in FORM.items()}
    try:
        study = tuning_run.ordered(
            given["stream"],
            given["metric"],
            trials=_whole("Trials", given["trials"]),
            seconds=60 * _number("Minutes", given["minutes"]) if given["minutes"] else None,
            seed=_whole("Seed", given["seed"]),
            requested_by=request.user.pk,
        )
    except tuning_run.StudyRefused as error:
        context = _list_context(request, given) | {"refused": str(error)}
        return render(request, "detection/study_list.html", context, status=400)
    if study_queue.wake(study.pk):
        messages.success(request, f"Study {study.pk} waits for a worker.")
    else:
        study_queue.cancel(study.pk)
        messages.error(request, "No worker can be told: Redis does not answer. Nothing was queued.")
    return redirect("study", pk=study.pk)


@require_POST
@operator_required
def study_cancel(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Ask for a study's end."""
    get_object_or_404(Study, pk=pk)
    ask_for_end(request, f"Study {pk}", lambda: study_queue.cancel(pk))
    return redirect("study", pk=pk)


@login_required
@require_GET
def study_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One study: its trials as a chart and a table, importance, the best beside the baseline."""
    rows = Study.objects.select_related("stream", "run", "requested_by")
    study = get_object_or_404(rows, pk=pk)
    model = None
    if study.model_id is not None:
        model = ModelVersion.objects.defer("artefact").filter(pk=study.model_id).first()
    elif study.run_id is not None:  # trained after the study's time was up
        model = ModelVersion.objects.defer("artefact").filter(run=study.run_id).first()
    rated = [t for t in study.trials if t["value"] is not None]
    best: dict[str, Any] = study.best or max(
        rated, key=lambda t: (t["value"], -t["number"]), default={}
    )
    context = {
        "study": study,
        "model": model,
        "active": study.status in study_queue.ACTIVE,
        "operator": may_operate(request.user),
        "best": best,
        "baseline": study.trials[0] if study.trials else {},
        "gain": _gain(study.trials, best),
        "chart": _chart(study.trials),
        "kinds": _kinds(study.trials[0] if study.trials else {}, best),
        "importance": tuning_run.by_importance(study),
        "seconds": sum(t["seconds"] for t in study.trials),
    }
    # The page of a study that runs asks for its own content again.
    part = request.headers.get("HX-Target") == "study"
    return render(request, f"detection/{'_study' if part else 'study'}.html", context)


def _list_context(request: HttpRequest, given: dict[str, str]) -> dict[str, Any]:
    studies = Study.objects.select_related("stream").order_by("-pk")[:SHOWN]
    metrics = Series.objects.exclude(metric__startswith=PREFIX).order_by("metric")
    return {
        "studies": [(study, study.trials[0] if study.trials else {}) for study in studies],
        "streams": Stream.objects.order_by("name"),
        "metrics": metrics.values_list("metric", flat=True).distinct()[:METRICS],
        "given": given,
        "operator": may_operate(request.user),
        "most_trials": tuning.MOST_TRIALS,
        "most_minutes": int(tuning.MOST_SECONDS / 60),
    }


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise tuning_run.StudyRefused(
            f"{name} is {text[:30]!r}: a whole number such as 20 is needed."
        ) from None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise tuning_run.StudyRefused(
            f"{name} is {text[:30]!r}: a number such as 10, or nothing, is needed."
        ) from None


def _gain(trials: list[dict[str, Any]], best: dict[str, Any]) -> float | None:
    if not trials or not best or trials[0]["value"] is None:
        return None
    return float(best["value"] - trials[0]["value"])


def _kinds(baseline: dict[str, Any], best: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(kind of fault, share found by the baseline, by the best)."""
    before = baseline.get("metrics", {}).get("recall", {})
    after = best.get("metrics", {}).get("recall", {})
    return [(kind, before.get(kind), after[kind]) for kind in sorted(after)]


def _tenth(value: float) -> float:
    return round(value, 1)


def _chart(trials: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Points in a box of 600 × 150, the best so far as steps, and the axis' ends."""
    values = [t["value"] for t in trials if t["value"] is not None]
    if not values:
        return None
    low, high = min(values), max(values)
    pad = max(0.02, 0.1 * (high - low))
    low, high = max(0.0, low - pad), min(1.0, high + pad)
    step = 600 / max(1, len(trials))

    def y(value: float) -> float:
        return _tenth(150 - 150 * (value - low) / (high - low))

    points, steps, best = [], "", None
    for trial in trials:
        x = _tenth((trial["number"] + 0.5) * step)
        value = trial["value"]
        if value is not None:
            points.append({"x": x, "y": y(value), "trial": trial})
            if best is None:
                best, steps = value, f"M{x} {y(value)}"
            best = max(best, value)
        if best is not None:
            steps += f"H{x}V{y(best)}"
    first = trials[0]["value"]
    return {
        "points": points, "steps": f"{steps}H600", "low": low, "high": high,
        "middle": (low + high) / 2, "baseline_y": None if first is None else y(first),
        "last": len(trials) - 1,
    }  # fmt: skip
