"""docs/configuration.md names every key of the schema with its default, variable and words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from config.loading import PREFIX, SHORT_NAMES
from config.schema import Stream, VigilConfig, is_secret
from tests.architecture.sources import PROJECT

DOCUMENT = PROJECT / "docs" / "configuration.md"
ROW = re.compile(r"^\| `([a-z_.\[\]]+)` \| (\S.*?) \| `([A-Z0-9_]+)` \| (.*)\|$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Key:
    path: tuple[str, ...]
    field: FieldInfo
    section: type[BaseModel]

    @property
    def dotted(self) -> str:
        return ".".join(self.path).replace("streams.0", "streams[]")

    @property
    def variable(self) -> str:
        known = {key: name for name, key in SHORT_NAMES.items()}
        return known.get(self.path) or PREFIX + "__".join(self.path).upper()

    @property
    def default(self) -> str:
        if self.field.is_required():
            return "required"
        value = self.field.default
        if self.dotted.endswith("statistical.method"):  # one may stand without a list
            value = value[0]
        return f"`{value if isinstance(value, str) else json.dumps(value)}`"

    @property
    def words(self) -> list[str]:
        return list(_literals(self.field.annotation))


def _literals(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for inner in get_args(annotation):
            yield from _literals(inner)


def _keys(section: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[Key]:
    for name, field in section.model_fields.items():
        at = (*path, name)
        inner: Any = Stream if at == ("streams",) else field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _keys(inner, (*at, "0") if at == ("streams",) else at)
        else:
            yield Key(at, field, section)


KEYS = list(_keys(VigilConfig))
ROWS = {row[0]: row[1:] for row in ROW.findall(DOCUMENT.read_text(encoding="utf-8"))}


def test_the_document_names_no_key_that_is_not_there() -> None:
    assert sorted(set(ROWS) - {key.dotted for key in KEYS}) == []


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.dotted)
def test_a_key_is_documented_as_it_is(key: Key) -> None:
    assert key.dotted in ROWS, f"docs/configuration.md lacks {key.dotted} ({key.default})"
    default, variable, meaning = ROWS[key.dotted]
    assert default == key.default
    assert variable == key.variable
    assert [word for word in key.words if f"`{word}`" not in meaning] == []
    assert ("*secret*" in meaning) == is_secret(key.section, key.path[-1])
