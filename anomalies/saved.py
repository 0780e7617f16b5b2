"""Lists of anomalies that people keep by name: their own, those that are shared, and the one that
the list opens with."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db.models import Q, QuerySet
from django.http import QueryDict
from django.urls import reverse

from anomalies.forms import PLACE
from anomalies.models import DefaultView, SavedView

MOST = 100


@dataclass(frozen=True, slots=True)
class Views:
    """What the menu of views shows a user."""

    own: list[SavedView]
    shared: list[SavedView]
    default: int | None

    @property
    def all(self) -> list[SavedView]:
        return [*self.own, *self.shared]


def views_of(user: AbstractBaseUser | AnonymousUser) -> Views:
    """The user's own views by name, then others' that are shared."""
    rows = list(visible(user).select_related("owner").order_by("name", "pk")[: 2 * MOST])
    default = DefaultView.objects.filter(user=user.pk).values_list("view_id", flat=True).first()
    return Views(
        [row for row in rows if row.owner_id == user.pk],
        [row for row in rows if row.owner_id != user.pk], default,
    )  # fmt: skip


def visible(user: AbstractBaseUser | AnonymousUser) -> QuerySet[SavedView]:
    return SavedView.objects.filter(Q(owner=user.pk) | Q(shared=True))


def default_of(user: AbstractBaseUser | AnonymousUser) -> SavedView | None:
    """The view the list opens with, as long as the user may see it."""
    return visible(user).filter(defaultview__user=user.pk).first()


def make_default(view: SavedView, user: AbstractBaseUser | AnonymousUser) -> None:
    """Let the list open with this view."""
    if user.pk is not None:
        DefaultView.objects.update_or_create(user_id=user.pk, defaults={"view": view})


def tidy(query: str) -> str:
    """A list's query without what belongs to a place in it; empty where it can't be read."""
    given = QueryDict(query.replace("\x00", ""), mutable=True)
    for name in [name for name, value in given.items() if name in PLACE or not value]:
        del given[name]
    return given.urlencode()


def url_of(view: SavedView) -> str:
    """The list's address by a saved view."""
    return f"{reverse('anomalies')}?{view.query}{'&' if view.query else ''}view={view.pk}"
