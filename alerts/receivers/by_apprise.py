"""The rest, by Apprise: services whose host the vendor fixes.

Generic schemas (json, xml, form, mailto …) and all that name a host of one's own are refused. What
is left still connects under our guard: Apprise's requests go through urllib3, whose
``create_connection`` asks it where one stands in the present context.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from urllib3.util import connection as urllib3_connection

from alerts import outgoing
from alerts.message import Message
from alerts.outgoing import Client, Guard
from alerts.receivers.base import Field, Kind, Outcome, Result, Secrets, Settings, clipped

# Services of the machine itself, those that read files, and those that speak no HTTP.
REFUSED = frozenset({"syslog", "vapid", "fcm", "nostr", "aprs", "dbus", "kde", "glib", "qt",
                     "gnome", "macosx", "windows", "ses", "sns", "zulip"})  # fmt: skip
# Arguments that name files, or addresses to fetch, or another place to send to.
ARGUMENTS = frozenset({"template", "keyfile", "subfile", "attach", "include", "config", "image_url",
                       "relay", "blossom", "avatar_url", "verify", "redirect", "env",
                       "media", "store"})  # fmt: skip
_HOSTS = re.compile(r"\{(host|hostname|domain|smtp\w*|url|path|fullpath)\}")
_guard: ContextVar[tuple[Guard, float] | None] = ContextVar("guard", default=None)


class Apprise(Kind):
    kind = "apprise"
    about = "Discord, Pushover, Opsgenie, Twilio and many more, by an Apprise address."
    fields = (
        Field("url", "Apprise address", "secret", required=True, longest=2_000,
              help="discord://… or pover://…: services with a fixed host, no json:// or mailto://."),
    )  # fmt: skip

    def problems(self, settings: Settings, secrets: Secrets) -> dict[str, str]:
        url = secrets.get("url", "")
        if url.startswith(("env:", "file:")):
            return {}
        problem = url_problem(url)
        return {"url": problem} if problem else {}

    def send(self, message: Message, settings: Settings, secrets: Secrets,
             client: Client) -> Result:  # fmt: skip
        import apprise  # half a second: only who sends by it waits for it

        url = secrets.get("url", "")
        if problem := url_problem(url):
            return Result(Outcome.PERMANENT, "refused", problem)
        service: Any = apprise.Apprise.instantiate(url, asset=_asset(), suppress_exceptions=True)
        links = "\n".join(f"{label}: {where}" for label, where in message.links)
        body = f"{message.body}\n\n{links}" if links else message.body
        kind = apprise.NotifyType.SUCCESS if message.over else (
            apprise.NotifyType.FAILURE if message.severity >= 3 else apprise.NotifyType.WARNING
        )  # fmt: skip
        with _guarded(client.guard, client.total_s), _listening() as said:
            try:
                done = service.notify(title=message.subject, body=body, notify_type=kind)
            except outgoing.ForbiddenAddressError as error:
                return Result(Outcome.PERMANENT, "refused", str(error))
            except Exception as error:  # a plugin's fault is none of the worker's
                return Result(Outcome.TRANSIENT, "failed", f"{type(error).__name__} in the service")
            words = " ".join(" ".join(said).split())
        if done:
            return Result(Outcome.OK, "sent", "")
        # Apprise does not tell why in a form for programs; its log does, in words.
        return Result(_outcome(words), "failed", clipped(words or "The service refused it.", 400))


def url_problem(url: str) -> str:
    """What is wrong with an Apprise address; empty where it may be used."""
    import apprise

    schema = url.partition("://")[0].lower()
    if schema not in schemas():
        if schema in ("https", "http", "json", "jsons", "xml", "xmls", "form", "forms"):
            return "For an address of your own take the kind Webhook: it is signed."
        if schema in ("mailto", "mailtos"):
            return "For e-mails take the kind E-mail."
        return ("Only services with a host that the vendor fixes: discord://, pover://,"
                " opsgenie://, twilio:// and others of Apprise.")  # fmt: skip
    try:
        given = {name.lower().lstrip("+-:") for name, _ in parse_qsl(urlsplit(url).query)}
    except ValueError:
        return "This is no Apprise address."
    if refused := sorted(given & ARGUMENTS):
        return f"The argument {refused[0]} can't be used here."
    try:
        service = apprise.Apprise.instantiate(url, asset=_asset(), suppress_exceptions=True)
    except Exception:  # plugins read what they are given in many ways
        service = None
    return "" if service else f"This is no complete address of {schema}://."


@lru_cache(maxsize=1)
def schemas() -> frozenset[str]:
    """Schemas of services none of whose address forms names a host."""
    import apprise

    found: set[str] = set()
    for entry in apprise.Apprise().details()["schemas"]:
        names = {*(entry["protocols"] or ()), *(entry["secure_protocols"] or ())}
        forms = entry["details"]["templates"]
        if not names & REFUSED and not any(_HOSTS.search(form) for form in forms):
            found |= {str(name) for name in names}
    return frozenset(found)


@lru_cache(maxsize=1)
def _asset() -> Any:
    import apprise

    return apprise.AppriseAsset(app_id="Vigil", app_desc="Vigil", app_url="", secure_logging=True)


def _outcome(words: str) -> Outcome:
    if re.search(r"\berror=4(0[0-7]|1\d|22)\b", words):
        return Outcome.PERMANENT
    return Outcome.SLOW_DOWN if re.search(r"\berror=429\b", words) else Outcome.TRANSIENT


@contextmanager
def _guarded(guard: Guard, seconds: float) -> Iterator[None]:
    token = _guard.set((guard, time.monotonic() + seconds))
    try:
        yield
    finally:
        _guard.reset(token)


class _Listener(logging.Handler):
    """What Apprise's log says on one thread: others send to others meanwhile."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.said.append(record.getMessage())


@contextmanager
def _listening() -> Iterator[list[str]]:
    listener, log = _Listener(), logging.getLogger("apprise")
    log.addHandler(listener)
    try:
        yield listener.said
    finally:
        log.removeHandler(listener)


_original = urllib3_connection.create_connection


def _create_connection(address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
    """urllib3's own, to an address that was looked at where a guard stands."""
    standing = _guard.get()
    if standing is None:
        return _original(address, *args, **kwargs)
    guard, deadline = standing
    host, port = address
    if time.monotonic() > deadline:
        raise TimeoutError("too late")
    try:
        found = guard.addresses(host, port)
    except outgoing.UnreachableError as error:
        raise OSError(str(error)) from None
    return _original((str(found[0]), port), *args, **kwargs)


urllib3_connection.create_connection = _create_connection
