"""Dead letters as a page narrows, tells and handles them: filters, tries, retry and discard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Count, QuerySet
from django.utils import timezone

from streams import audit
from streams.dead_letters import retry
from streams.models import DeadLetter, Stream
from streams.producer import TopicProducer

State = DeadLetter.State
STAGES = {
    "decode": ("empty", "size", "encoding", "json"),
    "map": ("schema", "name", "value", "timestamp"),
    "accept": ("limit",),
}
PAGE = 50
# One click does at most so many; what is left says so and takes another.
AT_ONCE = 5_000
TELL_WITHIN_MS = 8_000

_TRIES = """
SELECT l.id, count(r.id), bool_and(r.reason = l.reason)
  FROM streams_deadletter l JOIN streams_deadletter r
    ON r.state = 'retried' AND r.id < l.id AND r.size = l.size
   AND r.incarnation_id = l.incarnation_id AND r.raw = l.raw
 WHERE l.id = ANY (%s) GROUP BY l.id
"""


def stage_of(reason: str) -> str:
    return next((stage for stage, reasons in STAGES.items() if reason in reasons), "accept")


@dataclass(frozen=True, slots=True)
class Tries:
    """How often the same bytes were sent again before, and whether they failed alike."""

    count: int
    alike: bool


@dataclass(frozen=True, slots=True)
class Filter:
    """What a list of letters is narrowed to; what can't be read narrows nothing."""

    stream: str = ""
    reason: str = ""
    stage: str = ""
    partition: int | None = None
    text: str = ""
    state: str = State.WAITING.value

    @classmethod
    def of(cls, given: Mapping[str, Any], stream: str = "") -> Filter:
        def word(name: str, longest: int = 100) -> str:
            return str(given.get(name, "")).replace("\x00", "")[:longest].strip()

        number = word("partition", 9)
        stage, state = word("stage"), word("state")
        return cls(
            stream or word("stream", 200), word("reason", 40), stage if stage in STAGES else "",
            int(number) if number.isascii() and number.isdigit() else None, word("q"),
            state if state in State.values else State.WAITING.value,
        )  # fmt: skip

    @property
    def narrowed(self) -> bool:
        return bool(self.reason or self.stage or self.text) or self.partition is not None

    def query(self, **more: str) -> str:
        """The address's part that asks for the same."""
        given = {
            "reason": self.reason, "stage": self.stage, "q": self.text,
            "partition": "" if self.partition is None else str(self.partition),
            "state": "" if self.state == State.WAITING else self.state, **more,
        }  # fmt: skip
        return urlencode({name: value for name, value in given.items() if value})

    def rows(self) -> QuerySet[DeadLetter]:
        found = DeadLetter.objects.filter(state=self.state)
        if self.stream:
            found = found.filter(incarnation__stream__name=self.stream)
        if self.reason:
            found = found.filter(reason=self.reason)
        if self.stage:
            found = found.filter(reason__in=STAGES[self.stage])
        if self.partition is not None:
            found = found.filter(partition=self.partition)
        if self.text:
            found = found.filter(detail__icontains=self.text)
        return found


@dataclass(frozen=True, slots=True)
class Page:
    """Some letters, newest first, and what the filters' controls offer."""

    rows: list[DeadLetter]
    older: int | None
    matching: int
    waiting: int
    reasons: list[tuple[str, int]]
    partitions: list[int]
    tries: dict[int, Tries]


def page_of(asked: Filter, before: str = "") -> Page:
    every = Filter(stream=asked.stream, state=asked.state).rows().order_by()
    places = list(every.values_list("reason", "partition").annotate(n=Count("id"))[:2_000])
    reasons: dict[str, int] = {}
    for reason, _, n in places:
        reasons[reason] = reasons.get(reason, 0) + n
    found = asked.rows().select_related("incarnation__stream").defer("raw", "key")
    if before.isascii() and before.isdigit() and len(before) < 18:
        found = found.filter(pk__lt=int(before))
    rows = list(found.order_by("-pk")[: PAGE + 1])
    total = sum(reasons.values())
    return Page(
        rows=rows[:PAGE],
        older=rows[PAGE - 1].pk if len(rows) > PAGE else None,
        matching=asked.rows().count() if asked.narrowed else total,
        waiting=total,
        reasons=sorted(reasons.items(), key=lambda pair: -pair[1]),
        partitions=sorted({partition for _, partition, _ in places}),
        tries=tries(row.pk for row in rows[:PAGE]),
    )


def tries(ids: Iterable[int]) -> dict[int, Tries]:
    with connection.cursor() as cursor:
        cursor.execute(_TRIES, [list(ids)])
        return {pk: Tries(n, bool(alike)) for pk, n, alike in cursor.fetchall()}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Letters that somebody ticked, or all that match a filter."""

    ids: list[int]
    reasons: list[tuple[str, int]]
    total: int

    @property
    def left(self) -> int:
        return self.total - len(self.ids)


def chosen(asked: Filter, ids: Sequence[str], *, every: bool) -> Chosen:
    """The oldest first, at most `AT_ONCE`; only waiting ones can be handled."""
    rows = asked.rows().filter(state=State.WAITING)
    if not every:
        rows = rows.filter(pk__in=[int(i) for i in ids if i.isascii() and i.isdigit()][:AT_ONCE])
    reasons = rows.order_by().values_list("reason").annotate(n=Count("id")).order_by("-n")
    counted = [(reason, n) for reason, n in reasons]
    keys = list(rows.order_by("pk").values_list("pk", flat=True)[:AT_ONCE])
    return Chosen(keys, counted, sum(n for _, n in counted))


def send_again(client: Mapping[str, Any], ids: Sequence[int], user: User) -> tuple[int, int]:
    """How many went out, and how many had no bytes that could.

    Raises:
        DeliveryError: the broker did not take some; those stay waiting.
    """
    try:
        with TopicProducer(client, delivery_timeout_ms=TELL_WITHIN_MS) as producer:
            sent = retry(producer, ids)
    finally:
        with transaction.atomic():
            gone = DeadLetter.objects.filter(pk__in=ids, state=State.RETRIED, handled_at=None)
            _record(user, gone, "sent again")
            gone.update(handled_at=timezone.now(), handled_by=user.get_username())
    return sent.sent, sent.without_bytes


@transaction.atomic
def discard(ids: Sequence[int], user: User, note: str) -> int:
    """Put waiting letters aside; they stay stored until their retention ends."""
    waiting = DeadLetter.objects.filter(pk__in=ids, state=State.WAITING)
    _record(user, waiting, f"discarded: {note}")
    return waiting.update(
        state=State.DISMISSED, handled_at=timezone.now(), handled_by=user.get_username(), note=note
    )


def _record(user: User, letters: QuerySet[DeadLetter], what: str) -> None:
    """An entry in the audit for each stream whose letters these are."""
    counted = letters.order_by().values_list("incarnation__stream").annotate(n=Count("id"))
    for stream, n in counted:
        said = {"dead_letters": f"{n:,} {what}"}
        audit.record(user, audit.Action.ACTED, Stream.objects.get(pk=stream), None, said)
