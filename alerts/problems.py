"""What is wrong with something that people wrote, told so that they can mend it: pydantic's errors
as path, what was found and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

LONGEST = 80


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. ``path`` is like ``send.0.receiver``."""

    path: str
    found: str
    allowed: str
    file: str = ""

    def __str__(self) -> str:
        place = f"{self.file}: " if self.file else ""
        return f"{place}{self.path or 'the whole'}: found {self.found}; allowed: {self.allowed}"

    @property
    def sentence(self) -> str:
        """For a field that shows by itself what was found."""
        return f"{self.allowed[:1].upper()}{self.allowed[1:]}."


class WrongError(Exception):
    """Something can't be taken as it is; says everything that is wrong at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = list(problems)


def problems_of(
    error: ValidationError, model: type[BaseModel], at: str = "", file: str = ""
) -> list[Problem]:
    """Each of pydantic's errors in words."""
    return [_problem(e, model, at, file) for e in error.errors(include_url=False)]


def shown(value: Any) -> str:
    """A value as an error quotes it."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _problem(error: Any, model: type[BaseModel], at: str, file: str) -> Problem:
    path = [str(part) for part in error["loc"]]
    kind, context, value = error["type"], error.get("ctx", {}), error.get("input")
    place = ".".join([*([at] if at else []), *path])
    if kind == "extra_forbidden":
        allowed = f"one of {', '.join(_fields_at(model, path[:-1]))}"
        return Problem(place, f"{path[-1]!r}, which is not known", allowed, file)
    if kind == "missing":
        return Problem(place, "nothing", "a value, since it has none by itself", file)
    return Problem(place, shown(value), _allowed(kind, context, error["msg"]), file)


def _allowed(kind: str, context: dict[str, Any], message: str) -> str:
    bounds = {
        "greater_than_equal": ("ge", "at least"), "greater_than": ("gt", "more than"),
        "less_than_equal": ("le", "at most"), "less_than": ("lt", "less than"),
    }  # fmt: skip
    if kind in bounds:
        name, word = bounds[kind]
        return f"{word} {context[name]:g}"
    if kind == "literal_error":
        return f"one of {context['expected'].replace(chr(39), '')}"
    if kind in ("float_parsing", "float_type"):
        return "a number"
    if kind in ("int_parsing", "int_type", "int_from_float"):
        return "a whole number"
    if kind in ("bool_parsing", "bool_type"):
        return "true or false"
    if kind in ("tuple_type", "list_type"):
        return "a list"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return "a section with fields"
    if kind == "string_too_short":
        return f"text of at least {context['min_length']} character"
    if kind == "string_too_long":
        return f"text of at most {context['max_length']} characters"
    if kind == "string_type":
        return "text"
    if kind == "finite_number":
        return "a finite number"
    text = message.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def _fields_at(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Names that a section has, by the path to it."""
    found: Any = model
    for part in path:
        if part.isdigit():
            continue
        field = found.model_fields.get(part) if hasattr(found, "model_fields") else None
        found = _section(field.annotation) if field is not None else None
    return list(found.model_fields) if hasattr(found, "model_fields") else ["what is documented"]


def _section(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if (found := _section(inner)) is not None:
            return found
    return None
