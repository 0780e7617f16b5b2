"""The web process: HTTP by Django, WebSockets by each `<app>.sockets.websocket_urlpatterns`."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
os.environ.setdefault("VIGIL_PROCESS", "web")

from config.loading import refuse_if_invalid

refuse_if_invalid()

from django.core.asgi import get_asgi_application

# Django is set up here, before anything below imports a model.
_http = get_asgi_application()

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter

from config.signs import of_web
from detection import drift_gauges

# Here, not in the consumers: their metrics are their own, and must not need the database.
drift_gauges.register()


def _websocket_urls() -> list[Any]:
    urls: list[Any] = []
    for name in ("anomalies.sockets", "alerts.sockets"):
        if find_spec(name) is not None:
            urls += import_module(name).websocket_urlpatterns
    return urls


_routes = ProtocolTypeRouter(
    {
        "http": _http,
        # A browser sends cookies with a foreign page's WebSocket too: each socket checks the origin
        # (`anomalies.access`), which programs don't send.
        "websocket": AuthMiddlewareStack(URLRouter(_websocket_urls())),
    }
)

# A server calls it for each connection; the first one starts this process's signs of life.
application = of_web(_routes)
