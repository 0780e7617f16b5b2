"""Rules of the house that a linter doesn't know: docstrings, future annotations, no drawers."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from tests.architecture.sources import APPS, PROJECT, files

DRAWERS = {"utils.py", "helpers.py", "common.py", "misc.py"}
MODULES = [file for app in APPS for file in files(app) if "migrations" not in file.parts]


@pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(PROJECT)))
def test_a_module_opens_with_a_docstring_and_future_annotations(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if not tree.body:
        return
    assert ast.get_docstring(tree), "no docstring"
    annotations = any(
        isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body
    )
    assert annotations or len(tree.body) == 1, "no `from __future__ import annotations`"


def test_files_are_named_for_their_concern() -> None:
    assert [str(f) for f in MODULES if f.name in DRAWERS] == []


def test_locks_name_versions_and_hashes_and_no_server() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (PROJECT / name).read_text(encoding="utf-8")
        pinned = [line for line in text.splitlines() if line and line[0] not in "# -"]
        assert pinned
        assert all("==" in line for line in pinned)
        assert text.count("--hash=sha256:") >= len(pinned)
        assert "://" not in text
        assert "--index-url" not in text
        assert "--find-links" not in text


def test_what_is_wanted_is_what_is_locked() -> None:
    """Each name in a .in file is in its lock: whoever adds one runs `make lock`."""
    for stem in ("requirements", "requirements-dev"):
        wanted = {
            line.split("#")[0].split("[")[0].split(">")[0].split("=")[0].strip().lower()
            for line in (PROJECT / f"{stem}.in").read_text(encoding="utf-8").splitlines()
            if line.strip() and line[0] not in "#-"
        }
        text = (PROJECT / f"{stem}.txt").read_text(encoding="utf-8")
        locked = {line.split("==")[0].split("[")[0] for line in text.splitlines() if "==" in line}
        assert wanted - locked == set()


def test_what_runs_here_is_not_tracked() -> None:
    for path in (".vigil/secret_key", ".venv/bin/python", "staticfiles/x"):
        done = subprocess.run(["git", "check-ignore", "-q", path], cwd=PROJECT, check=False)
        if done.returncode == 128:
            pytest.skip("not a git working copy")
        assert done.returncode == 0, path
