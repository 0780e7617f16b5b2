"""Who may do what, by least rights: viewers read; operators (staff) also label, dismiss, train and
promote; admins (superusers) also configure, in the Django admin, whose own permissions say so."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.http.response import HttpResponseBase

View = Callable[..., HttpResponseBase]
REFUSAL = "Only operators and admins may change this. Ask an admin for the role of an operator."


def may_operate(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Whether this user is an operator or an admin."""
    return bool(
        user.is_active
        and (getattr(user, "is_staff", False) or getattr(user, "is_superuser", False))
    )


def operator_required(view: View) -> View:
    """A page for operators: others sign in, or get 403 with a sentence."""

    @login_required
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not may_operate(request.user):
            raise PermissionDenied(REFUSAL)
        return view(request, *args, **kwargs)

    return guarded
