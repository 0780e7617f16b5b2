"""The trials of a study in a process of its own: one thread, low priority, ended at any moment.

A fit can't be interrupted, so what may be cancelled must be killed. The child knows no database:
it gets the ground in a folder, an order a line, and answers a line; it goes when its parent does.
"""

from __future__ import annotations

import json
import os
import queue
import select
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Self, cast

import numpy as np
from threadpoolctl import threadpool_limits

from detection import errors
from detection.fit_process import NICE, POLL_S, ROOT
from detection.tuning import Ground, Labels, Measured, measure

GROUND, REST, SAID = "ground.npz", "ground.json", "said"


class TrialProcess:
    """Measures settings on a ground, in a child that is started with the first of them.

    ``tick`` is called several times a second; what it raises ends the child and goes on.
    """

    def __init__(self, ground: Ground, seed: int, tick: Callable[[], None]) -> None:
        self._ground, self._seed, self._tick = ground, seed, tick
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, whatever it does."""
        child, self._child = self._child, None
        if child is not None:
            if child.poll() is None:
                child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()

    def __call__(self, algorithm: str, params: Mapping[str, Any]) -> Measured:
        """What `detection.tuning.measure` gives.

        Raises:
            NotEnoughData, DetectionError, ValueError: as that does.
            FitDied: the child was killed; the next call starts another.
        """
        try:
            said = self._answer({"algorithm": algorithm, "params": dict(params)})
        except BaseException:
            self.close()
            raise
        if "kind" in said:
            raise getattr(errors, said["kind"], ValueError)(said["message"])
        return float(said["value"]), said["figures"]

    def _answer(self, order: Mapping[str, Any]) -> dict[str, Any]:
        self._tick()
        child = self._child or self._start()
        orders, answers = cast(IO[bytes], child.stdin), cast(IO[bytes], child.stdout)
        try:
            orders.write(json.dumps(order).encode() + b"\n")
            orders.flush()
        except BrokenPipeError:
            raise self._died(child) from None
        while not select.select([answers], [], [], POLL_S)[0]:
            self._tick()
        line = answers.readline()
        if not line.endswith(b"\n"):
            raise self._died(child)
        found: dict[str, Any] = json.loads(line)
        return found

    def _start(self) -> subprocess.Popen[bytes]:
        self._folder = tempfile.TemporaryDirectory(prefix="vigil-trials-")
        folder = Path(self._folder.name)
        _write(self._ground, self._seed, folder)
        with (folder / SAID).open("wb") as said:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "detection.trial_process", str(folder)],
                cwd=ROOT,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said,
            )  # fmt: skip
        return self._child

    def _died(self, child: subprocess.Popen[bytes]) -> errors.FitDied:
        code = child.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        hint = ", perhaps for want of memory" if code == -9 else ""
        lines: list[str] = []
        if self._folder is not None:
            text = (Path(self._folder.name) / SAID).read_text(errors="replace")
            lines = text.strip().splitlines()
        return errors.FitDied(
            f"the process of the trials {how}{hint}{': ' if lines else ''}"
            f"{lines[-1] if lines else ''}"
        )


def _write(ground: Ground, seed: int, folder: Path) -> None:
    np.savez(
        folder / GROUND,
        rows=ground.rows, normal=ground.normal, normal_us=ground.normal_us, faulty=ground.faulty,
        faulty_us=ground.faulty_us, faults=ground.faults, features=ground.labels.features,
        real=ground.labels.real,
    )  # fmt: skip
    rest = {"kinds": ground.kinds, "series": ground.series, "seed": seed,
            "false_per_10000": ground.false_per_10000}  # fmt: skip
    (folder / REST).write_text(json.dumps(rest))


def _read(folder: Path) -> tuple[Ground, int]:
    rest = json.loads((folder / REST).read_text())
    with np.load(folder / GROUND, allow_pickle=False) as found:
        return Ground(
            rows=found["rows"], normal=found["normal"], normal_us=found["normal_us"],
            faulty=found["faulty"], faulty_us=found["faulty_us"], faults=found["faults"],
            kinds=tuple(rest["kinds"]), labels=Labels(found["features"], found["real"]),
            series=rest["series"], false_per_10000=rest["false_per_10000"],
        ), rest["seed"]  # fmt: skip


def main(place: str, answers: IO[bytes]) -> None:
    """The child's whole life."""
    os.nice(NICE)
    threadpool_limits(1)  # BLAS and OpenMP: one core, whatever the machine has
    folder = Path(place)
    orders: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(folder, orders), daemon=True).start()
    ground, seed = _read(folder)
    while True:
        order = json.loads(orders.get())
        said: dict[str, Any]
        try:
            value, figures = measure(ground, order["algorithm"], order["params"], seed=seed)
            said = {"value": value, "figures": figures}
        except (errors.DetectionError, ValueError) as error:
            said = {"kind": type(error).__name__, "message": str(error)}
        answers.write(json.dumps(said).encode() + b"\n")
        answers.flush()


def _listen(folder: Path, orders: queue.Queue[bytes]) -> None:
    # Past `sys.stdin`, whose lock a waiting thread would hold when the interpreter ends.
    rest = b""
    while got := os.read(0, 65_536):
        *lines, rest = (rest + got).split(b"\n")
        for line in lines:
            orders.put(line)
    shutil.rmtree(folder, ignore_errors=True)  # a killed parent can't
    os._exit(3)


if __name__ == "__main__":
    # What libraries print must not stand among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    main(sys.argv[1], answers)
