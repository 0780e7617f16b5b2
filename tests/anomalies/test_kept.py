"""Answers kept in Valkey: one caller makes them, whoever else asks does not wait for the next."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from anomalies import kept

pytestmark = pytest.mark.django_db


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


def test_many_who_ask_at_once_have_it_made_once(name: str) -> None:
    begin, made = threading.Barrier(12), list[int]()
    slow = threading.Event()

    def make() -> str:
        made.append(1)
        slow.wait(0.2)
        return "answer"

    def ask(_: int) -> str:
        begin.wait(10)
        return kept.kept(name, 30, make)

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, range(12))) == ["answer"] * 12
    assert made == [1]


def test_who_asks_gets_the_last_one_while_the_next_is_made(name: str) -> None:
    assert kept.kept(name, 0.001, lambda: "first") == "first"
    asked, go, done = threading.Event(), threading.Event(), threading.Event()

    def make() -> str:
        asked.set()
        go.wait(10)
        done.set()
        return "second"

    while not asked.wait(0.01):  # until it is being made, by a thread of its own
        assert kept.kept(name, 0.001, make) == "first"
    assert kept.kept(name, 0.001, lambda: "never") == "first"
    go.set()
    assert done.wait(10)
    found = ""
    while found != "second":
        found = kept.kept(name, 60, lambda: "never")
    # Kept by name; 0 keeps nothing.
    assert kept.kept(name, 0, lambda: "anew") == "anew"
    assert kept.kept(name + "x", 60, lambda: "other") == "other"


def test_a_failure_is_the_callers_and_leaves_nothing_locked(name: str) -> None:
    def fail() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kept.kept(name, 60, fail)
    assert kept.kept(name, 60, lambda: "well") == "well"


def test_without_valkey_each_makes_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = redis.Redis.from_url("redis://127.0.0.1:1/0")
    monkeypatch.setattr(kept, "_client", lambda: nobody)
    assert kept.kept(name, 60, lambda: "made") == "made"
