from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from detection import tuning
from detection.errors import FitDied, NotEnoughData
from detection.trial_process import TrialProcess
from tests.detection.test_training_queue import until
from tests.detection.test_tuning import ground


class EndedError(Exception):
    """What a tick may raise."""


def quiet() -> None:
    """Nobody wants the end."""


def child_of(trials: TrialProcess) -> int:
    assert trials._child is not None
    return trials._child.pid


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_it_measures_what_the_same_process_would_to_the_bit() -> None:
    with TrialProcess(ground(labels=True), 3, quiet) as measured:
        for name in tuning.RANGES:
            found = measured(name, {"features": "event"})
            assert found == tuning.measure(ground(labels=True), name, {"features": "event"}, seed=3)
        pid = child_of(measured)
        with pytest.raises(ValueError, match="'magic' is none of all"):
            measured("isolation_forest", {"features": "magic"})
        assert child_of(measured) == pid
    assert gone(pid)


def test_what_a_tick_raises_ends_a_trial_in_its_middle() -> None:
    seen: list[int] = []

    def tick() -> None:
        if trials._child is not None:
            seen.append(trials._child.pid)
            if len(seen) > 2:
                raise EndedError

    trials = TrialProcess(ground(), 1, tick)
    with pytest.raises(EndedError):
        trials("isolation_forest", {"n_estimators": 100_000})
    assert gone(seen[0])
    assert trials._child is None


def test_a_killed_child_is_told_and_the_next_trial_has_another() -> None:
    def kill() -> None:
        if trials._child is not None:
            os.kill(trials._child.pid, signal.SIGKILL)

    trials = TrialProcess(ground(), 1, kill)
    with pytest.raises(FitDied, match="killed by signal 9, perhaps for want of memory"):
        trials("isolation_forest", {"n_estimators": 100_000})
    trials._tick = quiet
    with trials:
        value, _ = trials("isolation_forest", {})
    assert 0 < value <= 1


def test_errors_of_a_fit_come_back_as_they_are() -> None:
    few = tuning.Ground(
        ground().rows[:20], ground().normal, ground().normal_us, ground().faulty,
        ground().faulty_us, ground().faults, ground().kinds, tuning.NO_LABELS, 1, 3.0,
    )  # fmt: skip
    with TrialProcess(few, 1, quiet) as measured, pytest.raises(NotEnoughData):
        measured("isolation_forest", {})


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_the_child_goes_with_its_parent_in_the_middle_of_a_trial() -> None:
    parent = os.fork()
    if parent == 0:  # pragma: no cover - another process
        try:
            TrialProcess(ground(), 1, quiet)("isolation_forest", {"n_estimators": 100_000})
        finally:
            os._exit(0)
    mine: list[int] = []

    def started() -> bool:
        mine[:] = [pid for pid in trial_processes() if parent_of(pid) == parent]
        return bool(mine)

    until(started)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    until(lambda: gone(mine[0]))


def trial_processes() -> list[int]:
    """Those of anybody on this machine."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"detection.trial_process" in words:
            found.append(int(entry.name))
    return found


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0
