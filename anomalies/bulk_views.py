"""Labelling many anomalies at once: a question that says how many, the deed, and its undoing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from anomalies import bulk, detail, listing, saved
from anomalies.forms import FilterForm
from anomalies.htmx import HtmxRequest
from anomalies.models import Anomaly
from streams.roles import operator_required

MOST_IDS = 1_000
WORDS = {value: word for value, word, _, _ in detail.LABELS} | {"": "Not labelled"}
EFFECTS = {
    "real": "They are left out of training, and count for the detectors that voted for them.",
    "false_alarm": "They count against the detectors that voted for them.",
    "expected": "Detectors take their values for normal from now on, each in its own series; what"
                " a consumer has learnt by the time you undo it stays.",
    "": "Their labels are taken away, whoever gave them.",
}  # fmt: skip


@require_POST
@operator_required
def bulk_label(request: HtmxRequest) -> HttpResponseBase:
    """Ask with the number; with `sure` do it, and lead back to the list with a way to undo."""
    label = request.POST.get("label", "")
    if label not in Anomaly.Label.values:
        return _refused(request, "The label is real, false_alarm, expected or empty.")
    query = saved.tidy(request.POST.get("query", ""))
    chosen = _chosen(request, query)
    if isinstance(chosen, str):
        return _refused(request, chosen)
    if request.POST.get("sure") == "1" and request.user.is_authenticated:
        try:
            done, changed = bulk.apply(chosen, label, request.user)
        except bulk.TooManyError as error:
            return _refused(request, str(error))
        return _back(request, f"{query}{'&' if query else ''}done={done.pk}" if changed else query)
    return render(request, _template(request), _question(request, chosen, label, query))


@require_POST
@operator_required
def bulk_undo(request: HtmxRequest, pk: int) -> HttpResponseBase:
    """Take a bulk label of one's own back."""
    query = saved.tidy(request.POST.get("query", ""))
    found = bulk.of(request.user, pk)
    if found is None:
        messages.error(request, "Nothing was undone: it was before, or is more than a week ago.")
        return _back(request, query)
    changed = bulk.undo(found)
    messages.success(
        request, f"Undone: {changed:,} anomal{'y has' if changed == 1 else 'ies have'} the label of"
        " before again."
    )  # fmt: skip
    return _back(request, query)


def _chosen(request: HtmxRequest, query: str) -> QuerySet[Anomaly] | str:
    """What the form names, or the sentence that says what is wrong with it."""
    if request.POST.get("all") == "1":
        # What arrives after the question is not among what was counted.
        until = _moment(request.POST.get("until", "")) or timezone.now()
        filters = FilterForm(QueryDict(query)).filters()
        return listing.chosen(replace(filters, stored_until=until))
    given = request.POST.getlist("id")[: MOST_IDS + 1]
    if not given:
        return "No anomaly is chosen: tick some, or take all that match."
    if len(given) > MOST_IDS:
        return f"At most {MOST_IDS:,} by their ids."
    try:
        return Anomaly.objects.filter(pk__in={UUID(text) for text in given})
    except ValueError:
        return "One of the ids is no anomaly's."


def _question(
    request: HtmxRequest, chosen: QuerySet[Anomaly], label: str, query: str
) -> dict[str, Any]:
    most = bulk.most_of(label)
    rows = chosen.order_by()
    changed = rows.exclude(label=label)[: most + 1].count()
    others = rows.exclude(label__in=["", label])[: most + 1].count()
    whole = request.POST.get("all") == "1"
    return {
        "label": label, "word": WORDS[label], "effect": EFFECTS[label], "changed": changed,
        "others": others, "most": most, "too_many": changed > most, "query": query, "all": whole,
        "ids": [] if whole else request.POST.getlist("id"),
        "until": request.POST.get("until") or timezone.now().isoformat(),
    }  # fmt: skip


def _refused(request: HtmxRequest, why: str) -> HttpResponse:
    context = {"refused": why, "query": saved.tidy(request.POST.get("query", ""))}
    # htmx swaps no answer of 400, and this one is for people.
    return render(request, _template(request), context, status=200 if request.htmx else 400)


def _template(request: HtmxRequest) -> str:
    return f"anomalies/{'_partials/bulk_question' if request.htmx else 'bulk_label'}.html"


def _back(request: HtmxRequest, query: str) -> HttpResponseBase:
    # An empty query would open the default view.
    url = f"{reverse('anomalies')}?{query or 'range=all'}"
    if request.htmx:
        return HttpResponse(status=204, headers={"HX-Redirect": url})
    return redirect(url)


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        return None
    return found if found.tzinfo and 1900 < found.year < 9000 else None
