"""The servers start, keep their data, are found by others, and never outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from config.embedded.stack import EmbeddedStack, unnamed_parts
from config.embedded.state import DataFolder, DataFolderBusyError

SMALL = ("postgres", "valkey")


def test_the_servers_of_this_run_answer(kafka: str, redis_url: str) -> None:
    assert kafka.startswith("127.0.0.1:")
    assert redis_url.startswith("redis://")


def test_only_servers_that_nobody_named_are_embedded() -> None:
    assert unnamed_parts({"DATABASE_URL"}) == ("kafka", "valkey")
    assert unnamed_parts(()) == ("kafka", "postgres", "valkey")


def test_data_and_ports_survive_a_restart(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path, parts=SMALL, throwaway=True) as first:
        with psycopg.connect(first.env["DATABASE_URL"]) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        redis = first.env["REDIS_URL"]
    with (
        EmbeddedStack(tmp_path, parts=SMALL, throwaway=True) as second,
        psycopg.connect(second.env["DATABASE_URL"]) as connection,
    ):
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
        assert second.env["REDIS_URL"] == redis


def test_a_second_start_on_the_folder_says_so_and_others_find_the_running_one(
    tmp_path: Path,
) -> None:
    folder = DataFolder(tmp_path)
    assert folder.running() is None
    with EmbeddedStack(tmp_path, parts=("valkey",), throwaway=True) as stack:
        state = folder.running()
        assert state is not None
        assert state["env"] == stack.env
        with pytest.raises(DataFolderBusyError):
            EmbeddedStack(tmp_path, parts=("valkey",)).start()
        assert (tmp_path / "stack.json").stat().st_mode & 0o077 == 0
    assert folder.running() is None


@pytest.mark.parametrize("also_the_reaper", [False, True])
def test_no_server_outlives_a_parent_that_was_killed(tmp_path: Path, also_the_reaper: bool) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from config.embedded.stack import EmbeddedStack\n"
        "s = EmbeddedStack(Path(sys.argv[1]), parts=('postgres', 'valkey'), throwaway=True)\n"
        "s.start()\n"
        "print(*[x.child.pid for x in s.servers], s.nursery.reaper_pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    *servers, reaper = (int(word) for word in parent.stdout.readline().split())
    assert all(_alive(pid) for pid in (*servers, reaper))
    if also_the_reaper:
        os.kill(reaper, signal.SIGKILL)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert _within(10, lambda: not any(_alive(pid) for pid in (*servers, reaper)))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()
