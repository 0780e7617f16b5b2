"""Templates that people write for their messages: Django's, with nothing in them that could hurt.

There is no loader, so no file is read; tags and filters are the few of :mod:`alerts.text_tags`;
values are plain text, numbers and records of them, so no method with an effect is in reach; what a
template can cost is known before it runs (nested loops are counted), and its output is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from django.template import Context, Engine, Template, TemplateSyntaxError
from django.template.base import Node, NodeList
from django.template.defaulttags import ForNode

LONGEST_TEMPLATE = 10_000
LONGEST_SUBJECT, LONGEST_BODY = 200, 6_000
MOST_ITEMS, LONGEST_VALUE = 20, 2_000
MOST_STEPS = 5_000


class TextError(Exception):
    """A template that can't be used; the message is for whoever wrote it."""


class Record:
    """Names and values for templates: looked up by name, nothing else."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {str(k): harmless(v) for k, v in list(values.items())[:100]}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __str__(self) -> str:
        return ", ".join(f"{k}={v}" for k, v in self._values.items())[:LONGEST_VALUE]


def harmless(value: Any) -> Any:
    """A value without methods of any effect, and of bounded size."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return Record(value)
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(harmless(v) for v in list(value)[:MOST_ITEMS])
    return str(value)[:LONGEST_VALUE]


class _Engine(Engine):
    """Knows our own tags and filters, and none of Django's."""

    default_builtins = ["alerts.text_tags"]  # noqa: RUF012  (as Django declares it)


@lru_cache(maxsize=256)
def compiled(source: str, missing: str = "") -> Template:
    """A template, checked. Raises :class:`TextError` with what is wrong."""
    if len(source) > LONGEST_TEMPLATE:
        raise TextError(f"At most {LONGEST_TEMPLATE:,} characters; this has {len(source):,}.")
    if "\x00" in source:
        raise TextError("Control characters don't belong here.")
    engine = _Engine(dirs=[], app_dirs=False, loaders=[], libraries={}, autoescape=False,
                     string_if_invalid=missing)  # fmt: skip
    try:
        template = Template(source, engine=engine)
        steps = _steps(template.nodelist)
    except TemplateSyntaxError as error:
        raise TextError(_words(error)) from None
    except RecursionError:
        raise TextError("Too many blocks within each other.") from None
    if steps > MOST_STEPS:
        raise TextError("Too many loops within each other: this could take too long.")
    return template


def rendered(source: str, values: Mapping[str, Any], longest: int, missing: str = "") -> str:
    """The text that a template gives, cut. Raises :class:`TextError`."""
    template = compiled(source, missing)
    try:
        text = str(template.render(Context(
            {str(k): harmless(v) for k, v in values.items()}, autoescape=False
        )))  # fmt: skip
    except Exception as error:  # a filter's fault with a value that nobody thought of
        raise TextError(f"It can't be filled in: {error}"[:300]) from None
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _steps(nodes: NodeList) -> int:
    """Most nodes that a rendering visits."""
    total = 0
    for node in nodes:
        inner = sum(_steps(part) for part in _parts(node))
        total += 1 + inner * (MOST_ITEMS if isinstance(node, ForNode) else 1)
    return total


def _parts(node: Node) -> Iterator[NodeList]:
    branches = getattr(node, "conditions_nodelists", None)
    if branches is not None:
        yield from (nodes for _, nodes in branches)
        return
    for name in node.child_nodelists:
        if (found := getattr(node, name, None)) is not None:
            yield found


def _words(error: TemplateSyntaxError) -> str:
    text = str(error).partition(" Did you forget to register")[0]
    return text[:300] + ("" if text.endswith(".") else ".")
