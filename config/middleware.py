"""Middleware of Vigil's own: a strict content security policy, static files under ASGI, and by
which door a change came."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile

from streams import audit

# No inline script or style and nothing from elsewhere. 'self' covers the page's own WebSocket.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
Respond = Callable[[HttpRequest], HttpResponseBase]


@sync_and_async_middleware
def content_security_policy(get_response: Respond) -> Callable[..., object]:
    def with_policy(response: HttpResponseBase) -> HttpResponseBase:
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response

    if iscoroutinefunction(get_response):
        respond: Callable[[HttpRequest], Awaitable[HttpResponseBase]] = get_response

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            return with_policy(await respond(request))

        return asynchronous

    return lambda request: with_policy(get_response(request))


@sync_and_async_middleware
def audited(get_response: Respond) -> Callable[..., object]:
    """What a request changes came by a page, by the admin or by the API."""

    def door(request: HttpRequest) -> str:
        return {"admin": "admin", "api": "api"}.get(request.path.split("/")[1], "page")

    if iscoroutinefunction(get_response):
        respond: Callable[[HttpRequest], Awaitable[HttpResponseBase]] = get_response

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            with audit.through(door(request)):
                return await respond(request)

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        with audit.through(door(request)):
            return get_response(request)

    return synchronous


class static_files(WhiteNoiseMiddleware):  # noqa: N801  (named in MIDDLEWARE like a function)
    """WhiteNoise, answering whole: its file iterators are synchronous, which ASGI can't stream."""

    def __init__(self, get_response: Respond) -> None:
        with warnings.catch_warnings():
            # Without `collectstatic` there is no folder of collected files, and none is missed.
            warnings.filterwarnings("ignore", message="No directory at")
            super().__init__(get_response)

    @staticmethod
    def serve(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
        found = static_file.get_response(request.method, request.META)
        body = b""
        if found.file is not None:
            with found.file as file:
                body = file.read()
        response = HttpResponse(body, status=int(found.status), content_type="")
        del response["Content-Type"]
        for key, value in found.headers:
            response[key] = value
        return response
