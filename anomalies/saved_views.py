"""Saving a list of anomalies by name; opening, sharing and deleting it; the one to begin with."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import IntegrityError, transaction
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from anomalies import saved
from anomalies.models import DefaultView, SavedView
from streams.roles import may_operate


@login_required
@require_GET
def view_open(request: HttpRequest, pk: int) -> HttpResponseBase:
    """A saved view's own address: it goes on working when the view is changed."""
    return redirect(saved.url_of(_visible(request, pk)))


@require_POST
@login_required
def view_save(request: HttpRequest) -> HttpResponseBase:
    """Keep a list by name; the name of one's own view changes that one."""
    name = " ".join(request.POST.get("name", "").replace("\x00", "").split())
    query = saved.tidy(request.POST.get("query", ""))
    shared = request.POST.get("shared") == "1"
    if problem := _problem(request, name, query, shared=shared):
        messages.error(request, f"Not saved: {problem}")
        return _list(query)
    try:
        with transaction.atomic():
            view, made = SavedView.objects.update_or_create(
                owner_id=request.user.pk, name=name, defaults={"query": query, "shared": shared}
            )
    except IntegrityError:  # saved twice at the same moment
        return _list(query)
    if request.POST.get("default") == "1":
        saved.make_default(view, request.user)
    messages.success(request, f"{'Saved' if made else 'Changed'}: the view {name}.")
    return redirect(saved.url_of(view))


@require_POST
@login_required
def view_default(request: HttpRequest, pk: int) -> HttpResponseBase:
    """The list opens with this view from now on; with `off` no more."""
    view = _visible(request, pk)
    if request.POST.get("off") == "1":
        DefaultView.objects.filter(user=request.user.pk, view=view).delete()
        messages.success(request, "The list opens with all anomalies again.")
    else:
        saved.make_default(view, request.user)
        messages.success(request, f"The list opens with {view.name} from now on.")
    return redirect(saved.url_of(view))


@require_POST
@login_required
def view_delete(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Delete one's own view; an admin also others' shared ones."""
    view = _visible(request, pk)
    if view.owner_id != request.user.pk and not request.user.is_superuser:
        raise Http404("This view is somebody else's.")
    view.delete()
    messages.success(request, f"Deleted: the view {view.name}.")
    return _list("")


def _problem(request: HttpRequest, name: str, query: str, *, shared: bool) -> str:
    if not name:
        return "a view needs a name."
    if len(name) > 60:
        return "a name has at most 60 characters."
    if len(query) > SavedView.LONGEST:
        return "these are too many filters for one view."
    if shared and not may_operate(request.user):
        return "only operators and admins share views. Save it for yourself."
    if SavedView.objects.filter(owner=request.user.pk).exclude(name=name).count() >= saved.MOST:
        return f"you have {saved.MOST} views. Delete one first."
    return ""


def _visible(request: HttpRequest, pk: int) -> SavedView:
    view = saved.visible(request.user).filter(pk=pk).first()
    if view is None:
        raise Http404("This view is gone, or not shared with you.")
    return view


def _list(query: str) -> HttpResponseBase:
    return redirect(f"{reverse('anomalies')}?{query or 'range=all'}")
