"""A dead letter with its bytes; retrying and discarding some, or all that match, once confirmed."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from streams.errors import StreamsError
from streams.letters import AT_ONCE, Chosen, Filter, chosen, discard, send_again, stage_of, tries
from streams.models import DeadLetter, Stream
from streams.reread import as_text
from streams.roles import may_operate, operator_required

PREVIEW = 2_048
HEX = 512


@login_required
@require_GET
def dead_letter(request: HttpRequest, pk: int) -> HttpResponse:
    """One dead letter with its bytes, as text and as hexadecimal digits."""
    letter = get_object_or_404(DeadLetter.objects.select_related("incarnation__stream"), pk=pk)
    raw = bytes(letter.raw) if letter.raw is not None else None
    context = {
        "letter": letter, "stage": stage_of(letter.reason), "tries": tries([pk]).get(pk),
        "key": as_text(bytes(letter.key)) if letter.key is not None else None,
        "text": as_text(raw[:PREVIEW]) if raw is not None else None,
        "hex": hex_dump(raw[:HEX]) if raw is not None else None, "hex_shown": HEX,
        "cut": raw is not None and len(raw) > PREVIEW, "preview": PREVIEW,
        "operator": may_operate(request.user),
    }  # fmt: skip
    return render(request, "streams/dead_letter.html", context)


@require_POST
@operator_required
def handle(request: HttpRequest) -> HttpResponseBase:
    """Retry or discard what is ticked, or all that match; the larger ones are confirmed first."""
    what = request.POST.get("do", "")
    if what not in ("retry", "retry-all", "discard", "discard-all"):
        return render(request, "streams/letters_ask.html", {"wrong": "Choose retry or discard."},
                      status=400)  # fmt: skip
    asked = Filter.of(request.POST)
    every = what.endswith("-all")
    verb = what.removesuffix("-all")
    found = chosen(asked, request.POST.getlist("letter"), every=every)
    if not found.ids:
        messages.warning(request, "No waiting letter was chosen: tick some, or choose all.")
        return _back(asked)
    note = request.POST.get("note", "").replace("\x00", "").strip()
    confirmed = request.POST.get("sure") == "yes"
    if not confirmed and (every or verb == "discard"):
        return _ask(request, asked, found, verb, every=every)
    if verb == "discard":
        if not note or len(note) > 200:
            said = "Say why, in at most 200 characters: it is kept beside each letter."
            return _ask(request, asked, found, verb, every=every, wrong=said, note=note)
        n = discard(found.ids, _person(request), note)
        messages.success(request, f"{_letters(n)} discarded: {note}")
        return _back(asked)
    try:
        sent, without = send_again(
            settings.VIGIL.kafka.quiet_client_config(), found.ids, _person(request)
        )
    except StreamsError as error:
        messages.error(request, f"Kafka did not take all of them: {error}. Those stay waiting.")
        return _back(asked)
    said = f"{_letters(sent)} sent again."
    if without:
        said += f" {without:,} had no bytes to send and {'stays' if without == 1 else 'stay'}."
    if found.left > 0:
        said += f" {found.left:,} more match: one click sends {AT_ONCE:,}."
    messages.success(request, f"{said} What fails again comes back to this list.")
    return _back(asked)


def _ask(
    request: HttpRequest, asked: Filter, found: Chosen, verb: str, *, every: bool,
    wrong: str = "", note: str = "",
) -> HttpResponse:  # fmt: skip
    context: dict[str, Any] = {
        "asked": asked, "found": found, "verb": verb, "every": every, "wrong": wrong, "note": note,
        "do": f"{verb}-all" if every else verb, "at_once": AT_ONCE, "back": _address(asked),
        "topics": list(
            Stream.objects.filter(incarnations__dead_letters__pk__in=found.ids)
            .distinct().values_list("topic", flat=True)
        ),
    }  # fmt: skip
    return render(request, "streams/letters_ask.html", context, status=400 if wrong else 200)


def _person(request: HttpRequest) -> User:
    user = request.user
    if isinstance(user, AnonymousUser):
        raise PermissionDenied
    return user


def _back(asked: Filter) -> HttpResponse:
    return redirect(_address(asked))


def _address(asked: Filter) -> str:
    alone = not asked.stream or Stream.objects.count() == 1
    page = reverse("streams") if alone else reverse("stream", args=[asked.stream])
    query = asked.query()
    return page + (f"?{query}" if query else "") + "#letters"


def hex_dump(raw: bytes) -> str:
    r"""Offset, sixteen bytes, and their ASCII.

    >>> hex_dump(b"{\x00}").split()
    ['0000', '7b', '00', '7d', '{.}']
    """
    lines = []
    for at in range(0, len(raw), 16):
        part = raw[at : at + 16]
        shown = "".join(chr(b) if 32 <= b < 127 else "." for b in part)
        lines.append(f"{at:04x}  {part.hex(' '):<47}  {shown}")
    return "\n".join(lines)


def _letters(n: int) -> str:
    return f"{n:,} dead letter{'s' * (n != 1)}"
