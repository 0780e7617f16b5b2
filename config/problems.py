"""Mistakes in the configuration, told to people: where, which key, what was found and allowed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from config.schema import is_secret, model_at

Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    where: str
    key: str
    found: str
    allowed: str

    def text(self) -> str:
        head = f"{self.where}: {self.key}" if self.key else self.where
        return f"{head}\n  found:   {self.found}\n  allowed: {self.allowed}"


def from_validation(
    error: ValidationError, tree: Any, origins: Mapping[Key, str], where: Callable[[Key], str]
) -> list[Problem]:
    """One problem for each of pydantic's errors, at the place that gave the value."""
    problems = []
    for detail in error.errors(include_url=False):
        key: Key = tuple(detail["loc"])
        origin = _origin(key, origins) or where(key)
        if detail["type"] == "extra_forbidden":
            problems.append(_unknown_key(key, origin))
        else:
            found, allowed = _found(key, tree, detail["type"]), _allowed(detail)
            problems.append(Problem(origin, dotted(key), found, allowed))
    return problems


def dotted(key: Key) -> str:
    return ".".join(str(part) for part in key)


def _origin(key: Key, origins: Mapping[Key, str]) -> str | None:
    """Of the key itself, else of a key above it, else of the first one below it."""
    for length in range(len(key), 0, -1):
        if origin := origins.get(key[:length]):
            return origin
    return next((origin for at, origin in origins.items() if at[: len(key)] == key and key), None)


def _unknown_key(key: Key, origin: str) -> Problem:
    section = model_at(key[:-1])
    known = list(section.model_fields) if section else []
    close = difflib.get_close_matches(str(key[-1]), known, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}? " if close else ""
    place = dotted(key[:-1]) or "the top"
    return Problem(
        origin, dotted(key), "an unknown key", f"{hint}Keys of {place}: {', '.join(known)}"
    )


def _found(key: Key, tree: Any, kind: str) -> str:
    if kind == "missing":
        return "nothing"
    section = model_at(key[:-1])
    if section is not None and key and is_secret(section, str(key[-1])):
        return "a secret (not shown)"
    node = tree
    for part in key:
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            return "a combination that doesn't fit"
    if isinstance(node, dict) or not key:
        return "values that don't fit together"
    return repr(node) if len(repr(node)) <= 200 else repr(node)[:200] + "…"


def _allowed(detail: Any) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    message = message.partition(", unable to")[0]
    if detail["type"] == "missing":
        return "a value: the key is required"
    return message.replace("String should match pattern", "text of the pattern")
