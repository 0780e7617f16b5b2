"""Fifty SIGKILLs of senders during two thousand deliveries: each arrives, repeats by their key."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from django.db.models import Count

from alerts.models import Attempt, Notification
from tests.alerts import rows
from tests.alerts.http_server import Got, Handler, Server, plain, serving
from tests.integration.harness import database_url

DELIVERIES, KILLS, SENDERS = 2_000, 50, 2
CLAIM_S = 5.0
LONGEST_S = 300.0

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


class Senders:
    """Processes that deliver, and may be killed."""

    def __init__(self) -> None:
        root = Path(__file__).resolve().parents[2]
        env = os.environ | {"DATABASE_URL": database_url(), "PYTHONPATH": str(root),
                            "DJANGO_SETTINGS_MODULE": "config.settings"}  # fmt: skip
        self._mother = subprocess.Popen(
            [sys.executable, "-m", "tests.alerts.sender_process", str(CLAIM_S)], cwd=root, env=env,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pids: list[int] = []
        self._n = 0

    def start(self) -> None:
        assert self._mother.stdin is not None
        assert self._mother.stdout is not None
        self._n += 1
        self._mother.stdin.write(f"{self._n}\n")
        self._mother.stdin.flush()
        self.pids.append(int(self._mother.stdout.readline()))

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.pids.remove(pid)

    def close(self) -> None:
        for pid in list(self.pids):
            self.kill(pid)
        self._mother.kill()
        self._mother.wait(10)


@pytest.fixture
def senders() -> Iterator[Senders]:
    found = Senders()
    yield found
    found.close()


@pytest.fixture
def server() -> Iterator[Server]:
    answer = plain(200)

    def after_a_while(handler: Handler, got: Got) -> None:
        # Long enough to be killed in, before and after the answer.
        handler.server_of.release.wait(0.01)
        answer(handler, got)

    with serving() as found:
        found.keep, found.usual = False, after_a_while
        yield found


def test_no_delivery_is_lost_and_a_repeat_has_the_same_key(
    server: Server, senders: Senders, capsys: pytest.CaptureFixture[str]
) -> None:
    receivers = [rows.receiver(f"ops-{i}", server.url) for i in range(8)]
    incidents = [rows.incident() for _ in range(50)]
    made = Notification.objects.bulk_create(
        rows.unsaved(receivers[i % 8], incidents[(i // 8) % 50]) for i in range(DELIVERIES)
    )
    wanted = {str(row.pk) for row in made}
    dice, began = random.Random(5), time.monotonic()

    def reached(count: int) -> bool:
        return len(server.keys) >= count

    for _ in range(SENDERS):
        senders.start()
    for number in range(KILLS):
        _wait(partial(reached, (number + 1) * (DELIVERIES - 100) // KILLS), began)
        senders.kill(dice.choice(senders.pids))
        senders.start()
    _wait(lambda: not Notification.objects.exclude(state="sent").exists(), began, every=0.2)
    spent = time.monotonic() - began

    assert set(server.keys) == wanted
    assert Notification.objects.count() == DELIVERIES
    tries = dict(
        Attempt.objects.values_list("notification").annotate(n=Count("id")).values_list(
            "notification", "n")
    )  # fmt: skip
    # What arrived more often than it was tried would be a repeat that nobody knows of.
    assert [k for k, n in server.keys.items() if n > tries[_uuid(k)]] == []
    ends = Counter(Attempt.objects.values_list("outcome", flat=True))
    # On a machine that hangs, a claim lapses while its sender lives: then both get through.
    assert ends["ok"] >= DELIVERIES
    assert set(ends) <= {"ok", "unknown"}
    repeats = sum(server.keys.values()) - DELIVERIES
    assert repeats <= sum(ends.values()) - DELIVERIES
    with capsys.disabled():
        print(
            f"\n{DELIVERIES} deliveries, {KILLS} SIGKILLs: all delivered in {spent:.1f} s;"
            f" {ends['unknown']} attempts died, {repeats} messages came twice, by the same key"
        )


def _uuid(text: str) -> object:
    return Notification._meta.pk.to_python(text)


def _wait(done: Callable[[], bool], began: float, every: float = 0.005) -> None:
    while not done():
        assert time.monotonic() - began < LONGEST_S, "it takes too long"
        time.sleep(every)
