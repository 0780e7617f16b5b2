"""An update of a kernel's source never meets what was compiled of the old one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config.kernels import PROJECT, VARIABLE, choose_folder, digest


def test_the_folder_follows_the_sources_of_kernels(tmp_path: Path) -> None:
    for package in ("detection", "streams"):
        shutil.copytree(PROJECT / package, tmp_path / package)
    assert digest(tmp_path) == digest()
    runner = tmp_path / "streams" / "runner.py"
    runner.write_text(runner.read_text() + "\n# no kernel here\n")
    assert digest(tmp_path) == digest()
    kernels = tmp_path / "streams" / "jsontext.py"
    kernels.write_text(kernels.read_text() + "\n# another state\n")
    assert digest(tmp_path) != digest()


def test_a_process_below_uses_the_folder_of_the_one_above() -> None:
    environ = {VARIABLE: "/somewhere"}
    choose_folder(environ)
    chosen = environ[VARIABLE]
    assert chosen == f"/somewhere/kernels-{digest()}"
    choose_folder(environ)
    assert environ[VARIABLE] == chosen


def test_where_the_project_is_read_only_the_choice_is_left_to_who_knows_a_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != PROJECT)
    environ: dict[str, str] = {}
    choose_folder(environ)
    assert environ == {}
    environ[VARIABLE] = "/data/numba"
    choose_folder(environ)
    assert environ[VARIABLE] == f"/data/numba/kernels-{digest()}"


def test_kernels_are_kept_there(tmp_path: Path) -> None:
    code = (
        "import config, numpy as np; from streams.timestamps import parse_iso;"
        "print(parse_iso(np.frombuffer(b'1999-01-01T00:00:00Z', dtype=np.uint8), 0, 20))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env={**os.environ, VARIABLE: str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "915148800000000"
    assert list((tmp_path / f"kernels-{digest()}").rglob("*.nbi"))
