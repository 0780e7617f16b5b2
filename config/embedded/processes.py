"""Child processes that can't outlive their parent, whatever ends it, SIGKILL included.

On Linux the kernel signals each child when its parent dies; a reaper (`reaper.py`), which sees
the parent's pipe close, does the same elsewhere and kills what does not follow.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_PR_SET_PDEATHSIG = 1
_prctl: Any = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None


class Child:
    """A process in a session of its own, so that Ctrl-C reaches only its parent."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], stop_signal: int) -> None:
        self.name = name
        self.process = process
        self.stop_signal = stop_signal

    @property
    def pid(self) -> int:
        return self.process.pid

    def returncode(self) -> int | None:
        return self.process.poll()

    def signal(self, number: int | None = None) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number or self.stop_signal)

    def kill_group(self) -> None:
        """Ends it and whatever it started and left."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)


class Nursery:
    """Starts children and answers for them: with its process, they end.

    Use it from one thread that lives as long as the children do: the kernel's death signal
    follows the thread that started the child, not the whole process.
    """

    def __init__(self) -> None:
        self._reaper: subprocess.Popen[bytes] | None = None
        self._children: list[Child] = []

    @property
    def reaper_pid(self) -> int | None:
        return None if self._reaper is None else self._reaper.pid

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        output: IO[bytes] | int | None = None,
        user: str | None = None,
        stop_signal: int = signal.SIGTERM,
    ) -> Child:
        process = subprocess.Popen(
            list(command),
            env=None if env is None else dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            start_new_session=True,
            preexec_fn=_dies_with_parent(stop_signal),
        )
        child = Child(name, process, stop_signal)
        self._children.append(child)
        self._tell(f"watch {child.pid} {int(stop_signal)}")
        return child

    def forget(self, child: Child) -> None:
        """After a child's end: what it left behind goes too."""
        child.kill_group()
        if child in self._children:
            self._children.remove(child)
        self._tell(f"forget {child.pid}")

    def stop(
        self,
        children: Sequence[Child] | None = None,
        *,
        within_s: float = 10.0,
        meanwhile: Callable[[float], None] = time.sleep,
    ) -> list[str]:
        """Signals the children (all of them by default), waits, and kills what stays.

        `meanwhile(seconds)` runs while it waits, to read what they print. Returns the names of
        those that had to be killed.
        """
        stopping = list(self._children if children is None else children)
        for child in stopping:
            child.signal()
        deadline = time.monotonic() + within_s
        while any(child.returncode() is None for child in stopping):
            if time.monotonic() > deadline:
                break
            meanwhile(0.02)
        killed = [child.name for child in stopping if child.returncode() is None]
        for child in stopping:
            self.forget(child)
        return killed

    def close(self) -> None:
        """Stops what is left, and the reaper."""
        self.stop()
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.close()
            self._reaper.wait()
            self._reaper = None

    def _tell(self, line: str) -> None:
        if self._reaper is None or self._reaper.poll() is not None:
            self._reaper = subprocess.Popen(
                [sys.executable, "-I", str(Path(__file__).with_name("reaper.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            for child in self._children:
                self._write(f"watch {child.pid} {int(child.stop_signal)}")
        else:
            self._write(line)

    def _write(self, line: str) -> None:
        if self._reaper is not None and self._reaper.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._reaper.stdin.write(line.encode() + b"\n")
                self._reaper.stdin.flush()


def _dies_with_parent(stop_signal: int) -> Callable[[], None] | None:
    if _prctl is None:
        return None
    parent = os.getpid()

    def between_fork_and_exec() -> None:
        _prctl(_PR_SET_PDEATHSIG, int(stop_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return between_fork_and_exec
