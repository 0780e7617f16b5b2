"""Imports point upstream: streams ← detection ← anomalies ← alerts ← config."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.sources import APPS, PROJECT, Import, files, imports

# An app's outermost files: nobody in another app builds on them. config's entry points include
# urls and sockets, which is what these are for.
OUTERMOST = ("tasks", "views", "sockets", "admin")
ENTRY_POINTS = {"urls.py", "asgi.py", "celery.py"}


def _app_of(module: str) -> str | None:
    head = module.partition(".")[0]
    return head if head in APPS else None


def _every_import() -> list[Import]:
    return [found for app in APPS for file in files(app) for found in imports(file)]


@pytest.mark.parametrize("app", APPS)
def test_an_app_imports_itself_and_those_before_it(app: str) -> None:
    allowed = APPS[: APPS.index(app) + 1]
    downstream = [
        str(found)
        for file in files(app)
        for found in imports(file)
        if (target := _app_of(found.module)) is not None
        and target not in allowed
        # A command is an entry point, and `config.wiring` is made for it.
        and not ("management" in file.parts and found.module.startswith("config.wiring"))
    ]
    assert downstream == []


def test_nobody_imports_another_apps_tasks_views_sockets_or_admin() -> None:
    crossing = [
        str(found)
        for found in _every_import()
        if (target := _app_of(found.module)) is not None
        and target != found.file.relative_to(PROJECT).parts[0]
        and set(found.module.split(".")[1:2]) & set(OUTERMOST)
        and found.file.name not in ENTRY_POINTS
    ]
    assert crossing == []


def test_nobody_hides_an_import_of_the_project_behind_type_checking() -> None:
    """Needing that means that something lives in the wrong room."""
    hidden = [
        f"{file.relative_to(PROJECT)}:{node.lineno}"
        for app in APPS
        for file in files(app)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    assert hidden == []


def test_tests_are_no_part_of_the_product() -> None:
    assert [str(f) for f in _every_import() if f.module.partition(".")[0] == "tests"] == []


def test_apps_read_neither_the_environment_nor_yaml() -> None:
    """Configuration comes by argument or `settings.VIGIL`; config alone reads it.

    Alert rules are no configuration: people write and keep them as YAML.
    """
    reading = [
        str(found)
        for app in APPS[:-1]
        for file in files(app)
        if file.name != "yaml_text.py"
        for found in imports(file)
        if found.module in {"yaml", "os.environ", "os.getenv"} or found.module.startswith("yaml.")
    ]
    reading += [
        f"{file.relative_to(PROJECT)}:{node.lineno} reads os.environ"
        for app in APPS[:-1]
        for file in files(app)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.getenv"}
    ]
    assert reading == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import alerts.rules", "alerts.rules"),
        ("from alerts import rules", "alerts.rules"),
        ("def f():\n    from alerts.rules import x", "alerts.rules.x"),
        ("from ..alerts import rules", "alerts.rules"),
        ("import importlib\nimportlib.import_module('alerts.rules')", "alerts.rules"),
    ],
)
def test_the_reader_sees_every_way_to_import(
    source: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tests.architecture.sources.PROJECT", tmp_path)
    file = tmp_path / "streams" / "probe.py"
    file.parent.mkdir()
    file.write_text(source, encoding="utf-8")
    assert expected in [found.module for found in imports(file)]
