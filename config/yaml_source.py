"""A YAML file as keys and values that remember their lines, so that a mistake can be pointed at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from config.problems import Key, Problem


@dataclass(frozen=True, slots=True)
class YamlSource:
    name: str
    tree: dict[str, Any] = field(default_factory=dict)
    lines: dict[Key, int] = field(default_factory=dict)

    def where(self, key: Key) -> str:
        """`config/config.yaml, line 12`; the nearest enclosing key's line where it has none."""
        for length in range(len(key), 0, -1):
            if line := self.lines.get(key[:length]):
                return f"{self.name}, line {line}"
        return self.name

    def leaves(self) -> Iterator[tuple[Key, Any]]:
        """Every key with a value of its own; `null` counts as left out."""
        return _leaves((), self.tree)


def read_yaml(path: Path, problems: list[Problem]) -> YamlSource:
    name = _shown(path)
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Key, int] = {}
        tree = {} if root is None else _built(root, (), lines, name, problems)
    except OSError as error:
        problems.append(
            Problem(name, "", error.strerror or "unreadable",
                    "a readable file; VIGIL_CONFIG names another one")
        )  # fmt: skip
        return YamlSource(name)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(_not_yaml(name, error))
        return YamlSource(name)
    if not isinstance(tree, dict):
        problems.append(
            Problem(name, "", f"a {type(tree).__name__} at the top", "sections such as kafka:")
        )
        return YamlSource(name)
    return YamlSource(name, tree, lines)


def _built(
    node: yaml.Node, at: Key, lines: dict[Key, int], name: str, problems: list[Problem]
) -> Any:
    if isinstance(node, yaml.MappingNode):
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in built:
                problems.append(
                    Problem(f"{name}, line {line}", ".".join(map(str, (*at, key))),
                            f"a second time (first on line {lines[(*at, key)]})", "each key once")
                )  # fmt: skip
            lines[(*at, key)] = line
            built[key] = _built(value_node, (*at, key), lines, name, problems)
        return built
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            lines[(*at, index)] = item.start_mark.line + 1
            items.append(_built(item, (*at, index), lines, name, problems))
        return items
    # Scalars keep YAML's own types: true, 5, 0.8, null.
    return yaml.SafeLoader("").construct_object(node)


def _leaves(at: Key, node: Any) -> Iterator[tuple[Key, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves((*at, key), value)
    elif isinstance(node, list) and any(isinstance(item, dict) for item in node):
        for index, value in enumerate(node):
            yield from _leaves((*at, index), value)
    elif node is not None and at:
        yield at, node


def _not_yaml(name: str, error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None)
    where = name if mark is None else f"{name}, line {mark.line + 1}, column {mark.column + 1}"
    found = getattr(error, "problem", None) or "not UTF-8 text"
    return Problem(where, "", str(found), "YAML: `key: value`, nested by two spaces")


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
