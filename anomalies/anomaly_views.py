"""The list of anomalies, its exports, and the page of one of them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from anomalies import (
    bulk,
    detail,
    export,
    feed,
    feedback,
    listing,
    missing,
    notes,
    proposals,
    saved,
    surroundings,
)
from anomalies.forms import FilterForm
from anomalies.htmx import HtmxRequest, wants_part
from anomalies.models import Anomaly, BulkLabel, SavedView
from anomalies.units import unit_of
from streams import reread
from streams.roles import may_operate, operator_required

WINDOWS = {"1h": 3_600, "6h": 21_600, "24h": 86_400, "7d": 604_800}
MARKS = ("before", "after")
EVENT_SHOWN = 8_192  # bytes of a raw event


# ---- The list -----------------------------------------------------------------------------------
@login_required
@require_GET
def anomaly_list(request: HtmxRequest) -> HttpResponseBase:
    if not request.GET and (view := saved.default_of(request.user)):
        return redirect(saved.url_of(view))
    form = FilterForm(request.GET)
    filters = form.filters()
    before, after = (request.GET.get(name, "") for name in MARKS)
    page = listing.page_of(filters, sort=form.sort, before=before, after=after)
    if not page.rows and (before or after):  # all beyond it are gone: from the top again
        page = listing.page_of(filters, sort=form.sort)
    views = saved.views_of(request.user)
    context: dict[str, Any] = {
        "form": form, "page": page,
        "count": listing.count(filters), "most": listing.COUNTED, "sorts": listing.SORTS,
        "views": views, "view": _shown_view(request, views), "labels": detail.LABELS,
        "operator": may_operate(request.user), "done": _done(request),
    }  # fmt: skip
    name = "_partials/listing.html" if wants_part(request) else "anomaly_list.html"
    return render(request, f"anomalies/{name}", context)


def _shown_view(request: HttpRequest, views: saved.Views) -> SavedView | None:
    asked = request.GET.get("view", "")
    return next((v for v in views.all if str(v.pk) == asked), None)


def _done(request: HttpRequest) -> tuple[BulkLabel, int] | None:
    """A bulk label just given, by whoever gave it, for as long as it can be taken back."""
    asked = request.GET.get("done", "")
    if not (asked.isascii() and asked.isdigit() and len(asked) < 18):
        return None
    found = bulk.of(request.user, int(asked))
    return (found, found.labelled.count()) if found else None


@login_required
@require_GET
def anomaly_export(request: HttpRequest, form: str) -> HttpResponseBase:
    """All that match the filters of the address, as a file of any size in little memory."""
    if form not in export.LINES:
        raise Http404("Exports are csv and jsonl.")
    narrowed = FilterForm(request.GET)
    response = StreamingHttpResponse(
        export.stream(narrowed.filters(), narrowed.sort, form), content_type=export.TYPES[form]
    )
    response["Content-Disposition"] = f'attachment; filename="{export.name_of(form)}"'
    response["Cache-Control"] = "no-store"
    return response


@login_required
@require_GET
def anomalies_since(request: HttpRequest) -> JsonResponse:
    """What a page missed while it was cut off, by the token of the place it stands at."""
    missed = feed.since(request.GET.get("token", ""), FilterForm(request.GET).filters())
    if missed is None:
        return JsonResponse(
            {"error": {"field": "token", "message": "No resume token of this site.",
                       "allowed": "the token of the page or of the last answer"}}, status=400,
        )  # fmt: skip
    return JsonResponse(
        {
            "anomalies": missed.anomalies,
            "token": missed.token,
            "count": missed.count,
            "truncated": missed.truncated,
        }
    )


@login_required
@require_GET
def anomalies_worst(request: HttpRequest) -> HttpResponse:
    """The worst of what matches, in words: a lane's cell asks once somebody looks at it."""
    form = FilterForm(request.GET)
    found = listing.page_of(form.filters(), sort=listing.SORTS["score"], size=1).rows
    if not found:
        return HttpResponse(status=204)
    (worst,) = found
    context = {"a": worst, "unit": unit_of(worst.metric), "named": not form.source}
    if worst.kind == "missing":
        context["silent_s"] = missing.lasted_s(worst, timezone.now())
    return render(request, "anomalies/_partials/worst.html", context)


# ---- One anomaly --------------------------------------------------------------------------------
@login_required
@require_GET
def anomaly_detail(request: HtmxRequest, pk: UUID) -> HttpResponse:
    anomaly = get_object_or_404(
        Anomaly.objects.select_related(
            "stream", "series", "labelled_by", "incarnation", "scoring_version"
        ),
        pk=pk,
    )
    asked = request.GET.get("window", "")
    window = asked if asked in WINDOWS else "1h"
    form = FilterForm(request.GET)
    context = detail.chart(anomaly, window, WINDOWS[window]) | {
        "anomaly": anomaly, "window": window, "windows": list(WINDOWS), "form": form,
        "unit": unit_of(anomaly.metric),
    }  # fmt: skip
    if request.htmx and request.htmx.target == "chart":
        return render(request, "anomalies/_partials/anomaly_chart.html", context)
    if request.GET.get("look") == "now":
        surroundings.of(anomaly)
    above, below = listing.neighbours(anomaly, form.filters(), form.sort)
    context |= detail.facts(anomaly) | detail.why(anomaly) | {
        "proposal": proposal_of(anomaly), "above": above, "below": below,
        "labels": detail.LABELS, "operator": may_operate(request.user),
        "notes": notes.of(anomaly), "edited": request.GET.get("edit", ""),
        "place": _place(anomaly, form),
    }  # fmt: skip
    return render(request, "anomalies/anomaly_detail.html", context)


def _place(anomaly: Anomaly, form: FilterForm) -> dict[str, Any] | None:
    """Where it stands in a short list that it was opened from."""
    if not form.narrowed:
        return None
    found, most = listing.chosen(form.filters()), 1_000
    of = found.order_by()[: most + 1].count()
    if of > most or not found.filter(pk=anomaly.pk).exists():
        return None
    above = found.filter(form.sort.beyond(form.sort.place(anomaly), backwards=True)).count()
    number = form.incident.upper().removeprefix("INC-")
    name = f"INC-{number}" if number.isdigit() else "Matching"
    return {"name": name, "at": above + 1, "of": of}


@require_POST
@operator_required
def anomaly_label(request: HtmxRequest, pk: UUID) -> HttpResponseBase:
    """Store what a person says of an anomaly; the empty label takes it back."""
    label = request.POST.get("label", "")
    if label not in Anomaly.Label.values:
        return HttpResponse("The label is real, false_alarm, expected or empty.", status=400)
    user = request.user if request.user.is_authenticated else None
    try:
        anomaly = feedback.set_label(pk, label, user)
    except Anomaly.DoesNotExist:
        raise Http404("No anomaly has this id.") from None
    if request.htmx and request.htmx.target and request.htmx.target.startswith("label-"):
        return render(request, "anomalies/_partials/label_cell.html", {"a": anomaly})
    if request.htmx:
        context = {
            "anomaly": anomaly, "labels": detail.LABELS, "proposal": proposal_of(anomaly),
            "operator": True,
        }  # fmt: skip
        return render(request, "anomalies/_partials/label.html", context)
    return redirect("anomaly", pk=pk)


@login_required
@require_GET
def anomaly_why(request: HtmxRequest, pk: UUID) -> HttpResponse:
    """What stored rows say of an anomaly; the page asks for it where it is not stored yet."""
    rows = Anomaly.objects.select_related("stream", "series", "scoring_version")
    anomaly = get_object_or_404(rows, pk=pk)
    anomaly.evidence = surroundings.of(anomaly)
    # An open one asks again and again: what stands above it moves as well.
    context: dict[str, Any] = {"anomaly": anomaly, "again": True}
    context |= detail.facts(anomaly) | detail.why(anomaly)
    return render(request, "anomalies/_partials/why.html", context)


@login_required
@require_GET
def anomaly_event(request: HtmxRequest, pk: UUID) -> HttpResponse:
    """The event that an anomaly begins with, as it stands in Kafka now."""
    rows = Anomaly.objects.select_related("stream", "incarnation")
    anomaly = get_object_or_404(rows, pk=pk)
    place = anomaly.stream, anomaly.incarnation, anomaly.partition, anomaly.offset
    stream, life, partition, offset = place
    if stream is None or life is None or partition is None or offset is None:
        raise Http404("Nobody read this one from Kafka.")
    found = reread.read_again(
        settings.VIGIL.kafka.client_config(), stream.topic, life.topic_id, partition, offset
    )
    context = {"anomaly": anomaly, "found": found, "most": EVENT_SHOWN}
    if found.value is not None:
        context |= {"text": reread.as_text(found.value[:EVENT_SHOWN]), "size": len(found.value)}
    if found.key is not None:
        context["key"] = reread.as_text(found.key[:200])
    name = "_partials/raw_event.html" if wants_part(request) else "raw_event.html"
    return render(request, f"anomalies/{name}", context)


def proposal_of(anomaly: Anomaly) -> proposals.Proposal | None:
    return proposals.propose(anomaly.series) if anomaly.label and anomaly.series else None
