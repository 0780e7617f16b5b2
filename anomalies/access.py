"""Who may call the API and the live socket: a session, a token, or in open mode this machine.

Open mode is guarded against other web pages: a browser on this machine could be told to call
us, so the host and the origin must be local names too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from hmac import compare_digest
from urllib.parse import urlsplit

from django.conf import settings

LOCAL_NAMES = {"localhost", "127.0.0.1", "::1", "[::1]"}


def open_to(client: str | None, headers: Mapping[str, str]) -> bool:
    """Whether open mode lets this caller in; `headers` have lower-case names."""
    if not settings.VIGIL.api.open or not _is_loopback(client):
        return False
    # A proxy on this machine makes everybody look local.
    if "x-forwarded-for" in headers or "forwarded" in headers:
        return False
    host = headers.get("host", "")
    if _host_name(host) not in LOCAL_NAMES:
        return False
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    return same_origin(headers)


def same_origin(headers: Mapping[str, str]) -> bool:
    """Whether the `Origin` a browser names is this site; programs send none, which is fine."""
    origin = headers.get("origin")
    if origin is None:
        return True
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return True
    return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()


def token_of(headers: Mapping[str, str]) -> str | None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def token_is_valid(token: str | None) -> bool:
    """Against `api.token`, where the configuration has one."""
    secret = getattr(settings.VIGIL.api, "token", None)
    if token is None or secret is None:
        return False
    known = secret.get_secret_value() if hasattr(secret, "get_secret_value") else str(secret)
    return bool(known) and compare_digest(known.encode(), token.encode())


def _is_loopback(client: str | None) -> bool:
    try:
        return client is not None and ipaddress.ip_address(client).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()
