"""Teams, hours and tags: their list, and a form for each."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from alerts import hours_form, spending, surroundings
from alerts.hours import DAYS
from alerts.hours_form import HoursForm
from alerts.models import Hours, Tag, Team
from alerts.surroundings import InUseError
from alerts.team_forms import TagForm, TeamForm
from streams.roles import may_operate, operator_required

MOST_TAGS = 500


@login_required
@require_GET
def setup_list(request: HttpRequest) -> HttpResponse:
    """Who is told and when."""
    return render(request, "alerts/setup_list.html", _list(request, TagForm()))


@login_required
@require_http_methods(["GET", "POST"])
def hours_edit(request: HttpRequest, pk: int | None = None) -> HttpResponseBase:
    """One timetable with its holidays; operators change it."""
    row = get_object_or_404(Hours, pk=pk) if pk is not None else None
    if request.method == "POST":
        return _hours_save(request, row)
    return _hours_page(request, row, hours_form.of_row(row))


@operator_required
def _hours_save(request: HttpRequest, row: Hours | None) -> HttpResponseBase:
    form = hours_form.of_post(request.POST, row)
    if form.row is None:
        return _hours_page(request, row, form, 400)
    surroundings.save(form.row, request.user, surroundings.facts(row) if row else None)
    messages.success(request, f"{form.row.name} is saved. It counts from now on.")
    return redirect("setup")


@login_required
@require_http_methods(["GET", "POST"])
def team_edit(request: HttpRequest, pk: int | None = None) -> HttpResponseBase:
    """One team; operators change it."""
    row = get_object_or_404(Team, pk=pk) if pk is not None else None
    if request.method == "POST":
        return _team_save(request, row)
    return _team_page(request, row, TeamForm(instance=row))


@operator_required
def _team_save(request: HttpRequest, row: Team | None) -> HttpResponseBase:
    before = surroundings.facts(row) if row else None
    form = TeamForm(request.POST, instance=row)
    if not form.is_valid():
        return _team_page(request, row, form, 400)
    team = form.save(commit=False)
    surroundings.save(team, request.user, before, form.cleaned_data["members"])
    messages.success(request, f"{team.name} is saved.")
    return redirect("setup")


@require_POST
@operator_required
def tag_new(request: HttpRequest) -> HttpResponseBase:
    """A further tag."""
    form = TagForm(request.POST)
    if not form.is_valid():
        return render(request, "alerts/setup_list.html", _list(request, form), status=400)
    surroundings.save(form.save(commit=False), request.user, None)
    messages.success(request, "The tag is saved: rules and silences can choose by it.")
    return redirect("setup")


@require_POST
@operator_required
def setup_delete(request: HttpRequest, what: str, pk: int) -> HttpResponseBase:
    """Delete a team, hours or a tag that nothing leans on."""
    models: dict[str, type[Any]] = {"hours": Hours, "team": Team, "tag": Tag}
    row = get_object_or_404(models[what], pk=pk)
    try:
        surroundings.delete(row, request.user)
    except InUseError as error:
        messages.error(request, str(error))
        return redirect(what, pk=pk)
    messages.success(request, f"{row} is deleted. The audit can make it again.")
    return redirect("setup")


def _list(request: HttpRequest, form: TagForm) -> dict[str, Any]:
    now = timezone.now()
    teams = Team.objects.order_by("name").annotate(
        people=Count("members", distinct=True), receivers=Count("receiver", distinct=True),
        rules=Count("rule", Q(rule__retired_at=None), distinct=True),
    )  # fmt: skip
    sent = spending.by_team(now)
    return {
        "teams": [(team, sent.get(team.pk, 0)) for team in teams],
        "hours": [(row, hours_form.standing(row, now)) for row in Hours.objects.order_by("name")],
        "tags": Tag.objects.order_by("key", "value", "stream", "source", "metric")[:MOST_TAGS],
        "tag": form, "operator": may_operate(request.user),
    }  # fmt: skip


def _hours_page(
    request: HttpRequest, row: Hours | None, form: HoursForm, status: int = 200
) -> HttpResponse:
    context = {
        "hours": row, "form": form, "days": DAYS, "operator": may_operate(request.user),
        "standing": hours_form.standing(row, timezone.now()) if row else None,
        "uses": surroundings.used_by(row) if row else [],
    }  # fmt: skip
    return render(request, "alerts/hours_edit.html", context, status=status)


def _team_page(
    request: HttpRequest, row: Team | None, form: TeamForm, status: int = 200
) -> HttpResponse:
    context = {
        # The form has written into the row what it could read.
        "team": Team.objects.get(pk=row.pk) if row else None, "form": form,
        "operator": may_operate(request.user), "uses": surroundings.used_by(row) if row else [],
        "sent": spending.by_team(timezone.now()).get(row.pk, 0) if row and row.pk else 0,
    }  # fmt: skip
    return render(request, "alerts/team_edit.html", context, status=status)
