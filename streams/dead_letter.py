"""Messages that are no events: kept with raw bytes, place and reason, inside the transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from streams.checkpoint import Owned
from streams.codec import Reject
from streams.errors import StreamsError
from streams.models import DeadLetter

log = logging.getLogger(__name__)
WINDOW = 10_000
STATEMENT_ROWS = 500
STATEMENT_BYTES = 32_000_000  # sent as hexadecimal text, of which PostgreSQL takes a gigabyte


class TooManyDeadLettersError(StreamsError):
    """Give up: most of what comes is unreadable, so the mapping or the topic is wrong."""


class DeadLetters:
    """Writes rejects, and stops loudly where their share passes a limit (1 never does)."""

    def __init__(self, ratio_limit: float) -> None:
        self._limit = ratio_limit
        self._good = 0
        self._bad = 0

    def write(self, rejects: list[Reject], owned: Mapping[int, Owned]) -> None:
        """One row a message; a repeat meets the same row."""
        if rejects:
            rows = [
                DeadLetter(
                    incarnation_id=owned[r.partition].incarnation_id,
                    partition=r.partition,
                    offset=r.offset,
                    reason=r.reason,
                    detail=r.detail.replace("\x00", "\\x00")
                    .encode("utf-8", "backslashreplace")
                    .decode(),
                    key=r.key,
                    raw=r.raw,
                    size=len(r.raw or b""),
                )
                for r in rejects
            ]
            for some in _statements(rows):
                DeadLetter.objects.bulk_create(some, ignore_conflicts=True)

    def check(self, events: int, rejects: int) -> None:
        """After the commit: look at the share over the last messages.

        Raises:
            TooManyDeadLettersError: over the limit; all of them are stored.
        """
        self._good += events
        self._bad += rejects
        seen = self._good + self._bad
        if seen < WINDOW:
            return
        share = self._bad / seen
        self._good = self._bad = 0
        if share > self._limit:
            raise TooManyDeadLettersError(
                f"{share:.0%} of the last {seen} messages are dead letters (limit"
                f" {self._limit:.0%}, consumer.dead_letter_ratio_limit). All are stored with their"
                " reasons: see the Streams page, mend the producer or the stream's mapping, then"
                " start the consumer again"
            )


def _statements(rows: list[DeadLetter]) -> Iterator[list[DeadLetter]]:
    """The rows in lists that one statement can carry."""
    some: list[DeadLetter] = []
    size = 0
    for row in rows:
        weight = len(row.raw or b"") + len(row.key or b"")
        if some and (len(some) == STATEMENT_ROWS or size + weight > STATEMENT_BYTES):
            yield some
            some, size = [], 0
        some.append(row)
        size += weight
    yield some
