"""Partitions leave in the midst of a batch: it is stored before they go, or begun again after."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection

from config.schema import Stream, VigilConfig
from config.wiring import RunOptions, build_runner, warm_up
from streams import runner as loop
from streams.consumer import GroupConsumer, Place
from streams.models import PartitionOffset
from streams.runner import Runner
from tests.conftest import MakeTopic
from tests.integration.harness import await_until, events, produce, stored_events

EVENTS = 400
pytestmark = pytest.mark.django_db(transaction=True)


class Gate:
    """A lane's engine that scores no batch before it is let."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.reached, self.open = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def process(self, *given: Any) -> Any:
        self.reached.set()
        assert self.open.wait(60)
        return self._engine.process(*given)


@dataclass
class Running:
    """A consumer in a thread of this process, held before its first batch."""

    runner: Runner
    gate: Gate
    thread: threading.Thread
    join: Callable[[], GroupConsumer]


@pytest.fixture
def running(topic: MakeTopic, kafka: str) -> Iterator[Callable[[Callable[..., None]], Running]]:
    """Starts one; it takes the wrapper of what happens when partitions are revoked."""
    made: list[Running] = []
    members: list[GroupConsumer] = []
    place, group = topic(2), f"g-{uuid.uuid4().hex[:8]}"
    produce(kafka, place, events(EVENTS, partitions=2, series=4))

    def join() -> GroupConsumer:
        members.append(
            GroupConsumer({"bootstrap.servers": kafka}, group_id=group, session_timeout_ms=6_000)
        )
        members[-1].subscribe([place], lambda places, lost: None)
        return members[-1]

    def start(revoking: Callable[[Callable[[], None], Gate], None]) -> Running:
        plain = VigilConfig()
        config = plain.model_copy(
            update={
                "streams": (Stream(name=place, topic=place),),
                "kafka": plain.kafka.model_copy(
                    update={"bootstrap_servers": kafka, "group_id": group}
                ),
                # No flush: the loop shall be polling while the batch is held.
                "consumer": plain.consumer.model_copy(update={"rollup_flush_s": 600.0}),
            }
        )
        warm_up(config)
        runner = build_runner(config, "held", RunOptions(), None)
        lane = runner._lanes[place]
        lane.engine = gate = Gate(lane.engine)
        revoked = runner._revoked

        def wrapped(places: list[Place], lost: bool) -> None:
            revoking(lambda: revoked(places, lost), gate)

        runner._revoked = wrapped  # type: ignore[method-assign]

        def run() -> None:
            try:
                runner.run()
            finally:
                connection.close()

        thread = threading.Thread(target=run)
        thread.start()
        made.append(Running(runner, gate, thread, join))
        assert gate.reached.wait(60)
        return made[-1]

    yield start
    for one in made:
        one.gate.open.set()
        one.runner.stop()
        one.thread.join(60)
        assert not one.thread.is_alive()
    for member in members:
        member.close()


def polled(member: GroupConsumer, until: Callable[[], bool]) -> None:
    def look() -> bool:
        member.poll(1, 0.05)
        return until()

    await_until(look)


def test_a_batch_that_is_scored_is_stored_before_its_partition_goes(
    running: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    """The scoring thread must need nothing that the revoking poll holds."""

    def revoking(revoke: Callable[[], None], gate: Gate) -> None:
        gate.open.set()
        revoke()

    one = running(revoking)
    other = one.join()
    polled(other, lambda: len(other.assigned) == 1)
    assert "thread.busy" not in caplog.text
    assert "start_over" not in caplog.text
    given = PartitionOffset.objects.get(partition=next(iter(other.assigned))[1])
    assert given.next_offset > 0
    assert given.snapshot_offset == given.next_offset
    assert stored_events(next(iter(one.runner._lanes))) > 0


def test_a_batch_that_does_not_end_in_time_is_begun_again_whosever_it_is(
    running: Callable[..., Running],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(loop, "LEAVE_WITHIN_S", 0.1)
    monkeypatch.setattr(loop, "RESTS_WITHIN_S", 0.1)

    def revoking(revoke: Callable[[], None], gate: Gate) -> None:
        revoke()
        gate.open.set()

    one = running(revoking)
    other = one.join()
    polled(other, lambda: len(other.assigned) == 1)
    assert "thread.busy name=scoring" in caplog.text
    kept = next(iter(one.runner._consumer.assigned))
    lane = one.runner._lanes[kept[0]]
    polled(other, lambda: "in the midst of a batch" in caplog.text)
    polled(other, lambda: set(lane.owned) == {kept[1]})
    other.close()
    await_until(lambda: set(lane.owned) == {0, 1})
    # Every message once: the events and those that are none.
    await_until(
        lambda: sum(PartitionOffset.objects.values_list("next_offset", flat=True)) == EVENTS
    )
    assert stored_events(kept[0]) <= EVENTS
    assert one.thread.is_alive()
