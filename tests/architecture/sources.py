"""Reads the project's own Python files as trees, for the rules to look at."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
# Imports run upstream: an app imports itself and the apps before it.
APPS = ("streams", "detection", "anomalies", "alerts", "config")


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, wherever in the file it stands: at the top, in a function, guarded."""

    file: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(PROJECT)}:{self.line} imports {self.module}"


def files(app: str) -> list[Path]:
    return sorted((PROJECT / app).rglob("*.py"))


def imports(file: Path) -> Iterator[Import]:
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    package = file.relative_to(PROJECT).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            # `from streams import batch` imports streams.batch, or a name of streams.
            for alias in node.names:
                yield Import(file, node.lineno, f"{base}.{alias.name}")
        elif (name := _dynamic(node)) is not None:
            yield Import(file, getattr(node, "lineno", 0), name)


def _base(node: ast.ImportFrom, package: tuple[str, ...]) -> str:
    if node.level == 0:
        return node.module or ""
    above = package[: len(package) - node.level + 1]
    return ".".join((*above, *([node.module] if node.module else [])))


def _dynamic(node: ast.AST) -> str | None:
    """`import_module("alerts.rules")` counts as well."""
    if not isinstance(node, ast.Call) or not node.args:
        return None
    called = (
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    )
    first = node.args[0]
    if called in {"import_module", "__import__"} and isinstance(first, ast.Constant):
        return str(first.value)
    return None
