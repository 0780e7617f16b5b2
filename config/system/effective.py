"""The settings in effect: each with its value, where that came from, and no secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from config.problems import Key, dotted
from config.schema import VigilConfig

HIDDEN = "•••"
# Secrets that are addresses: their host helps, their password is nobody's business.
ADDRESSES = {("database", "url"), ("redis", "url")}


@dataclass(frozen=True, slots=True)
class Setting:
    """`origin` is a place in a file, a variable of the environment, or "default"."""

    key: str
    value: str
    origin: str
    changed: bool


def effective(config: VigilConfig, origins: Mapping[Key, str]) -> list[tuple[str, list[Setting]]]:
    """By section, as config.yaml has them."""
    found: dict[str, list[Setting]] = {}
    for key, value, usual in _leaves((), config, VigilConfig()):
        where = origins.get(key, "default")
        found.setdefault(str(key[0]), []).append(
            Setting(dotted(key), _shown(key, value), where, value != usual)
        )
    return list(found.items())


def without_password(address: str) -> str:
    """
    >>> without_password("postgresql://vigil:secret@db:5432/vigil?sslpassword=x&host=/run")
    'postgresql://vigil:•••@db:5432/vigil'
    """
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return HIDDEN
    user = f"{parts.username or ''}:{HIDDEN}@" if parts.password else ""
    if not user and parts.username:
        user = f"{parts.username}@"
    return f"{parts.scheme}://{user}{host}{port}{parts.path}"


def _leaves(at: Key, node: Any, usual: Any) -> Iterator[tuple[Key, Any, Any]]:
    if isinstance(node, BaseModel):
        for name in type(node).model_fields:
            yield from _leaves((*at, name), getattr(node, name), getattr(usual, name, None))
    elif isinstance(node, tuple) and node and isinstance(node[0], BaseModel):
        for i, item in enumerate(node):
            same = usual[i] if isinstance(usual, tuple) and i < len(usual) else None
            yield from _leaves((*at, i), item, same)
    else:
        yield at, node, usual


def _shown(key: Key, value: Any) -> str:
    if isinstance(value, SecretStr):
        return without_password(value.get_secret_value()) if key in ADDRESSES else HIDDEN
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items()) or "none"
    if isinstance(value, str) and "://" in value and "@" in value:
        return without_password(value)
    return str(value)
