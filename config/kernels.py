"""Where compiled kernels are kept: in a folder for each state of the sources they come from.

numba's cache looks at the file of a kernel alone. One that calls another file's kernel would go on
with the old one after an update, while the rest of the process runs the new.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import MutableMapping
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("detection", "streams")
VARIABLE = "NUMBA_CACHE_DIR"
_MARKS = (b"numba", b"detectors.jit")


def digest(project: Path = PROJECT) -> str:
    """Of all files that hold kernels."""
    found = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((project / package).rglob("*.py")):
            text = path.read_bytes()
            if any(mark in text for mark in _MARKS):
                found.update(str(path.relative_to(project)).encode() + b"\0" + text + b"\0")
    return found.hexdigest()[:16]


def choose_folder(environ: MutableMapping[str, str] = os.environ) -> None:
    """Name the folder to numba, within the one the environment names or beside the sources.

    To be called before numba is imported. Where neither is, numba or a process below finds a place.
    """
    if not environ.get(VARIABLE) and not os.access(PROJECT, os.W_OK):
        return
    name = f"kernels-{digest()}"
    given = environ.get(VARIABLE)
    base = Path(given) if given else PROJECT / "__pycache__"
    if base.name != name:  # else a process above this one has chosen
        environ[VARIABLE] = str(base / name)
