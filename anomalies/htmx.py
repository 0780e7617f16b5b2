"""Requests as django-htmx' middleware leaves them."""

from __future__ import annotations

from django.http import HttpRequest
from django_htmx.middleware import HtmxDetails


class HtmxRequest(HttpRequest):
    """A request that knows whether htmx sent it."""

    htmx: HtmxDetails


def wants_part(request: HtmxRequest) -> bool:
    """Whether only a part of the page is asked for."""
    return bool(request.htmx) and not request.htmx.boosted
