"""A short id for each request: in the header of its answer, on error pages and in logs."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

HEADER = "X-Request-ID"
_current: ContextVar[str] = ContextVar("request_id", default="")


def current() -> str:
    """The id of the request that is being answered; empty outside of one."""
    return _current.get()


@sync_and_async_middleware
def request_id(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[..., object]:
    if iscoroutinefunction(get_response):
        respond: Callable[[HttpRequest], Awaitable[HttpResponseBase]] = get_response

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            _current.set(secrets.token_hex(4))
            response = await respond(request)
            response.headers[HEADER] = current()
            return response

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        token = _current.set(secrets.token_hex(4))
        try:
            response = get_response(request)
            response.headers[HEADER] = current()
        finally:
            _current.reset(token)
        return response

    return synchronous
