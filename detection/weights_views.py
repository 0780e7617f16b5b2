"""Learnt weights: what each stream's ensemble counts now, what was learnt, and which is in use.

Views parse, query, render. Every change is a POST by an operator.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from detection import learnt_weights
from detection.errors import TransitionRefused
from detection.models import LearntWeights, ScoringVersion
from detection.versions import ensemble_of
from streams.models import Stream
from streams.roles import may_operate, operator_required

SHOWN = 20


@login_required
@require_GET
def weights_list(request: HttpRequest) -> HttpResponse:
    """Each stream's ensemble of now, and the sets that were learnt for it, the newest first."""
    streams = [_stream(row) for row in Stream.objects.order_by("name")]
    context = {"streams": streams, "operator": may_operate(request.user)}
    return render(request, "detection/weights.html", context)


@require_POST
@operator_required
def weights_change(request: HttpRequest, pk: int, action: str) -> HttpResponseBase:
    """Use a set, or leave it for the configuration's weights."""
    if action not in ("use", "leave"):
        raise Http404(f"There is no {action} of weights.")
    row = get_object_or_404(LearntWeights.objects.select_related("stream"), pk=pk)
    actor = request.user.get_username()
    try:
        if action == "use":
            learnt_weights.use(pk, actor)
            said = f"Weights {pk} count for {row.stream.name}."
        else:
            learnt_weights.leave(pk, actor)
            said = f"The configuration's weights count for {row.stream.name} again."
        messages.success(request, f"{said} Consumers take it up within seconds.")
    except TransitionRefused as error:
        messages.warning(request, f"{str(error).capitalize()}.")
    return redirect("weights")


def _stream(stream: Stream) -> dict[str, Any]:
    newest = ScoringVersion.objects.filter(stream=stream).order_by("-pk").first()
    rows = list(LearntWeights.objects.filter(stream=stream).order_by("-pk")[:SHOWN])
    used = next((row for row in rows if row.state == LearntWeights.State.IN_USE), None)
    used = used or learnt_weights.in_use(stream)
    now: dict[str, Any] = {}
    if newest is not None:
        payload = dict(newest.payload) | {"learnt": None}
        if used is not None:
            payload["learnt"] = {"combine": used.method, "weights": used.weights,
                                 "gain": used.gain}  # fmt: skip
        ensemble = ensemble_of(payload)
        on = [name for name, given in payload["detectors"].items() if given.get("enabled")]
        weights = {name: ensemble.weights.get(name, 1.0) for name in on if name != "vector"}
        most = max(weights.values(), default=0.0) or 1.0
        ranked = sorted(weights.items(), key=lambda item: (-item[1], item[0]))
        now = {
            "method": ensemble.method, "gain": ensemble.gain,
            "weights": [(name, weight, weight / most) for name, weight in ranked],
        }  # fmt: skip
    return {"stream": stream, "now": now, "used": used, "sets": rows}
