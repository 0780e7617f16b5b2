"""Whose clock the pages go by: the zone a user set, else their browser's, else UTC."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.decorators import sync_and_async_middleware

from streams.models import Preferences

# static/js/zone.js writes it: what the browser says of itself.
COOKIE = "vigil_zone"
# Programs get UTC, whoever asks.
NO_PAGES = ("/api/", "/static/", "/metrics")
Respond = Callable[[HttpRequest], HttpResponseBase]


@lru_cache(maxsize=1)
def known_zones() -> frozenset[str]:
    return frozenset(
        name for name in available_timezones() if not name.startswith(("posix/", "right/"))
    ) - {"localtime", "Factory"}


@lru_cache(maxsize=1)
def zones_by_region() -> list[tuple[str, list[str]]]:
    """What a list offers: the zones named after places, by continent."""
    found: dict[str, list[str]] = {}
    for name in sorted(known_zones()):
        region, _, place = name.partition("/")
        if place and region not in ("Etc", "SystemV", "US", "Canada", "Brazil", "Chile", "Mexico"):
            found.setdefault(region, []).append(name)
    return list(found.items())


def browser_zone(request: HttpRequest) -> str:
    """What the browser says its zone is; empty where it said nothing that is known."""
    name = request.COOKIES.get(COOKIE, "")
    return name if name in known_zones() else ""


def chosen_zone(request: HttpRequest) -> str:
    """What the user set; empty where they follow the browser."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return ""
    try:
        name = str(user.preferences.time_zone)
    except Preferences.DoesNotExist:
        return ""
    return name if name in known_zones() else ""


def zone_of(request: HttpRequest) -> ZoneInfo:
    return ZoneInfo(chosen_zone(request) or browser_zone(request) or "UTC")


@sync_and_async_middleware
def own_time_zone(get_response: Respond) -> Callable[..., object]:
    """Pages, their date inputs included, in the zone of who asks."""
    if iscoroutinefunction(get_response):
        respond: Callable[[HttpRequest], Awaitable[HttpResponseBase]] = get_response

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            if request.path.startswith(NO_PAGES):
                return await respond(request)
            # In a thread: a session's user is read from the database.
            with timezone.override(await sync_to_async(zone_of)(request)):
                return await respond(request)

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        if request.path.startswith(NO_PAGES):
            return get_response(request)
        with timezone.override(zone_of(request)):
            return get_response(request)

    return synchronous


def zone_name(at: datetime | None = None) -> str:
    """The short name of the present zone at that moment: CET, or +04 where it has none."""
    return timezone.localtime(at or timezone.now()).tzname() or ""


def absolute(at: datetime) -> str:
    """A moment for the present user, and in UTC where that is another clock.

    >>> with timezone.override("Europe/Berlin"):
    ...     absolute(datetime(2026, 12, 1, 23, 30, tzinfo=UTC))
    'Wed 02 Dec 2026 00:30:00 CET · Tue 23:30:00 UTC'
    """
    local, there = timezone.localtime(at), at.astimezone(UTC)
    said = f"{local:%a %d %b %Y %H:%M:%S} {local.tzname()}"
    if local.utcoffset() == there.utcoffset():
        return said
    day = "" if local.date() == there.date() else f"{there:%a} "
    return f"{said} · {day}{there:%H:%M:%S} UTC"


def read_local(text: str) -> datetime | None:
    """What a date input holds, in the present zone where it names none; None if unreadable.

    Of an hour that the autumn has twice it is the first; one that the spring leaves out counts on
    from before the change.

    >>> with timezone.override("Europe/Berlin"):
    ...     [f"{read_local(t):%H:%M}" for t in ("2026-10-25T02:30", "2026-03-29T02:30")]
    ['00:30', '01:30']
    """
    try:
        # A plus sign that a hand-written address did not quote arrives as a blank.
        found = parse_datetime(text.strip().replace(" ", "+") if "T" in text else text.strip())
    except ValueError:
        return None
    if found is None or not 1900 < found.year < 9000:
        return None
    aware = found if found.tzinfo else found.replace(tzinfo=timezone.get_current_timezone())
    return aware.astimezone(UTC)
