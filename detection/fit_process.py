"""The fit in a process of its own: one thread, low priority, ended at once when nobody wants it.

scikit-learn's fits can't be interrupted, so what may be cancelled must be killed. The child knows
no database: it gets rows in a folder and leaves a payload there, and goes when its parent does.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from detection import errors
from detection.base import FloatArray
from detection.training import train

NICE = 10
POLL_S = 0.1
ROWS, ORDER, PAYLOAD, REFUSAL, SAID = "rows.npy", "order.json", "model", "refusal.json", "said"
ROOT = Path(__file__).parents[1]

Tick = Callable[[str], None]  # of a stage's name, several times a second; raises to end the fit


def fit(name: str, rows: FloatArray, tick: Tick, options: Mapping[str, Any]) -> bytes:
    """The payload that `detection.training.train(name, rows, **options)` makes, in a child.

    ``rows`` float64 [n, k]; ``options`` must be JSON. What ``tick`` raises ends the child and goes
    on to the caller.

    Raises:
        NotEnoughData, ValueError, DetectionError: as `train` does.
        FitDied: the child was killed or failed in a way nobody foresaw.
    """
    with tempfile.TemporaryDirectory(prefix="vigil-fit-") as place:
        folder = Path(place)
        np.save(folder / ROWS, rows, allow_pickle=False)
        (folder / ORDER).write_text(json.dumps({"name": name, "options": dict(options)}))
        with (folder / SAID).open("wb") as said:
            # Its standard input says whether we live: it ends when that does.
            child = subprocess.Popen(
                [sys.executable, "-m", "detection.fit_process", place],
                cwd=ROOT,
                stdin=subprocess.PIPE, stdout=said, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            while child.poll() is None:
                tick("testing" if (folder / "testing").exists() else "fitting")
                time.sleep(POLL_S)
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
            if child.stdin is not None:
                child.stdin.close()
        return _result(folder, child.returncode)


def hash_of(payload: bytes) -> str:
    """The sha256 that names the payload."""
    return hashlib.sha256(payload).hexdigest()


def _result(folder: Path, code: int) -> bytes:
    refusal = folder / REFUSAL
    if refusal.exists():
        said = json.loads(refusal.read_text())
        raise getattr(errors, said["kind"], ValueError)(said["message"])
    if code != 0:
        lines = (folder / SAID).read_text(errors="replace").strip().splitlines()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        hint = ", perhaps for want of memory" if code == -9 else ""
        raise errors.FitDied(f"the fitting process {how}{hint}{': ' if lines else ''}"
                             f"{lines[-1] if lines else ''}")  # fmt: skip
    return (folder / PAYLOAD).read_bytes()


def main(place: str) -> None:
    """The child's whole life."""
    os.nice(NICE)
    threadpool_limits(1)  # BLAS and OpenMP: one core, whatever the machine has
    folder = Path(place)
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    order = json.loads((folder / ORDER).read_text())
    rows = np.load(folder / ROWS, allow_pickle=False)
    try:
        trained = train(
            order["name"], rows, fitted=lambda: (folder / "testing").touch(), **order["options"]
        )
    except (errors.DetectionError, ValueError) as error:
        said = {"kind": type(error).__name__, "message": str(error)}
        (folder / REFUSAL).write_text(json.dumps(said))
        return
    (folder / PAYLOAD).write_bytes(trained.payload)


def _end_with_parent(folder: Path) -> None:
    # Past `sys.stdin`, whose lock a waiting thread would hold when the interpreter ends.
    while os.read(0, 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)  # a killed parent can't
    os._exit(3)


if __name__ == "__main__":
    main(sys.argv[1])
