"""Notes beside an anomaly: plain text, by whom and when; their authors change and delete them."""

from __future__ import annotations

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.utils import timezone

from anomalies.models import Anomaly, Note

MOST_SHOWN = 200


class NoteError(Exception):
    """What is no note; the message says why."""


def of(anomaly: Anomaly) -> list[Note]:
    """The latest, oldest first."""
    rows = Note.objects.filter(anomaly=anomaly).select_related("author").order_by("-pk")
    return list(rows[:MOST_SHOWN])[::-1]


def add(anomaly: Anomaly, text: str, author: int | None) -> Note:
    return Note.objects.create(anomaly=anomaly, author_id=author, text=_text(text))


def change(note: Note, text: str) -> None:
    if note.text != (found := _text(text)):
        note.text, note.changed_at = found, timezone.now()
        note.save(update_fields=["text", "changed_at"])


def own(pk: int, user: AbstractBaseUser | AnonymousUser) -> Note | None:
    """A note that this user wrote."""
    return Note.objects.select_related("anomaly").filter(pk=pk, author=user.pk).first()


def _text(text: str) -> str:
    found = text.replace("\x00", "").replace("\r\n", "\n").strip()
    if not found:
        raise NoteError("A note needs some text.")
    if len(found) > Note.LONGEST:
        raise NoteError(f"A note has at most {Note.LONGEST:,} characters; this has {len(found):,}.")
    return found
