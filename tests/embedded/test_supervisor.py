"""Children are restarted when they die, their lines are prefixed, and all end together."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from config.embedded.processes import Nursery
from config.embedded.supervisor import Console, Service, Supervisor

PROJECT = Path(__file__).parents[2]


def _supervise(*services: Service, rounds: int = 400) -> str:
    """Runs the services until `rounds` readings or until one says it is enough."""
    output = io.StringIO()
    nursery = Nursery()
    left = rounds

    def each_round() -> None:
        nonlocal left
        left -= 1
        if left <= 0 or "enough" in output.getvalue():
            supervisor.request_stop()

    supervisor = Supervisor(
        nursery,
        services,
        env=os.environ,
        cwd=PROJECT,
        console=Console(output),
        backoff_s=(0.05, 0.1),
        each_round=each_round,
    )
    try:
        supervisor.run()
    finally:
        nursery.close()
    return output.getvalue()


def test_a_child_that_dies_is_started_again_and_its_last_words_are_kept(tmp_path: Path) -> None:
    counted = tmp_path / "starts"
    script = (
        f"echo start >> {counted}; echo working; "
        f"if [ $(wc -l < {counted}) -ge 3 ]; then echo enough; sleep 30; fi; "
        "printf 'last words'; exit 3"
    )
    log = _supervise(Service("flaky", ["sh", "-c", script]))
    assert log.count("flaky    │ working") == 3
    assert "flaky    │ last words" in log
    assert "vigil    │ flaky ended (exit code 3); it starts again in 0.05 s" in log
    assert "it starts again in 0.1 s" in log


def test_a_child_that_may_finish_is_not_started_again() -> None:
    log = _supervise(
        Service("once", ["sh", "-c", "echo done"], may_finish=True),
        Service("other", ["sh", "-c", "sleep 0.5; echo enough; sleep 30"]),
    )
    assert log.count("once     │ done") == 1
    assert "starts again" not in log


def test_a_child_that_ignores_the_signal_is_killed_with_what_it_started(tmp_path: Path) -> None:
    grandchild = tmp_path / "pid"
    script = (
        f"trap '' TERM; sleep 300 & echo $! > {grandchild}; echo enough; while :; do sleep 1; done"
    )
    began = time.monotonic()
    log = _supervise(Service("stubborn", ["sh", "-c", script], stage=0))
    assert "stubborn did not end within 2 s: killed" in log
    assert time.monotonic() - began < 10
    assert not _runs(int(grandchild.read_text(encoding="utf-8")))


def test_stages_end_in_their_order() -> None:
    log = _supervise(
        Service("late", ["sh", "-c", "trap 'echo bye; exit' TERM; while :; do sleep 0.1; done"]),
        Service("early", ["sh", "-c", "echo enough; sleep 30"], stage=0),
        rounds=40,
    )
    assert log.index("stopping early") < log.index("stopping late") < log.index("late     │ bye")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_however_the_supervisor_ends_no_child_stays(tmp_path: Path, number: int) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from config.embedded.processes import Nursery\n"
        "from config.embedded.supervisor import Service, Supervisor\n"
        "script = 'sleep 300 & echo pids $$ $!; wait'\n"
        "s = Service('child', ['sh', '-c', script])\n"
        "n = Nursery(); Supervisor(n, [s], env=os.environ, cwd=Path('.')).run(); n.close()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child, grandchild = (int(word) for word in parent.stdout.readline().split("pids")[1].split())
    parent.send_signal(number)
    parent.wait(15)
    parent.stdout.close()
    deadline = time.monotonic() + 15
    while (_runs(child) or _runs(grandchild)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)
    assert not _runs(grandchild)


def test_colours_only_on_a_terminal_without_no_color() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    plain, coloured, quiet = io.StringIO(), Terminal(), Terminal()
    Console(plain, {}).line("web", "hello")
    Console(coloured, {}).line("web", "hello")
    Console(quiet, {"NO_COLOR": "1"}).line("web", "hello")
    assert plain.getvalue() == quiet.getvalue() == "web      │ hello\n"
    assert coloured.getvalue().startswith("\033[36m")


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
