"""Dead letters: raw bytes kept as they are, in statements of a bearable size, and a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streams import checkpoint, dead_letter
from streams.checkpoint import Owned
from streams.codec import Reject
from streams.dead_letter import DeadLetters, TooManyDeadLettersError
from streams.models import DeadLetter, Stream


@pytest.fixture
def owned(db: None) -> dict[int, Owned]:
    life = checkpoint.incarnation(Stream.objects.create(name="raw", topic="raw"), "id-1")
    return {3: checkpoint.acquire(life, 3, "me")}


def reject(offset: int, raw: bytes | None = b"no", **more: Any) -> Reject:
    given = {"reason": "json", "detail": "bad", "key": None} | more
    return Reject(3, offset, raw=raw, **given)


def test_bytes_reason_and_place_are_kept_and_a_repeat_meets_the_same_row(
    owned: dict[int, Owned],
) -> None:
    rejects = [
        reject(5, bytes(range(256)), key=b"\xff\x00", detail="NUL \x00 and \ud800"),
        reject(6, None, reason="empty"),
    ]
    for _ in range(2):
        DeadLetters(1.0).write(rejects, owned)
    first, second = DeadLetter.objects.order_by("offset")
    assert (first.partition, first.offset, first.size) == (3, 5, 256)
    assert (bytes(first.raw), bytes(first.key)) == (bytes(range(256)), b"\xff\x00")
    assert first.detail == "NUL \\x00 and \\ud800"
    assert (second.raw, second.size, second.reason) == (None, 0, "empty")


@pytest.mark.parametrize(("size", "statements"), [(10, 1), (400, 4), (2_000, 7)])
def test_large_ones_go_in_several_statements(
    owned: dict[int, Owned],
    monkeypatch: pytest.MonkeyPatch,
    django_assert_num_queries: Callable[[int], Any],
    size: int,
    statements: int,
) -> None:
    monkeypatch.setattr(dead_letter, "STATEMENT_BYTES", 1_000)
    rejects = [reject(n, b"x" * size, key=b"k" * 10) for n in range(7)]
    with django_assert_num_queries(statements):
        DeadLetters(1.0).write(rejects, owned)
    assert DeadLetter.objects.count() == 7


def test_nothing_to_write_is_no_statement(
    owned: dict[int, Owned], django_assert_num_queries: Callable[[int], Any]
) -> None:
    with django_assert_num_queries(0):
        DeadLetters(1.0).write([], owned)


def test_over_the_limit_it_stops_and_says_what_to_do() -> None:
    letters = DeadLetters(0.5)
    letters.check(5_000, 4_999)
    with pytest.raises(TooManyDeadLettersError, match=r"52% of the last 10500.*mapping"):
        letters.check(0, 501)


def test_at_the_limit_and_with_a_limit_of_one_it_goes_on() -> None:
    for limit, events, rejects in ((0.5, 5_000, 5_000), (1.0, 0, 50_000)):
        DeadLetters(limit).check(events, rejects)


def test_the_share_is_that_of_a_window_not_of_all_time() -> None:
    letters = DeadLetters(0.5)
    letters.check(1_000_000, 0)
    with pytest.raises(TooManyDeadLettersError):
        letters.check(0, 10_000)
